"""The page that any viewer opens: a valid image with what a reader needs, and nothing that names a patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from client import Reason
from gateway.results.answer import make_answer
from gateway.results.headers import read_headers
from gateway.results.page import PANEL, SIDE, Page, draw_page
from tests.results_of_studies import NEGATIVE, NOT_ANALYSED, find_errors, judge, make, read_object, write_study
from tests.studies import SERIES


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written onto pages."""
    lines: list[str] = []
    write = Page.write

    def note(page: Page, text: str, *style: int) -> None:
        lines.append(text)
        write(page, text, *style)

    monkeypatch.setattr(Page, "write", note)
    return lines


@pytest.mark.parametrize("fields", [{}, NEGATIVE, NOT_ANALYSED], ids=["positive", "negative", "none"])
def test_checker_finds_nothing_wrong(tmp_path: Path, fields: dict[str, object]) -> None:
    (file,) = (one.data for one in make(tmp_path, **fields).objects if one.name == "sc.dcm")

    assert find_errors(file, "dciodvfy", "-new") == []


def test_image_is_what_every_viewer_shows(tmp_path: Path) -> None:
    """Eight bits of grey as they are; made by a program, of the judged slices, without a patient's name burned in."""
    image = read_object(make(tmp_path), "sc.dcm")

    assert image.pixel_array.shape == (SIDE, SIDE + PANEL)
    assert (image.PhotometricInterpretation, image.BitsAllocated, image.ConversionType) == ("MONOCHROME2", 8, "SYN")
    assert (image.WindowCenter, image.WindowWidth) == (128, 256)
    assert (image.BurnedInAnnotation, image.ImageType[0]) == ("NO", "DERIVED")
    assert [one.ReferencedSOPInstanceUID for one in image.SourceImageSequence] == [f"{SERIES}.{n}" for n in range(1, 7)]


def test_page_says_what_a_reader_needs(tmp_path: Path, written: list[str]) -> None:
    """The notice and the answer first, then figures, where to look, the model, and what was left out."""
    make(tmp_path)

    assert written[1:4] == [
        "Research software. Not for diagnosis.",
        "STROKE",
        "Probability of stroke: 0.831 (threshold 0.5)",
    ]
    assert written[4].startswith("Look first at series 2, image 6 (slice 6 of 6 from the feet), probability 0.500")
    assert written[5].endswith("Nothing is localised.")
    assert written[6].startswith("Model stroke-cnn 3, SHA-256 abababababababab")
    assert written[-3] == "Left out: a series of 12 images [BONE_KERNEL]: the kernel is for bones"
    assert written[-1] == ("The patient's right is on the left. Window: level 40 width 80 HU. Nothing is marked on it.")


def test_page_of_a_negative_study_excludes_nothing(tmp_path: Path, written: list[str]) -> None:
    make(tmp_path, **NEGATIVE)

    assert written[2] == "NORMAL"
    assert "A probability below the threshold excludes nothing." in written


def test_page_without_an_answer_says_why(tmp_path: Path, written: list[str]) -> None:
    make(tmp_path, **NOT_ANALYSED)

    assert written[2] == "NOT ANALYSED"
    assert "Not analysed [INSUFFICIENT_QUALITY]: there are too few slices" in written
    assert not any("robability" in line for line in written)


def test_nobody_is_named_on_it(tmp_path: Path) -> None:
    """The same pixels whoever it is."""
    (tmp_path / "other").mkdir()
    pages = [
        read_object(make(folder, tags={"PatientName": name, "PatientID": name, "AccessionNumber": name}), "sc.dcm")
        for folder, name in ((tmp_path, "A"), (tmp_path / "other", "B"))
    ]

    assert np.array_equal(pages[0].pixel_array, pages[1].pixel_array)


def test_long_texts_stay_on_the_page(tmp_path: Path) -> None:
    """Words longer than a line are broken; what finds no room is left out, and the page says so."""
    headers = read_headers(write_study(tmp_path))
    fields = NOT_ANALYSED | {"warnings": (), "left_out": ()}
    reasons = tuple(Reason("LONG", "W" * 150 + " word" * 60) for _ in range(9))
    full, short = (
        draw_page(make_answer(judge(headers, **fields | {"reasons": reasons[:count]}), headers), None)
        for count in (9, 1)
    )

    margin = 50
    for page in (full, short):
        assert not page[:, -margin:].any()
        assert not page[-margin:].any()
    assert full[-90:-50].any()
    assert not short[-90:-50].any()
