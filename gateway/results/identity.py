"""What a result has in common with the study that it belongs to: patient and study as the archive wrote them."""

from __future__ import annotations

import io
import re
import unicodedata
from datetime import datetime, timedelta, timezone

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from gateway.results.headers import PATIENT, STUDY, StudyHeaders

_ALWAYS = {
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
}
"""Elements that are there whether they have a value or not (type 2)."""


def add_identity(dataset: Dataset, headers: StudyHeaders) -> None:
    """Gives a result patient, study and character set of its study, not decoded: byte for byte."""
    for keyword in ("SpecificCharacterSet", "TimezoneOffsetFromUTC", *PATIENT, *STUDY):
        if keyword in headers.identity:
            dataset[Tag(keyword)] = headers.identity.get_item(keyword)
        elif keyword in _ALWAYS:
            setattr(dataset, keyword, None)
        elif keyword in dataset:
            delattr(dataset, keyword)


def add_moment(dataset: Dataset, headers: StudyHeaders, now: datetime, *names: str) -> None:
    """Sets dates and times, such as ``InstanceCreation`` or ``Content``, in the study's time zone where it says one."""
    local = to_local(headers, now)
    for name in names:
        before, _, after = name.partition("*")  # as in DateOfSecondaryCapture
        setattr(dataset, f"{before}Date{after}", local.strftime("%Y%m%d"))
        setattr(dataset, f"{before}Time{after}", local.strftime("%H%M%S"))


def to_local(headers: StudyHeaders, now: datetime) -> datetime:
    """The moment in the study's time zone, or in that of ``now`` where the study says none."""
    zone = find_zone(headers)
    return now if zone is None else now.astimezone(zone)


def find_zone(headers: StudyHeaders) -> timezone | None:
    """The study's time zone (TimezoneOffsetFromUTC); None where it says none."""
    found = re.fullmatch(r"([+-])(\d\d)(\d\d)", headers.read("TimezoneOffsetFromUTC"))
    if found is None or int(found[2]) > 14:
        return None
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-offset if found[1] == "-" else offset)


def to_ascii(text: str, most: int | None = None) -> str:
    """Text that every character set has, in one line: the study's may lack letters of a model's name."""
    letters = unicodedata.normalize("NFKD", text).replace("\\", "/")
    plain = "".join(one for one in letters if not unicodedata.combining(one)).encode("ascii", "replace").decode()
    line = " ".join("".join(one if one.isprintable() else " " for one in plain).split())
    return line if most is None or len(line) <= most else f"{line[: most - 3]}..."


def write_file(dataset: Dataset) -> bytes:
    """The data set as a DICOM file (PS3.10)."""
    dataset.file_meta.MediaStorageSOPClassUID = UID(dataset.SOPClassUID)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.SOPInstanceUID)
    dataset.file_meta.ImplementationClassUID = UID("2.25.193405062718334870906327160441763325421")
    dataset.file_meta.ImplementationVersionName = "STROKESERVE"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
