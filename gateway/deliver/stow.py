"""Results to an archive by STOW-RS (PS3.18, 10.5)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from gateway.deliver.destination import DeliveryError, ResultFile

SECONDS = (10.0, 60.0)
"""To connect, and between two pieces of the answer."""

MOST_ANSWER_BYTES = 1 << 20
DUPLICATE = 0x0111
FAILURES, REASON = "00081198", "00081197"
"""FailedSOPSequence, and FailureReason in it (PS3.18, I.2)."""

PASSING = frozenset((401, 403, 404, 407, 408, 425, 429))
"""Statuses below 500 that are about who asks, where, or when: somebody or something will change that. The others are
about the objects."""


@dataclass(frozen=True)
class StowDestination:
    """An archive by the URL of its DICOMweb service."""

    url: str
    ca: Path | None = None
    """Authorities that may vouch for it; None: those that Python brings."""

    token: Path | None = None
    """File with a bearer token, read before each request."""

    @property
    def name(self) -> str:
        """The URL."""
        return self.url

    def send(self, files: Sequence[ResultFile]) -> None:
        """Sends the DICOM objects in one request.

        Raises:
            DeliveryError: one of them is not there.
        """
        boundary = secrets.token_hex(16)
        headers = {
            "Accept": "application/dicom+json",
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        }
        try:
            if self.token is not None:
                headers["Authorization"] = f"Bearer {self.token.read_text('ascii').strip()}"
            with requests.Session() as session:
                session.trust_env = False  # no proxy, no .netrc: this box talks to whom it was told to
                with session.post(
                    f"{self.url.rstrip('/')}/studies",
                    data=join_parts(files, boundary),
                    headers=headers,
                    timeout=SECONDS,
                    verify=str(self.ca) if self.ca else True,
                    allow_redirects=False,
                    stream=True,
                ) as answer:
                    status, body = answer.status_code, answer.raw.read(MOST_ANSWER_BYTES, decode_content=True)
        except requests.RequestException as error:
            raise DeliveryError(f"it cannot be reached ({type(error).__name__})") from None
        except (OSError, ValueError):
            raise DeliveryError("the answer, or the token's file, cannot be read") from None
        check_answer(status, body)


def join_parts(files: Sequence[ResultFile], boundary: str) -> bytes:
    """The body of a request: the DICOM objects among the files."""
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    parts = [head + file.data + b"\r\n" for file in files if file.is_dicom]
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


def check_answer(status: int, body: bytes) -> None:
    """Looks whether everything was stored.

    Raises:
        DeliveryError: it was not.
    """
    reasons = list_failures(body)
    if reasons - {DUPLICATE}:
        shown = ", ".join(f"{reason:04X}" for reason in sorted(reasons))
        raise DeliveryError(f"it did not store all objects (reason {shown})", is_refusal=True)
    if not (200 <= status < 300 or reasons):
        is_refusal = 400 <= status < 500 and status not in PASSING
        raise DeliveryError(f"it answered with HTTP status {status}", is_refusal=is_refusal)


def list_failures(body: bytes) -> set[int]:
    """Reasons of the objects that were not stored. An answer without a body that can be read has its status alone."""
    try:
        document: Any = json.loads(body)
        document = document[0] if isinstance(document, list) else document  # servers differ
        return {int(one[REASON]["Value"][0]) for one in document.get(FAILURES, {}).get("Value", [])}
    except (ValueError, LookupError, TypeError, AttributeError):
        return set()
