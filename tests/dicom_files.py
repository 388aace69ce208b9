"""DICOM files made by pydicom of CT values, with any tag put in, changed or left out."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
ROOT = "1.2.826.0.1.3680043.8.498."
INTERCEPT = -1024

PATIENT = {"PatientName": "Doe^Jane", "PatientID": "MRN4711", "PatientBirthDate": "19500101", "StudyDate": "20261129"}
"""What must turn up nowhere."""


def make_hu(side: int = 96, seed: int = 0) -> np.ndarray:
    """CT values of a head, int16 [side, side] in Hounsfield units: noisy brain of 35, bone of 700, air of -1000."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    radius = np.hypot(x / 0.7, y / 0.9)
    brain = 35 + np.random.RandomState(seed).randint(-10, 11, radius.shape)
    return np.select([radius < 0.85, radius < 1], [brain, 700], -1000).astype(np.int16)


def make_dicom(
    hu: np.ndarray,
    *,
    slope: float = 1,
    intercept: float = INTERCEPT,
    bits: int = 16,
    signed: bool = False,
    syntax: str = ExplicitVRLittleEndian,
    headless: bool = False,
    **tags: Any,
) -> bytes:
    """A CT slice.

    Args:
        hu: CT values [rows, columns], or [frames, rows, columns]: stored values times ``slope`` plus ``intercept``.
        slope: rescale slope.
        intercept: rescale intercept.
        bits: stored, of 16.
        signed: whether values are stored in two's complement.
        syntax: transfer syntax; a compressed one needs an encoder of it, or ``PixelData`` as it encapsulates them.
        headless: without preamble and file meta information.
        tags: values by keyword, such as ``Modality="MR"``; None leaves it out.
    """
    stored = np.round((np.asarray(hu, np.float64) - intercept) / slope).astype(np.int64)
    return write_dicom(describe_slice(stored, slope, intercept, bits, signed), syntax, headless=headless, **tags)


def make_enhanced(
    hu: np.ndarray,
    *,
    intercepts: tuple[float, ...] = (),
    spacing: float = 5.0,
    delimited: bool = False,
    syntax: str = ExplicitVRLittleEndian,
    **tags: Any,
) -> bytes:
    """An Enhanced CT image of several frames, whose positions, orientation and rescaling are in functional groups.

    Args:
        hu: CT values [frames, rows, columns].
        intercepts: rescale intercept of each frame; one for all, in the shared groups, unless given.
        spacing: between frames, in millimetres.
        delimited: sequences and items do not say how long they are, and end with a delimiter.
        syntax: transfer syntax.
        tags: values by keyword.
    """
    offsets = np.array(intercepts or (INTERCEPT,) * len(hu))[:, np.newaxis, np.newaxis]
    dataset = describe_slice(np.round(hu - offsets).astype(np.int64), 1, INTERCEPT, 16, False)
    dataset.SOPClassUID = EnhancedCTImageStorage
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType", "ImagePositionPatient"):
        delattr(dataset, keyword)
    for keyword in ("ImageOrientationPatient", "SliceThickness", "ConvolutionKernel"):
        delattr(dataset, keyword)
    shared = make_item(
        PlaneOrientationSequence=[make_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[make_item(SliceThickness=spacing, PixelSpacing=[0.5, 0.5])],
        CTReconstructionSequence=[make_item(ConvolutionKernel="H31s")],
    )
    frames = []
    for index in range(len(hu)):
        frame = make_item(PlanePositionSequence=[make_item(ImagePositionPatient=[0, 0, spacing * index])])
        if intercepts:
            frame.PixelValueTransformationSequence = [make_rescale(intercepts[index])]
        frames.append(frame)
    if not intercepts:
        shared.PixelValueTransformationSequence = [make_rescale(INTERCEPT)]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = frames
    return write_dicom(dataset, syntax, delimited=delimited, **tags)


def make_item(**tags: Any) -> Dataset:
    """An item of a sequence."""
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, Sequence(value) if keyword.endswith("Sequence") else value)
    return item


def make_rescale(intercept: float) -> Dataset:
    return make_item(RescaleSlope=1, RescaleIntercept=intercept, RescaleType="HU")


def describe_slice(stored: np.ndarray, slope: float, intercept: float, bits: int, signed: bool) -> Dataset:
    """A data set of stored values [rows, columns] or [frames, rows, columns]."""
    dataset = make_item(
        SOPClassUID=CTImageStorage,
        SOPInstanceUID=f"{ROOT}3",
        StudyInstanceUID=f"{ROOT}1",
        SeriesInstanceUID=f"{ROOT}2",
        Modality="CT",
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
        SeriesDescription="Head 5.0",
        BodyPartExamined="HEAD",
        ConvolutionKernel="H31s",
        SliceThickness=5,
        ImagePositionPatient=[0, 0, 0],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[0.5, 0.5],
        WindowCenter=600,  # of bones: nothing may look at it
        WindowWidth=2800,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=stored.shape[-2],
        Columns=stored.shape[-1],
        BitsAllocated=16,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=int(signed),
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        RescaleType="HU",
        PixelData=stored.astype("<i2" if signed else "<u2").tobytes(),
        **PATIENT,
    )
    dataset["PixelData"].VR = "OW"
    if stored.ndim == 3:
        dataset.NumberOfFrames = len(stored)
    return dataset


def delimit(dataset: Dataset) -> None:
    """Lets all sequences end with a delimiter."""
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                delimit(item)


def write_dicom(
    dataset: Dataset, syntax: str, *, headless: bool = False, delimited: bool = False, **tags: Any
) -> bytes:
    """The bytes of a file with this data set, in which tags were changed."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax not in NATIVE and "PixelData" not in tags:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = syntax
    for keyword, value in tags.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    if delimited:
        delimit(dataset)
    if syntax not in NATIVE:
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    big, implicit = syntax == ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    buffer = io.BytesIO()
    if headless:
        del dataset.file_meta
        dataset.save_as(buffer, implicit_vr=implicit, little_endian=not big)
    else:
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
