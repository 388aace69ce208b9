"""The slice to look at first beside the answer: as the server's model sees it, or a sentence that says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from client import ModelNotFoundError, Window
from gateway.judge.results import ResultMaker
from gateway.judge.windows import ModelWindows
from gateway.results.headers import read_headers
from gateway.results.page import PANEL, SIDE, Page
from gateway.results.picture import PictureError, read_picture
from gateway.results.settings import ResultSettings
from server.images.dicom.window import BRAIN, apply_windows
from tests.dicom_files import make_dicom, make_enhanced, make_hu
from tests.results_of_studies import NOT_ANALYSED, NOW, judge, make, read_object, write_study

WINDOW = Window(BRAIN.level, BRAIN.width)
HEAD = make_hu()
PAGE = ResultSettings(results=("sc",))


def find_levels(hu: np.ndarray) -> np.ndarray:
    """What the server makes of CT values."""
    return apply_windows(hu.astype(np.float32), [BRAIN])[..., 0]


def write(folder: Path, file: bytes) -> Path:
    path = folder / "slice.dcm"
    path.write_bytes(file)
    return path


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"syntax": ImplicitVRLittleEndian},
        {"syntax": RLELossless},
        {"signed": True, "intercept": 0},
        {"bits": 12},
        {"slope": 0.5, "intercept": -1100},
    ],
    ids=["explicit", "implicit", "rle", "signed", "12 bits", "slope"],
)
def test_picture_is_the_slice_in_the_models_window(tmp_path: Path, stored: dict[str, Any]) -> None:
    """However the file has it: the grey levels that the server's model sees."""
    picture = read_picture(write(tmp_path, make_dicom(HEAD, **stored)), 0, WINDOW)

    assert picture.pixels.dtype == np.uint8
    assert np.array_equal(picture.pixels, find_levels(HEAD))


def test_frame_is_drawn_with_what_is_said_of_it(tmp_path: Path) -> None:
    """Of an enhanced file: the rescaling of the frame itself, or of all."""
    frames = np.stack([HEAD - 20, HEAD, HEAD + 20])
    for intercepts in ((), (-1024.0, -1000.0, -900.0)):
        path = write(tmp_path, make_enhanced(frames, intercepts=intercepts))
        picture = read_picture(path, 2, WINDOW)

        assert np.array_equal(picture.pixels, find_levels(HEAD))
        assert picture.left == "right"


def test_padding_is_black(tmp_path: Path) -> None:
    hu = HEAD.copy()
    hu[:4] = 2000
    file = make_dicom(hu, PixelPaddingValue=3000, PixelPaddingRangeLimit=3024)

    assert not read_picture(write(tmp_path, file), 0, WINDOW).pixels[:4].any()


def test_inverted_slice_is_drawn_inverted(tmp_path: Path) -> None:
    file = make_dicom(HEAD, PhotometricInterpretation="MONOCHROME1")

    assert np.array_equal(read_picture(write(tmp_path, file), 0, WINDOW).pixels, 255 - find_levels(HEAD))


@pytest.mark.parametrize(
    ("orientation", "left"),
    [([1, 0, 0, 0, 1, 0], "right"), ([-1, 0, 0, 0, -1, 0], "left"), ([0, 1, 0, 0, 0, -1], ""), (None, "")],
    ids=["supine", "prone", "sagittal", "unknown"],
)
def test_picture_knows_its_sides(tmp_path: Path, orientation: list[float] | None, left: str) -> None:
    file = make_dicom(HEAD, ImageOrientationPatient=orientation)

    assert read_picture(write(tmp_path, file), 0, WINDOW).left == left


