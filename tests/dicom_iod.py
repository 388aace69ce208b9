"""Whether a file is a valid CT Image (PS3.3 A.3): what dcmvalidate looks at, with pydicom's dictionary of PS3.6."""

from __future__ import annotations

import io

from pydicom import config, dcmread
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import validate_value

VALUE = {
    "SOP Common": "SOPClassUID SOPInstanceUID",
    "General Study": "StudyInstanceUID",
    "General Series": "Modality SeriesInstanceUID",
    "Frame of Reference": "FrameOfReferenceUID",
    "Image Plane": "PixelSpacing ImageOrientationPatient ImagePositionPatient",
    "CT Image": "ImageType RescaleIntercept RescaleSlope RescaleType",
    "Image Pixel": "SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit "
    "PixelRepresentation PixelData",
}
"""Attributes of type 1 by module (and 1C whose condition holds): present, and not empty."""

PRESENT = {
    "Patient": "PatientName PatientID PatientBirthDate PatientSex",
    "General Study": "StudyDate StudyTime ReferringPhysicianName StudyID AccessionNumber",
    "General Series": "SeriesNumber PatientPosition",
    "Frame of Reference": "PositionReferenceIndicator",
    "General Equipment": "Manufacturer",
    "General Image": "InstanceNumber",
    "Image Plane": "SliceThickness",
    "CT Image": "KVP AcquisitionNumber",
}
"""Attributes of type 2 by module (and 2C whose condition holds): present, empty or not."""

META = "FileMetaInformationVersion MediaStorageSOPClassUID MediaStorageSOPInstanceUID TransferSyntaxUID "
META += "ImplementationClassUID"


def find_faults(data: bytes) -> list[str]:
    """Returns what is wrong with a file that means to be a CT image in explicit VR little endian; nothing where it is
    valid."""
    file = dcmread(io.BytesIO(data))
    faults = [] if data[:128] == bytes(128) and data[128:132] == b"DICM" else ["no preamble"]
    faults += [f"File Meta lacks {name}" for name in META.split() if not file.file_meta.get(name)]
    if file.file_meta.TransferSyntaxUID != ExplicitVRLittleEndian:
        faults.append("not explicit VR little endian")
    if file.file_meta.MediaStorageSOPClassUID != file.get("SOPClassUID") or file.SOPClassUID != CTImageStorage:
        faults.append("no CT Image Storage")
    if file.file_meta.MediaStorageSOPInstanceUID != file.get("SOPInstanceUID"):
        faults.append("File Meta names another instance")
    for module, names in VALUE.items():
        faults += [f"{module} lacks {name}" for name in names.split() if not has_value(file, name)]
    for module, names in PRESENT.items():
        faults += [f"{module} lacks {name}" for name in names.split() if name not in file]
    faults += check_elements(file)
    return faults or check_pixels(file)


def has_value(file: Dataset, name: str) -> bool:
    return name in file and file[name].VM > 0


def check_elements(file: Dataset) -> list[str]:
    """Compares each element with the dictionary: its VR, how many values it has, and how they are written."""
    faults = []
    for element in (*file.file_meta, *file):
        allowed = dictionary_VR(element.tag).split(" or ")
        if element.VR not in allowed:
            faults.append(f"{element.keyword} is {element.VR}, not {' or '.join(allowed)}")
        if not fits(element.VM, dictionary_VM(element.tag)):
            faults.append(f"{element.keyword} has {element.VM} values, not {dictionary_VM(element.tag)}")
        values = element.value if element.VM > 1 else [element.value]
        for value in values if element.VM else ():
            try:
                text = getattr(value, "original_string", value)
                validate_value(element.VR, text, config.RAISE)
            except ValueError as error:
                faults.append(f"{element.keyword}: {error}")
    return faults


def fits(count: int, multiplicity: str) -> bool:
    """Whether so many values are what the dictionary says, such as ``1``, ``1-n`` or ``2-n``; none is for the types."""
    least, _, most = multiplicity.partition("-")
    return count == 0 or (
        int(least) <= count and (count <= int(least) if not most else "n" in most or count <= int(most))
    )


def check_pixels(file: Dataset) -> list[str]:
    """Checks how the attributes of the pixels agree with each other."""
    faults = []
    if (file.SamplesPerPixel, file.PhotometricInterpretation) not in ((1, "MONOCHROME1"), (1, "MONOCHROME2")):
        faults.append("more than one sample a pixel")
    if file.BitsAllocated != 16 or not 12 <= file.BitsStored <= 16 or file.HighBit != file.BitsStored - 1:
        faults.append("bits are not those of a CT image")
    if len(file.PixelData) != file.Rows * file.Columns * 2:
        faults.append("PixelData has another length than its rows and columns")
    row, column = file.ImageOrientationPatient[:3], file.ImageOrientationPatient[3:]
    dots = [sum(a * b for a, b in zip(*pair, strict=True)) for pair in ((row, row), (column, column), (row, column))]
    if any(abs(dot - wanted) > 1e-4 for dot, wanted in zip(dots, (1, 1, 0), strict=True)):
        faults.append("orientation is not two directions at a right angle")
    return faults
