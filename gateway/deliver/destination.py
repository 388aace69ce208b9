"""Where results go, whatever the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

DICOM_END = ".dcm"


@dataclass(frozen=True)
class ResultFile:
    """One result of a study."""

    name: str
    """Its file name; of DICOM objects it ends with ``.dcm``."""

    data: bytes

    @property
    def is_dicom(self) -> bool:
        """Whether an archive takes it."""
        return self.name.endswith(DICOM_END)


class DeliveryError(Exception):
    """The results are not there; the message says why, and has nothing of their content.

    Attributes:
        is_refusal: the other side has looked at them and does not take them; otherwise it may take them later.
    """

    def __init__(self, message: str, *, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal


class Destination(Protocol):
    """Takes results. Sending the same again does no harm: their UIDs tell that it is the same."""

    @property
    def name(self) -> str:
        """What log and journal call it."""

    def send(self, files: Sequence[ResultFile]) -> None:
        """Sends all that this kind of destination takes.

        Raises:
            DeliveryError: not all of it is there.
        """
