"""Synthetic slices as DICOM files: CT Image Storage (PS3.3 A.3), explicit VR little endian, one file a slice.

Everything in them follows from the seed and the numbers of patient and slice, so the same command writes the same
bytes. Nobody can take them for a person's: the patient is called PHANTOM, and the manufacturer is this generator.
"""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from training.phantom.ct import LEAST, MOST, Values
from training.phantom.head import HALF_LENGTH_MM, LEVEL_MM
from training.phantom.patient import Patient

_SPACE = uuid.UUID("6c0f0b52-4f3a-5e0e-9d5c-0d6f7a1b9a5e")  # of the names that the UIDs are made of
_BITS = 12


def require_pydicom() -> None:
    """Tells where pydicom is to be had.

    Raises:
        ValueError: it is not installed.
    """
    if find_spec("pydicom") is None:
        raise ValueError("DICOM files need pydicom: make install, or pip install -r requirements/extras/dicom.lock")


@dataclass(frozen=True)
class Place:
    """Which slice of which data set it is."""

    seed: int
    patient_id: str
    """As in ``labels.csv``."""

    number: int
    """Of the slice in its study, from 1, from the skull base up."""

    level: float


def encode_dicom(values: Values, place: Place, patient: Patient) -> bytes:
    """Encodes CT values int16 (size, size), in HU within 12 bits, as a DICOM file; needs pydicom."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    study = f"{place.seed} {place.patient_id}"
    size, pose = values.shape[0], patient.pose
    spacing = HALF_LENGTH_MM / (pose.scale * size)
    corner = (-pose.x * size * spacing, -pose.y * size * spacing, (place.level - 0.5) * LEVEL_MM)

    file = Dataset()
    file.SpecificCharacterSet = "ISO_IR 192"
    file.SOPClassUID = CTImageStorage
    file.SOPInstanceUID = make_uid(f"{study} {place.number}")

    file.PatientName = f"PHANTOM^{place.patient_id}"
    file.PatientID = place.patient_id
    file.PatientBirthDate = ""
    file.PatientSex = ""

    file.StudyInstanceUID = make_uid(f"{study} study")
    file.StudyDate = file.StudyTime = file.AccessionNumber = ""
    file.ReferringPhysicianName = ""
    file.StudyID = place.patient_id

    file.SeriesInstanceUID = make_uid(f"{study} series")
    file.Modality = "CT"
    file.SeriesNumber = 1
    file.SeriesDescription = "synthetic head"
    file.PatientPosition = "HFS"
    file.BodyPartExamined = "HEAD"

    file.FrameOfReferenceUID = make_uid(f"{study} frame")
    file.PositionReferenceIndicator = ""

    file.Manufacturer = "StrokeServe phantom, synthetic"

    file.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    file.InstanceNumber = file.AcquisitionNumber = place.number
    file.ImagePositionPatient = [round(part, 3) for part in corner]
    file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    file.PixelSpacing = [round(spacing, 6)] * 2
    file.SliceThickness = patient.look.thickness or None
    file.KVP = 120
    file.ConvolutionKernel = "SOFT" if patient.look.sharpness <= 0 else "STANDARD"

    file.SamplesPerPixel = 1
    file.PhotometricInterpretation = "MONOCHROME2"
    file.Rows = file.Columns = size
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, _BITS, _BITS - 1, 0
    file.RescaleIntercept, file.RescaleSlope, file.RescaleType = LEAST, 1, "HU"
    file.WindowCenter, file.WindowWidth = 40, 80
    file.PixelData = (np.clip(values, LEAST, MOST) - LEAST).astype("<u2").tobytes()

    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID
    file.file_meta.ImplementationClassUID = UID(make_uid("implementation"))
    file.file_meta.ImplementationVersionName = "STROKESERVE"
    stream = io.BytesIO()
    file.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def make_uid(name: str) -> str:
    """A UID without a registered root (PS3.5 B.2), the same for the same name."""
    return f"2.25.{uuid.uuid5(_SPACE, name).int}"
