"""FHIR bundles and HL7 messages to whoever takes them by HTTP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.deliver.destination import DeliveryError, ResultFile
from gateway.deliver.exchange import make_status_error, post

FHIR, HL7 = "fhir.json", "oru.hl7"
CONTENT_TYPES = {FHIR: "application/fhir+json", HL7: "x-application/hl7-v2+er7; charset=utf-8"}
"""Of each kind of result, by its file name; that of HL7 is the one of HAPI's HL7 over HTTP."""

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
        content_type = CONTENT_TYPES[self.kind]
        headers = {"content-type": content_type, "accept": content_type.partition(";")[0]}
        status, text = post(self.url, body, headers, ca=self.ca, token=self.token)
        if not 200 <= status < 300:
            raise make_status_error(status)
        found = _ACKNOWLEDGEMENT.search(text) if self.kind == HL7 else None
        if found is not None and found[1] not in _TAKEN:
            raise DeliveryError(f"it acknowledged with {found[1].decode()}", is_refusal=True)