BAD: dict[str, tuple[bytes, str]] = {
    "compressed": (
        make_dicom(HEAD, syntax=JPEG2000Lossless, PixelData=encapsulate([b"\xff\x4f" + bytes(98)])),
        r"its pixels are compressed \(JPEG 2000",
    ),
    "cut off": (make_dicom(HEAD)[:-200], "cannot be read"),
    "too large": (make_dicom(HEAD, Rows=65535, Columns=65535), "more than 4,194,304 pixels"),
    "of 8 bits": (make_dicom(HEAD, BitsAllocated=8), "not those of a CT image"),
    "of colour": (make_dicom(HEAD, SamplesPerPixel=3), "not those of a CT image"),
    "with letters": (make_dicom(HEAD, BurnedInAnnotation="YES"), "may name the patient"),
    "without meaning": (make_dicom(HEAD, RescaleSlope=None), "cannot be read"),
    "without rows": (make_dicom(HEAD, Rows=None), "cannot be read"),
    "no file of DICOM": (b"not a file", "cannot be read"),
    "damaged": (
        make_dicom(HEAD, syntax=RLELossless, PixelData=encapsulate([bytes(64) + b"\x7f" * 30])),
        "cannot be read",
    ),
}


@pytest.mark.parametrize(("file", "why"), BAD.values(), ids=BAD)
def test_what_cannot_be_drawn_says_why(tmp_path: Path, file: bytes, why: str) -> None:
    with pytest.raises(PictureError, match=why):
        read_picture(write(tmp_path, file), 0, WINDOW)


def test_page_shows_it_beside_the_answer(tmp_path: Path) -> None:
    """In pixels of its own where it has as many as there is room for; the same files give the same page."""
    hu = make_hu(512)
    files = {"Rows": 512, "Columns": 512, "PixelData": make_stored(hu)}
    first, again = (read_object(make(tmp_path, PAGE, tags=files), "sc.dcm").pixel_array for _ in range(2))

    assert first.shape == (SIDE, SIDE + PANEL)
    assert np.array_equal(first, again)
    panel = first[:, SIDE:]
    rows = [row for row in range(SIDE - 512) if np.array_equal(panel[row, 32:-32], find_levels(hu)[0])]
    assert any(np.array_equal(panel[row : row + 512, 32:-32], find_levels(hu)) for row in rows)


def make_stored(hu: np.ndarray) -> bytes:
    return (hu.astype(np.int32) + 1024).astype("<u2").tobytes()


def test_page_goes_on_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says so; a study that has no such slice has a page without a place for it."""
    lines: list[str] = []
    monkeypatch.setattr(Page, "write", lambda page, text, *style: lines.append(text))
    image = read_object(make(tmp_path, PAGE, tags={"BurnedInAnnotation": "YES"}), "sc.dcm")

    assert image.pixel_array.shape == (SIDE, SIDE + PANEL)
    assert lines[-1] == "There is no picture of it: letters are part of its pixels, which may name the patient."
    assert read_object(make(tmp_path, PAGE, **NOT_ANALYSED), "sc.dcm").pixel_array.shape == (SIDE, SIDE)


class Models:
    """A server's word on windows."""

    def __init__(self, *windows: Window) -> None:
        self.windows, self.asked, self.is_away = windows, 0, False

    def model_info(self, name: str, version: str) -> Models:
        assert (name, version) == ("stroke-cnn", "3")
        self.asked += 1
        if self.is_away:
            raise ModelNotFoundError("gone", reason="MODEL_NOT_FOUND")
        return self


def make_page(models: Models, folder: Path, results: tuple[str, ...] = ("sc",)) -> dict[str, bytes]:
    paths = write_study(folder)
    maker = ResultMaker(ResultSettings(results=results), ModelWindows(models))  # type: ignore[arg-type]
    pages = [maker(judge(read_headers(paths)), paths, (), NOW).files for _ in range(2)]
    return dict(pages[-1])


def test_window_is_that_of_the_model_that_has_answered(tmp_path: Path) -> None:
    """Asked once for each model, of several the first; not at all where no page is made."""
    models, other = Models(WINDOW, Window(80, 200)), Models(Window(600, 2800))

    assert make_page(models, tmp_path)["sc.dcm"] != make_page(other, tmp_path)["sc.dcm"]
    make_page(models, tmp_path, ("sr",))
    assert (models.asked, other.asked) == (1, 1)


def test_model_that_has_gone_costs_the_picture_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = Models(WINDOW)
    models.is_away = True
    lines: list[str] = []
    monkeypatch.setattr(Page, "write", lambda page, text, *style: lines.append(text))

    assert "sc.dcm" in make_page(models, tmp_path)
    assert lines[-1].startswith("There is no picture of it: the server does not say")
