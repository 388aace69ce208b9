"""Which study a received instance belongs to: its UIDs, and nothing else of it."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import BinaryIO

import pydicom
from pydicom.tag import Tag

UID = re.compile(r"[0-9.]{1,64}")
"""PS3.5, 9.1."""

_SOP_CLASS, _SOP = Tag(0x0008, 0x0016), Tag(0x0008, 0x0018)
_STUDY, _SERIES = Tag(0x0020, 0x000D), Tag(0x0020, 0x000E)


class InstanceError(Exception):
    """What was received is no object that belongs to a study; the message has nothing of its content."""


@dataclass(frozen=True)
class Instance:
    """UIDs of one received object."""

    sop_class: str
    sop: str
    series: str
    study: str


def read_instance(file: bytes | BinaryIO) -> Instance:
    """Reads a DICOM file, or the bytes of one, as far as its pixels.

    Raises:
        InstanceError: it cannot be read, or one of its UIDs is missing or none.
    """
    try:
        tags: list[int] = [_SOP_CLASS, _SOP, _STUDY, _SERIES]
        stream = io.BytesIO(file) if isinstance(file, bytes) else file
        found = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(tags))
        uids = [str(found[tag].value) if tag in found else "" for tag in tags]
    except Exception:  # whatever a hostile file makes pydicom raise: its message may repeat what is in the file
        raise InstanceError("it cannot be read as DICOM") from None
    if not all(map(UID.fullmatch, uids)):
        raise InstanceError("a UID of class, instance, study or series is missing, or is none")
    return Instance(sop_class=uids[0], sop=uids[1], study=uids[2], series=uids[3])
