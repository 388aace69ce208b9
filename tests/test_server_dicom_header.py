"""What DICOM files say of their slices, for whoever sorts them."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from server.images.dicom.header import SliceHeader
from server.images.dicom.optional import read_header
from server.images.image_file import DEFAULT_LIMITS
from tests.dicom_files import ROOT, make_dicom, make_enhanced, make_hu, make_item

HU = make_hu()
SYNTAXES = pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])


def read(data: bytes) -> SliceHeader:
    (header,) = read_header(data, DEFAULT_LIMITS)
    return header


@SYNTAXES
@pytest.mark.parametrize("headless", [False, True], ids=["with a head", "headless"])
def test_slice_is_described(syntax: str, headless: bool) -> None:
    """Everything that a file says, as plain values."""
    tags = {
        "ConvolutionKernel": ["H31s", "3"],
        "GantryDetectorTilt": -12.5,
        "ContrastBolusAgent": "ISOVUE",
        "ImagePositionPatient": [-125, -100.5, 42],
        "LossyImageCompression": "01",
    }

    assert read(make_dicom(HU, syntax=syntax, headless=headless, **tags)) == SliceHeader(
        sop_instance_uid=f"{ROOT}3",
        series_instance_uid=f"{ROOT}2",
        study_instance_uid=f"{ROOT}1",
        modality="CT",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        frame=0,
        rows=96,
        columns=96,
        body_part="HEAD",
        series_description="Head 5.0",
        kernel=("H31s", "3"),
        contrast_agent="ISOVUE",
        slice_thickness=5.0,
        position=(-125.0, -100.5, 42.0),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        gantry_tilt=-12.5,
        is_lossy=True,
    )


def test_what_a_file_leaves_out_is_empty_or_none() -> None:
    """Nothing of it is needed to describe a slice but its size."""
    left_out = dict.fromkeys(
        (
            *("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "ImageType", "SeriesDescription"),
            *("BodyPartExamined", "ConvolutionKernel", "SliceThickness"),
            *("ImagePositionPatient", "ImageOrientationPatient"),
        )
    )

    header = read(make_dicom(HU, headless=True, SpecificCharacterSet="ISO_IR 100", **left_out))

    assert header == SliceHeader("", "", "", "", (), 0, 96, 96, "", "", (), "", None, None, None, None)


def test_what_is_no_number_or_uid_counts_as_left_out() -> None:
    """Whatever stands there instead is not carried on."""
    uid = f"{ROOT}3".encode()
    data = make_dicom(HU, SliceThickness=5.125, ImagePositionPatient=[1, 2], GantryDetectorTilt=7.125)
    for stated, other in ((b"5.125", b"thick"), (b"7.125", b"1_000"), (uid, b"Doe^Jane".ljust(len(uid), b"3"))):
        data = data.replace(stated, other)

    header = read(data)

    assert (header.slice_thickness, header.position, header.gantry_tilt) == (None, None, None)
    assert header.sop_instance_uid == ""


def test_long_text_is_cut() -> None:
    """A study of a thousand slices holds little, whatever its files hold."""
    header = read(make_dicom(HU, ConvolutionKernel=["H31s"] * 500))

    assert len("".join(header.kernel)) < 300


def test_text_of_any_character_set_is_read() -> None:
    """Rules look for words that are the same in all."""
    header = read(make_dicom(HU, SeriesDescription="Schaedel").replace(b"Schaedel", b"Sch\xe4del "))

    assert header.series_description == "Sch\N{REPLACEMENT CHARACTER}del"


@SYNTAXES
@pytest.mark.parametrize("delimited", [False, True], ids=["of known length", "delimited"])
def test_frames_are_described_one_by_one(syntax: str, delimited: bool) -> None:
    """From functional groups of their own, shared ones, and the data set."""
    frames = np.stack([HU, HU, HU])
    region = [make_item(CodeValue="69536005", CodeMeaning="Head")]
    agents = [make_item(CodeValue="1", CodeMeaning="Iodine")]
    data = make_enhanced(
        frames,
        spacing=2.5,
        delimited=delimited,
        syntax=syntax,
        BodyPartExamined=None,
        ContrastBolusAgentSequence=agents,
        ImageType=["MIXED"],
    )
    headers = read_header(data, DEFAULT_LIMITS)

    assert [header.frame for header in headers] == [1, 2, 3]
    assert [header.position for header in headers] == [(0.0, 0.0, 2.5 * index) for index in range(3)]
    assert {(header.slice_thickness, header.kernel, header.orientation) for header in headers} == {
        (2.5, ("H31s",), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    }
    assert {(header.image_type, header.contrast_agent, header.series_instance_uid) for header in headers} == {
        (("MIXED",), "Iodine", f"{ROOT}2")
    }

    groups = make_item(
        FrameAnatomySequence=[make_item(AnatomicRegionSequence=region)],
        CTImageFrameTypeSequence=[make_item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])],
        CTAcquisitionDetailsSequence=[make_item(GantryDetectorTilt=15)],
    )
    own = make_enhanced(frames[:1], syntax=syntax, BodyPartExamined=None, PerFrameFunctionalGroupsSequence=[groups])

    header = read(own)
    assert (header.body_part, header.frame, header.gantry_tilt) == ("Head", 0, 15.0)
    assert header.image_type == ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")


def test_other_modalities_are_described_too() -> None:
    """A study says why it leaves them out: their pixels are not looked at."""
    header = read(make_dicom(HU, Modality="MR", RescaleSlope=None, BitsStored=8, SeriesDescription="T2"))

    assert (header.modality, header.series_description) == ("MR", "T2")
