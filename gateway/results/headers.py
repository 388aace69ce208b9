"""What the files of a study say of themselves: whose it is, and which instances there are; no pixels."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom import config, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue

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
_INSTANCE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "InstanceNumber",
)


@dataclass(frozen=True)
class Instance:
    """One file of the study."""

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
        try:
            value = self.identity.get(keyword)
        except (ValueError, LookupError, NotImplementedError):  # bytes that no character set makes text of
            return ""
        if isinstance(value, MultiValue):
            value = value[0] if value else ""
        text = "" if value is None else str(value)
        return "".join(one if one.isprintable() else " " for one in text).strip()


def read_headers(paths: Iterable[str | os.PathLike[str]]) -> StudyHeaders:
    """Reads the headers of a study's files. Files of other studies than the first one's, and those that are no DICOM
    files, are passed over.

    Raises:
        ValueError: there is no DICOM file with the UIDs of study, series and instance.
        OSError: a file cannot be read.
    """
    identity, study, instances = None, "", dict[str, Instance]()
    tags = [tag for keyword in (*_IDENTITY, *_INSTANCE) if (tag := tag_for_keyword(keyword)) is not None]
    for path in paths:
        try:
            file = dcmread(path, stop_before_pixels=True, specific_tags=tags)
        except (InvalidDicomError, EOFError):
            continue
        uids = [str(file.get(name, "")) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
        if not all(uids) or (study and uids[0] != study):
            continue
        if identity is None:
            study, identity = uids[0], _take_identity(file)
        instances.setdefault(
            uids[2],
            Instance(
                str(file.get("SOPClassUID", "")),
                uids[2],
                uids[1],
                _read_number(file, "SeriesNumber"),
                _read_number(file, "InstanceNumber"),
                str(file.get("Modality", "")),
            ),
        )
    if identity is None:
        raise ValueError("there is no DICOM file with the UIDs of study, series and instance")
    return StudyHeaders(study, identity, instances)


def _take_identity(file: Dataset) -> Dataset:
    """The elements of patient and study as they are in the file: byte for byte."""
    identity = Dataset()
    for keyword in _IDENTITY:
        if keyword not in file:
            continue
        element = file.get_item(keyword)
        if isinstance(element, RawDataElement):
            value = element.value or b""
            padding = b"" if len(value) % 2 == 0 else b"\0" if keyword.endswith("UID") else b" "
            element = element._replace(VR=dictionary_VR(element.tag), value=value + padding)
        identity[element.tag] = element
    identity.set_original_encoding(False, True, file.original_character_set)
    return identity


def _read_number(file: Dataset, keyword: str) -> str:
    try:
        value = file.get(keyword)
    except ValueError:  # no number
        return ""
    return "" if value is None else str(value)
