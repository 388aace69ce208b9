"""FHIR bundles and HL7 messages to whoever takes them by HTTP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from gateway.deliver.destination import DeliveryError, ResultFile
from gateway.deliver.stow import PASSING, SECONDS

FHIR, HL7 = "fhir.json", "oru.hl7"
CONTENT_TYPES = {FHIR: "application/fhir+json", HL7: "x-application/hl7-v2+er7; charset=utf-8"}
"""Of each kind of result, by its file name; that of HL7 is the one of HAPI's HL7 over HTTP."""

MOST_ANSWER_BYTES = 1 << 20
_ACKNOWLEDGEMENT = re.compile(rb"(?:^|[\r\n])MSA\|([A-Z]{2})")
_TAKEN = (b"AA", b"CA")


@dataclass(frozen=True)
class PostDestination:
    """A service by its URL, for one kind of result."""

    url: str
    kind: str
    """``FHIR`` or ``HL7``."""

    ca: Path | None = None
    """Authorities that may vouch for it; None: those that Python brings."""

    token: Path | None = None
    """File with a bearer token, read before each request."""

    @property
    def name(self) -> str:
        """The URL."""
        return self.url

    def send(self, files: Sequence[ResultFile]) -> None:
        """Posts the result of its kind; where there is none, nothing.

        Raises:
            DeliveryError: it was not taken.
        """
        for file in files:
            if file.name == self.kind:
                self._post(file.data)

    def _post(self, body: bytes) -> None:
        headers = {"content-type": CONTENT_TYPES[self.kind], "accept": CONTENT_TYPES[self.kind].partition(";")[0]}
        try:
            if self.token:
                headers["authorization"] = f"Bearer {self.token.read_text('ascii').strip()}"
            with requests.Session() as session:
                session.trust_env = False  # no proxy, no .netrc: this box talks to whom it was told to
                session.verify = str(self.ca) if self.ca else True
                # What is sent elsewhere would go there as another request, and with the token.
                with session.post(
                    self.url, body, headers=headers, timeout=SECONDS, allow_redirects=False, stream=True
                ) as answer:
                    status, text = answer.status_code, answer.raw.read(MOST_ANSWER_BYTES, decode_content=True)
        except requests.RequestException as error:
            raise DeliveryError(f"it cannot be reached ({type(error).__name__})") from None
        except (OSError, UnicodeDecodeError):
            raise DeliveryError("the answer, or the token's file, cannot be read") from None
        if not 200 <= status < 300:
            is_refusal = 400 <= status < 500 and status not in PASSING
            raise DeliveryError(f"it answered with HTTP status {status}", is_refusal=is_refusal)
        found = _ACKNOWLEDGEMENT.search(text) if self.kind == HL7 else None
        if found is not None and found[1] not in _TAKEN:
            raise DeliveryError(f"it acknowledged with {found[1].decode()}", is_refusal=True)
