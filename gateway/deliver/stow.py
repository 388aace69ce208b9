"""Results to an archive by STOW-RS (DICOMweb)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
import requests
from dicomweb_client import DICOMwebClient

from gateway.deliver.destination import DeliveryError, ResultFile

SECONDS = (10.0, 60.0)
"""To connect, and between two pieces of the answer."""

DUPLICATE = 0x0111
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
        datasets = [pydicom.dcmread(io.BytesIO(file.data)) for file in files if file.is_dicom]
        try:
            with requests.Session() as session:
                session.trust_env = False  # no proxy, no .netrc: this box talks to whom it was told to
                session.verify = str(self.ca) if self.ca else True
                headers = {"Authorization": f"Bearer {self.token.read_text('ascii').strip()}"} if self.token else {}
                client = DICOMwebClient(self.url, session=session, headers=headers, timeout=SECONDS)
                client.set_http_retry_params(retry=False)  # that is the outbox's to decide
                answer = client.store_instances(datasets)
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            raise DeliveryError(
                f"it answered with HTTP status {status}", is_refusal=400 <= status < 500 and status not in PASSING
            ) from None
        except requests.RequestException as error:
            raise DeliveryError(f"it cannot be reached ({type(error).__name__})") from None
        except OSError as error:
            raise DeliveryError(f"the token's file cannot be read: {error.strerror}") from None
        check_answer(answer)


def check_answer(answer: pydicom.Dataset) -> None:
    """Looks for objects that were not stored (PS3.18, I.2.2).

    Raises:
        DeliveryError: there are some.
    """
    reasons = {int(item.get("FailureReason", 0)) for item in answer.get("FailedSOPSequence", [])} - {DUPLICATE}
    if reasons:
        shown = ", ".join(f"{reason:04X}" for reason in sorted(reasons))
        raise DeliveryError(f"it did not store all objects (reason {shown})", is_refusal=True)
