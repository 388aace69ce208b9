"""Whose DICOM files are whose, for those who must keep patients apart: training, its audit, the converter.

Patients and studies get a hash for a name. It is salted with what all files of the data set say together, so it is the
same whenever that data set is read, without a secret to keep, and differs from one data set to another; and nobody who
knows only the hash and a patient's id can tell that they belong together, which a plain hash of a short number would
tell at once. Ids themselves leave this module nowhere; names are not read.

The server does not use this module: it keeps nothing of a patient.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from server.errors import ImageError
from server.images.dicom.optional import load_reader
from server.images.dicom.signature import PREAMBLE, PREFIX, SIGNATURE_BYTES, is_dicom
from server.images.image_file import DEFAULT_LIMITS

META_GROUP, TRANSFER_SYNTAX = 0x0002, 0x00020010
INSTANCE, PATIENT_ID, STUDY = 0x00080018, 0x00100020, 0x0020000D
IDENTIFYING = (INSTANCE, PATIENT_ID, STUDY)

HEAD_BYTES = 64 * 1024
"""What is read of a file at first: the rest is looked at where these do not reach as far as the study."""

HASH_CHARACTERS = 16
"""64 bits: among a million patients two have the same hash once in 37 million data sets."""


@dataclass(frozen=True)
class Identity:
    """Hashes that stand for a patient and a study, hexadecimal; None where the file says nothing."""

    patient: str | None
    study: str | None

    @property
    def person(self) -> str | None:
        """The patient; where nobody is named, each study counts as one."""
        return self.patient or self.study


def read_identities(paths: Iterable[Path]) -> Mapping[Path, Identity]:
    """Reads whose the DICOM files among some files are; a file that cannot be read is of nobody who is known.

    Args:
        paths: all files of the data set: the salt is made of them.

    Raises:
        ImageError: reason DICOM_NOT_SUPPORTED, where there is a DICOM file and no pydicom.
    """
    found = {path: ids for path in paths if (ids := read_ids(path)) is not None}
    salt = hashlib.sha256()
    for text in sorted({text for ids in found.values() for text in ids}):
        salt.update(len(text).to_bytes(4, "big") + text)
    key = salt.digest()
    return {
        path: Identity(make_hash(key, b"patient", patient), make_hash(key, b"study", study))
        for path, (_, patient, study) in found.items()
    }


def make_hash(key: bytes, kind: bytes, text: bytes) -> str | None:
    """The name that stands for an id; None for an empty one."""
    return hmac.new(key, kind + b" " + text, "sha256").hexdigest()[:HASH_CHARACTERS] if text else None


def read_ids(path: Path) -> tuple[bytes, bytes, bytes] | None:
    """Returns the ids of instance, patient and study as a file has them; None of a file that is not DICOM."""
    try:
        with path.open("rb", buffering=0) as file:
            data = file.read(SIGNATURE_BYTES)
            if not is_dicom(data):
                return None
            load_reader()
            data += file.read(HEAD_BYTES)
            ids = find_ids(data) or find_ids(data + file.read(DEFAULT_LIMITS.max_bytes))
    except OSError:
        return None
    return ids or (b"", b"", b"")


def find_ids(data: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Returns the ids; None where the bytes end before the study, or are damaged."""
    from server.images.dicom.budget import ReadBudget
    from server.images.dicom.elements import read_elements

    budget = ReadBudget()
    start = PREAMBLE + len(PREFIX) if data[PREAMBLE : PREAMBLE + len(PREFIX)] == PREFIX else 0
    try:
        _, reader = read_elements(data, start, (TRANSFER_SYNTAX,), lambda tag: tag >> 16 != META_GROUP, budget)
        found, reader = read_elements(data, reader.tell(), IDENTIFYING, lambda tag: tag > STUDY, budget)
        if reader.is_at_end:
            return None
        instance, patient, study = (found.value(tag).strip(b" \0") for tag in IDENTIFYING)
    except ImageError:
        return None
    return instance, patient, study
