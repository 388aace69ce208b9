"""Results to an archive by STOW-RS (PS3.18, 10.5)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.deliver.destination import DeliveryError, ResultFile
from gateway.deliver.exchange import make_status_error, post

DUPLICATE = 0x0111
FAILURES, REASON = "00081198", "00081197"
"""FailedSOPSequence, and FailureReason in it (PS3.18, I.2)."""


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
        url = f"{self.url.rstrip('/')}/studies"
        status, body = post(url, join_parts(files, boundary), headers, ca=self.ca, token=self.token)
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
        raise make_status_error(status)


def list_failures(body: bytes) -> set[int]:
    """Reasons of the objects that were not stored. An answer without a body that can be read has its status alone."""
    try:
        document: Any = json.loads(body)
        document = document[0] if isinstance(document, list) else document  # servers differ
        return {int(one[REASON]["Value"][0]) for one in document.get(FAILURES, {}).get("Value", [])}
    except (ValueError, LookupError, TypeError, AttributeError):
        return set()
