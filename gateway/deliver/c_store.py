"""Results to an archive by C-STORE."""

from __future__ import annotations

import io
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pydicom
from pynetdicom import AE
from pynetdicom.association import Association

from gateway.deliver.destination import DeliveryError, ResultFile

CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0
SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
DUPLICATE = 0x0111
"""Duplicate SOP instance: it is there already (PS3.7, C.5.1)."""

WARNINGS = range(0xB000, 0xC000)
"""It is stored, though not quite as it was sent (PS3.4, table B.2-1)."""

REFUSALS = (*range(0xA900, 0xAA00), *range(0xC000, 0xD000), 0x0122)
"""The object itself is not taken. Anything else, such as no room (A7xx), may pass."""


@dataclass(frozen=True)
class CStoreDestination:
    """An archive that is called by its title."""

    title: str
    host: str
    port: int
    calling: str
    """Our own title."""

    tls: ssl.SSLContext | None = None

    @property
    def name(self) -> str:
        """``TITLE@host:port``."""
        return f"{self.title}@{self.host}:{self.port}"

    def send(self, files: Sequence[ResultFile]) -> None:
        """Sends the DICOM objects on one association.

        Raises:
            DeliveryError: one of them is not there.
        """
        datasets = [pydicom.dcmread(io.BytesIO(file.data)) for file in files if file.is_dicom]
        entity = AE(ae_title=self.calling)
        entity.connection_timeout = entity.acse_timeout = CONNECT_SECONDS
        entity.dimse_timeout = entity.network_timeout = ANSWER_SECONDS
        for sop_class in sorted({str(one.SOPClassUID) for one in datasets}):
            entity.add_requested_context(sop_class, SYNTAXES)
        tls: Any = (self.tls, self.host) if self.tls is not None else None
        association = entity.associate(self.host, self.port, ae_title=self.title, tls_args=tls)
        try:
            if not association.is_established:
                raise DeliveryError(describe_failure(association))
            for dataset in datasets:
                store(association, dataset)
        finally:
            if association.is_established:
                association.release()


def store(association: Association, dataset: pydicom.Dataset) -> None:
    """Sends one object.

    Raises:
        DeliveryError: it is not there.
    """
    try:
        status: int | None = association.send_c_store(dataset).get("Status")
    except ValueError:  # of all that it is for: no context for this class
        raise DeliveryError("it does not take objects of this class", is_refusal=True) from None
    except RuntimeError:
        status = None
    if status is None:
        raise DeliveryError("the association ended before there was an answer")
    if status not in (0x0000, DUPLICATE) and status not in WARNINGS:
        raise DeliveryError(f"it answered with status {status:04X}", is_refusal=status in REFUSALS)


def describe_failure(association: Association) -> str:
    """Why there is no association."""
    if association.is_rejected:
        return "it rejected the association: look at the titles on both sides"
    return "it cannot be reached, or did not answer"
