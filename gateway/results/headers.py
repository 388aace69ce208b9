"""What the files of a study say of themselves: whose it is, and which instances there are; no pixels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom import config, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import UID

# Values that break a rule are the archive's, and are handed back as they came: a warning would put them into a log.
config.settings.reading_validation_mode = config.IGNORE

PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
STUDY = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "StudyDescription",
)
_IDENTITY = ("SpecificCharacterSet", "TimezoneOffsetFromUTC", *PATIENT, *STUDY)
_UIDS = ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_INSTANCE = (*_UIDS, "SeriesNumber", "Modality", "InstanceNumber")

_UID = re.compile(r"[0-9.]{1,64}")  # with zeros that should not be there, since old scanners write them
_BROKEN = (BytesLengthException, ValueError, TypeError, LookupError, NotImplementedError)
"""What reading an element raises whose bytes are not what they say."""


@dataclass(frozen=True)
class Instance:
    """One file of the study."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    series_number: str
    """As the file has it; empty where it has none."""

    number: str
    """InstanceNumber, by which viewers name it; empty where it has none."""

    modality: str


@dataclass(frozen=True)
class StudyHeaders:
    """The headers of a study."""

    study_instance_uid: str

    identity: Dataset
    """Elements of patient and study, not decoded, with the character set that they are written in."""

    instances: dict[str, Instance]
    """By SOPInstanceUID, in the order of the files."""

    def read(self, keyword: str) -> str:
        """Returns an element of patient or study as text; empty where there is none or it cannot be read."""
        return _read_text(self.identity, keyword)


def read_headers(paths: Iterable[str | os.PathLike[str]]) -> StudyHeaders:
    """Reads the headers of a study's files. Files of other studies than the first one's, and those that are no DICOM
    files, are passed over.

    Raises:
        ValueError: there is no DICOM file with the UIDs of study, series and instance.
        OSError: a file cannot be read.
    """
    identity, study, instances = None, "", dict[str, Instance]()
    for path in paths:
        if (file := _read_file(path)) is None:
            continue
        own = str(file.StudyInstanceUID)
        if identity is None:
            study, identity = own, _take_identity(file)
        if own == study:
            uid = str(file.SOPInstanceUID)
            numbers = (_read_number(file, "SeriesNumber"), _read_number(file, "InstanceNumber"))
            of_series = (str(file.SeriesInstanceUID), *numbers, _read_text(file, "Modality"))
            instances.setdefault(uid, Instance(Path(path), str(file.SOPClassUID), uid, *of_series))
    if identity is None:
        raise ValueError("there is no DICOM file with the UIDs of study, series and instance")
    return StudyHeaders(study, identity, instances)


def _read_file(path: str | os.PathLike[str]) -> Dataset | None:
    """The header of a file; None where it cannot be read, or a result could not refer to it.

    Raises:
        OSError: the file cannot be opened.
    """
    tags = [tag for keyword in (*_IDENTITY, *_INSTANCE) if (tag := tag_for_keyword(keyword)) is not None]
    try:
        file = dcmread(path, stop_before_pixels=True, specific_tags=tags)
        uids = [str(file.get(name, "")) for name in _UIDS]
    except (InvalidDicomError, EOFError, *_BROKEN):
        return None
    return file if all(map(_UID.fullmatch, uids)) and UID(uids[0]).keyword.endswith("Storage") else None


def _take_identity(file: Dataset) -> Dataset:
    """The elements of patient and study as they are in the file: byte for byte."""
    identity = Dataset()
    for keyword in _IDENTITY:
        if keyword not in file:
            continue
        try:
            element = file.get_item(keyword)
        except _BROKEN:
            continue
        if isinstance(element, RawDataElement):
            value = element.value or b""
            padding = b"" if len(value) % 2 == 0 else b"\0" if keyword.endswith("UID") else b" "
            element = element._replace(VR=dictionary_VR(element.tag), value=value + padding)
        identity[element.tag] = element
    identity.set_original_encoding(False, True, file.original_character_set)
    return identity


def _read_number(file: Dataset, keyword: str) -> str:
    text = _read_text(file, keyword)
    return text if re.fullmatch(r"[+-]?\d+", text) else ""


def _read_text(dataset: Dataset, keyword: str) -> str:
    """An element as text, of several values the first; empty where there is none or it cannot be read."""
    try:
        value = dataset.get(keyword)
    except _BROKEN:
        return ""
    if isinstance(value, MultiValue):
        value = value[0] if value else ""
    text = "" if value is None else str(value)
    return "".join(one if one.isprintable() else " " for one in text).strip()
