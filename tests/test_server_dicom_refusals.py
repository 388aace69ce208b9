"""What DICOM files are refused, each for its own reason, and that nothing of a patient shows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    RLELossless,
)

from server.errors import ImageError
from server.images.dicom.optional import read_header
from server.images.dicom.window import BRAIN
from server.images.image_file import DEFAULT_LIMITS, ImageLimits
from server.images.preprocess import InputFormat, decode_image
from tests.dicom_files import PATIENT, make_dicom, make_enhanced, make_hu, make_item
from tests.fakes import ROOT

HU = make_hu()
WINDOWED = InputFormat(64, 64, "grey", windows=(BRAIN,))
PIXELS = HU.size * 2
PACKED = encapsulate([b"\xff\xd8\xff\xd9"])
PAGE = ROOT / "docs" / "dicom.md"


def name_syntax(data: bytes, syntax: str) -> bytes:
    """The file with another transfer syntax of as many characters in its head, its pixels as they are."""
    return data.replace(b"1.2.840.10008.1.2.1\0", syntax.encode().ljust(20, b"\0"))


def make_pdf() -> bytes:
    document = {"EncapsulatedDocument": b"%PDF-1.4", "MIMETypeOfEncapsulatedDocument": "application/pdf"}
    image = dict.fromkeys(("Rows", "Columns", "PixelData"))
    return make_dicom(HU, SOPClassUID=EncapsulatedPDFStorage, Modality="DOC", **document, **image)


def make_float() -> bytes:
    return make_dicom(HU, PixelData=None, FloatPixelData=HU.astype("<f4").tobytes())


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "another modality": (lambda: make_dicom(HU, Modality="MR"), "DICOM_MODALITY"),
    "a name for a modality": (lambda: make_dicom(HU, Modality="DOE"), "DICOM_MODALITY"),
    "no modality": (lambda: make_dicom(HU, Modality=None), "DICOM_MODALITY"),
    "high bit not next to bits stored": (lambda: make_dicom(HU, bits=12, HighBit=15), "DICOM_HIGH_BIT"),
    "no high bit": (lambda: make_dicom(HU, HighBit=None), "DICOM_HIGH_BIT"),
    "pixels twice": (lambda: make_dicom(HU, PixelData=bytes(2 * PIXELS)), "DICOM_PIXEL_LENGTH"),
    "pixels of a row missing": (lambda: make_dicom(HU, PixelData=bytes(PIXELS - 2 * 96)), "DICOM_PIXEL_LENGTH"),
    "two frames by the header, pixels of one": (lambda: make_dicom(HU, NumberOfFrames=2), "IMAGE_MULTI_FRAME"),
    "no slope": (lambda: make_dicom(HU, RescaleSlope=None), "DICOM_RESCALE_MISSING"),
    "no intercept": (lambda: make_dicom(HU, RescaleIntercept=None), "DICOM_RESCALE_MISSING"),
    "slope of 0": (lambda: make_dicom(HU, RescaleSlope=0), "DICOM_RESCALE_MISSING"),
    "slope that is no number": (
        lambda: make_dicom(HU, slope=1.25).replace(b"1.25", b"1_25"),
        "DICOM_RESCALE_MISSING",
    ),
    "slope beyond all numbers": (
        lambda: make_dicom(HU, slope=1.125).replace(b"1.125", b"1e999"),
        "DICOM_RESCALE_MISSING",
    ),
    "enhanced without rescaling": (
        lambda: make_enhanced(HU[np.newaxis], SharedFunctionalGroupsSequence=[make_item()]),
        "DICOM_RESCALE_MISSING",
    ),
    "electron density": (lambda: make_dicom(HU, RescaleType="ED"), "DICOM_NOT_HOUNSFIELD"),
    "big endian": (lambda: make_dicom(HU, syntax=ExplicitVRBigEndian), "DICOM_BIG_ENDIAN"),
    "big endian, headless": (lambda: make_dicom(HU, syntax=ExplicitVRBigEndian, headless=True), "DICOM_BIG_ENDIAN"),
    "deflated": (lambda: make_dicom(HU, syntax=DeflatedExplicitVRLittleEndian), "DICOM_DEFLATED"),
    "12-bit JPEG": (lambda: make_dicom(HU, syntax=JPEGExtended12Bit, PixelData=PACKED), "DICOM_JPEG_12_BIT"),
    "unknown syntax": (lambda: name_syntax(make_dicom(HU), "1.2.3"), "DICOM_NO_DECODER"),
    "video": (lambda: make_dicom(HU, syntax=MPEG2MPML, PixelData=PACKED), "DICOM_NO_DECODER"),
    "packed, headless": (
        lambda: make_dicom(HU, syntax=RLELossless, headless=True, PixelData=PACKED),
        "DICOM_NO_DECODER",
    ),
    "document": (make_pdf, "DICOM_NO_PIXELS"),
    "no pixels": (lambda: make_dicom(HU, Rows=None, PixelData=None), "DICOM_NO_PIXELS"),
    "colours": (lambda: make_dicom(HU, SamplesPerPixel=3, PhotometricInterpretation="RGB"), "DICOM_COLOUR"),
    "palette": (lambda: make_dicom(HU, PhotometricInterpretation="PALETTE COLOR"), "DICOM_COLOUR"),
    "8 bits": (lambda: make_dicom(HU, bits=8, BitsAllocated=8, PixelData=bytes(HU.size)), "DICOM_BIT_DEPTH"),
    "8 bits of 16": (lambda: make_dicom(HU, bits=8), "DICOM_BIT_DEPTH"),
    "32 bits": (lambda: make_dicom(HU, bits=32, BitsAllocated=32, PixelData=bytes(2 * PIXELS)), "DICOM_BIT_DEPTH"),
    "floating point": (make_float, "DICOM_BIT_DEPTH"),
    "sign of another kind": (lambda: make_dicom(HU, PixelRepresentation=2), "DICOM_DAMAGED"),
    "no samples": (lambda: make_dicom(HU, SamplesPerPixel=None), "DICOM_DAMAGED"),
    "no photometric interpretation": (lambda: make_dicom(HU, PhotometricInterpretation=None), "DICOM_DAMAGED"),
    "no rows": (lambda: make_dicom(HU, Rows=0), "DICOM_DAMAGED"),
    "no frames": (lambda: make_dicom(HU, NumberOfFrames=0), "DICOM_DAMAGED"),
    "other frames than groups": (lambda: make_enhanced(HU[np.newaxis], NumberOfFrames=2), "DICOM_DAMAGED"),
    "frames beyond the limit": (lambda: make_dicom(HU, NumberOfFrames=1001), "DICOM_TOO_LARGE"),
    "frames beyond reason": (lambda: make_dicom(HU, NumberOfFrames=2**31 - 1), "DICOM_TOO_LARGE"),
    "bytes beyond the limit": (lambda: make_dicom(HU, NumberOfFrames=900, Rows=999, Columns=999), "DICOM_TOO_LARGE"),
    "rows beyond the limit": (lambda: make_dicom(HU, Rows=9000), "IMAGE_TOO_LARGE"),
    "thumbnail": (lambda: make_dicom(HU[:16, :16]), "IMAGE_TOO_SMALL"),
    "signature alone": (lambda: bytes(128) + b"DICM", "DICOM_NO_PIXELS"),
    "signature and zeros": (lambda: bytes(128) + b"DICM" + bytes(1000), "DICOM_NO_PIXELS"),
}


def refuse(data: bytes, wanted: InputFormat = WINDOWED, limits: ImageLimits = DEFAULT_LIMITS) -> ImageError:
    with pytest.raises(ImageError) as refusal:
        decode_image(data, wanted, limits)
    return refusal.value


@pytest.mark.parametrize("name", REFUSED)
def test_file_is_refused_with_its_reason(name: str) -> None:
    """And a sentence that ends, says what to do, and quotes nothing."""
    make, reason = REFUSED[name]

    error = refuse(make())

    assert error.reason == reason
    assert error.message.endswith(".")
    assert re.search(r": |\. [A-Z]", error.message), "what to do"
    assert not any(value in error.message for value in (*PATIENT.values(), "DOE"))


def test_model_without_a_window_takes_no_dicom() -> None:
    """Whatever the file is."""
    assert refuse(make_dicom(HU), replace(WINDOWED, windows=())).reason == "DICOM_WINDOW_MISSING"


def test_without_the_library_the_refusal_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra of the server's."""
    monkeypatch.setitem(sys.modules, "pydicom", None)

    error = refuse(make_dicom(HU))

    assert error.reason == "DICOM_NOT_SUPPORTED"
    assert "make install-dicom" in error.message


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_truncated_file_is_refused_wherever_it_ends(syntax: str) -> None:
    """No half slice is judged: at every byte of the header, and at some of the pixels."""
    data = make_enhanced(make_hu(32)[np.newaxis], syntax=syntax)

    for length in (
        *range(len(data) - 32 * 32 * 2 + 10),
        *range(len(data) - 32 * 32 * 2, len(data), 101),
        len(data) - 1,
    ):
        error = refuse(data[:length] if length else b"\0")
        assert error.reason in ("DICOM_TRUNCATED", "DICOM_NO_PIXELS", "DICOM_DAMAGED", "IMAGE_UNDECODABLE")


def test_limits_are_checked_before_pixels_are_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb is refused by its header alone."""
    monkeypatch.setattr("server.images.dicom.file.read_frame", lambda *_: pytest.fail("pixels were looked at"))
    frames = make_enhanced(np.stack([make_hu(32)] * 3))

    assert refuse(frames, limits=ImageLimits(max_frames=2)).reason == "DICOM_TOO_LARGE"
    assert refuse(frames, limits=ImageLimits(max_frame_bytes=3 * 32 * 32 * 2 - 1)).reason == "DICOM_TOO_LARGE"
    assert refuse(frames, limits=ImageLimits(max_side=31)).reason == "IMAGE_TOO_LARGE"
    assert len(read_header(frames, ImageLimits(max_frames=3, max_frame_bytes=3 * 32 * 32 * 2))) == 3


def test_lossy_file_is_judged_with_a_warning() -> None:
    """Also one that was compressed once and is not any more."""
    plain, once = (decode_image(make_dicom(HU, LossyImageCompression=said), WINDOWED) for said in ("00", "01"))

    assert [warning.reason for warning in plain.warnings] == []
    assert [warning.reason for warning in once.warnings] == ["IMAGE_LOSSY"]
    assert np.array_equal(np.asarray(plain.image), np.asarray(once.image))


READ = """
import logging, sys
from pathlib import Path
logging.basicConfig(level=0)
from server.errors import ImageError
from server.images.dicom.optional import decode_dicom, read_header
from server.images.dicom.window import BRAIN
from server.images.image_file import DEFAULT_LIMITS
for path in sys.argv[1:]:
    data = Path(path).read_bytes()
    try:
        read_header(data, DEFAULT_LIMITS)
        decode_dicom(data, (BRAIN,), DEFAULT_LIMITS)
        print("read")
    except ImageError as error:
        print(error.reason)
print([name for name in ("gdcm", "openjpeg", "jpeg_ls", "pylibjpeg") if name in sys.modules])
"""


def test_nothing_is_printed_or_logged_and_no_codec_is_loaded(tmp_path: Path) -> None:
    """Whatever the library thinks of a file: its complaints would quote names. Its codecs would be 20 MB."""
    (tmp_path / "good").write_bytes(make_dicom(HU))
    odd = make_dicom(HU, SpecificCharacterSet="ISO_IR 100", PatientID="1" * 40).replace(b"ISO_IR 100", b"DOE^JANE 1")
    (tmp_path / "odd").write_bytes(odd)
    (tmp_path / "cut").write_bytes(odd[:600])

    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, sorted(tmp_path.iterdir()))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert (done.stdout, done.stderr) == ("DICOM_TRUNCATED\nread\nread\n[]\n", "")
