"""The page with DICOM files: studies get one answer, their slices are shown as the model sees them, names stay here."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Route, expect

from tests.dicom_files import make_enhanced
from tests.fakes import encode, make_slice
from tests.studies import SERIES, make_series
from tests.web_browser import Upload, Visit, needs_browser, problem, serve_page, visit

pytestmark = needs_browser

DARK, BRIGHT = encode(make_slice(20)), encode(make_slice(200))
LEVELS = [10, 10, 10, 70, 60, 50]
"""CT values of the first slices: the fourth is the one to look at first."""

FILES: list[Upload] = [(f"IM{10 - number:04d}", file) for number, file in enumerate(make_series(10, LEVELS))]
"""Named from the head to the feet."""

BONE: list[Upload] = [
    (f"bone-{number}.dcm", file)
    for number, file in enumerate(make_series(3, series=f"{SERIES}.9", ConvolutionKernel="H60s"))
]
OTHER_SERIES = make_series(9, series=f"{SERIES}.7", StudyInstanceUID=f"{SERIES}.8")
OTHER: list[Upload] = [(f"other-{number}", file) for number, file in enumerate(OTHER_SERIES)]


@pytest.fixture(scope="module")
def url(study_models: Path) -> Iterator[str]:
    """A server that judges studies and explains."""
    with serve_page(study_models, "--explain") as address:
        yield address


def find_studies(here: Visit) -> Locator:
    return here.page.locator(".study")


def expect_picture(study: Locator, caption: str) -> None:
    """Waits until a slice is shown, its picture included."""
    expect(study.locator("figcaption")).to_contain_text(caption)
    expect(study.locator(".picture img")).to_be_visible()
    expect(study.locator(".picture p")).to_have_text("")
    assert study.locator(".picture img").evaluate("image => image.decode().then(() => image.naturalWidth)") >= 64


def test_dicom_files_are_one_study(here: Visit) -> None:
    """One answer with its score, what was left out and why, and the slice to look at first, shown in its window."""
    here.add(*FILES, *BONE, ("notes.png", BRIGHT))
    study = find_studies(here)

    expect(study).to_have_count(1)
    expect(study.locator(".said .badge")).to_have_text("● stroke")
    expect(study).to_contain_text("(13 files as one study)")
    expect(study).to_contain_text(
        "It is the mean of the 3 highest P(stroke) of 10 slices; stroke is answered above 0.5."
    )
    expect(study).to_contain_text("1 series left out")
    expect(study).to_contain_text("BONE_KERNEL")
    expect_picture(study, "Slice 4 of 10")
    expect(study.locator("figcaption")).to_contain_text("look here first")
    expect(study.locator("figcaption")).to_contain_text("IM0007")
    assert here.column(0) == ["notes.png"]
    assert (here.asked("study"), here.asked("predict"), here.asked("render")) == (1, 1, 1)
    expect(here.page.locator("#spoken")).to_contain_text(re.compile("1 image|slice to look at first is 4 of 10"))


def test_slices_are_looked_through(here: Visit) -> None:
    """By the slider and by the list, which says of each what came of it; what is not looked at is not asked for."""
    here.add(*FILES)
    study = find_studies(here)
    expect_picture(study, "Slice 4 of 10")
    slider = study.get_by_role("slider", name="Slice that is shown")
    slider.fill("9")
    expect_picture(study, "Slice 9 of 10")
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"Slice 9 of 10, P 0\.\d{3}"))
    study.get_by_text("All 10 slices").click()
    items = study.locator(".slices li")
    expect(items).to_have_count(10)
    expect(items.nth(3)).to_contain_text("IM0007")
    expect(items.nth(3)).to_contain_text("the slice to look at first")
    expect(items.nth(1)).to_contain_text("5.0 mm")
    items.nth(1).get_by_role("button").click()
    expect_picture(study, "Slice 2 of 10")
    expect(items.nth(1).get_by_role("button")).to_have_attribute("aria-current", "true")
    study.get_by_role("button", name="Slice to look at first").click()
    expect_picture(study, "Slice 4 of 10")
    assert here.asked("render") == 3


def test_heatmap_is_offered_where_the_server_has_it(here: Visit, browser: Browser, study_models: Path) -> None:
    """With what it is not for; for single images, too. Without --explain there is no button."""
    here.add(*FILES, ("a.png", BRIGHT))
    study = find_studies(here)
    expect_picture(study, "Slice 4 of 10")
    button = study.get_by_role("button", name="Heatmap")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(study.get_by_text("Research, not for localisation.")).to_be_visible()
    expect(study.locator(".picture img")).to_have_attribute("alt", re.compile("with the heatmap"))
    expect_picture(study, "Slice 4 of 10")
    here.page.click(".name")
    here.page.locator(".more").get_by_role("button", name="Heatmap").click()
    expect(here.page.locator(".more").get_by_text("Research, not for localisation.")).to_be_visible()
    assert here.asked("explain") == 2

    with serve_page(study_models) as plain, visit(browser, plain) as there:
        there.open()
        there.add(*FILES, ("a.png", BRIGHT))
        there.page.click(".name")
        expect_picture(find_studies(there), "Slice 4 of 10")
        expect(there.page.get_by_role("button", name="Heatmap")).to_have_count(0)


def test_a_folder_of_dicom_files_without_suffix(here: Visit, tmp_path: Path) -> None:
    """Told by what they hold; the folder is the study's name, and what else is in it is counted."""
    folder = tmp_path / "patient" / "head"
    folder.mkdir(parents=True)
    for name, data in [*FILES, ("DICOMDIR", FILES[0][1]), ("readme.txt", b"words"), (".hidden", FILES[0][1])]:
        (folder / name).write_bytes(data)
    here.drop(tmp_path / "patient")
    study = find_studies(here)

    expect(study.locator("h2")).to_have_text("head (10 files as one study)")
    expect(study.locator(".said .badge")).to_have_text("● stroke")
    assert here.text("left-out").startswith("3 files of the folder left out")
    here.page.set_input_files("#folder", folder)
    here.wait()
    expect(study).to_have_count(2)


def test_several_studies_have_an_answer_each(here: Visit) -> None:
    """Files that were dropped together, in whatever order."""
    here.add(*[one for pair in zip(FILES, OTHER, strict=False) for one in pair])
    studies = find_studies(here)

    expect(studies).to_have_count(2)
    expect(studies.locator(".said .badge")).to_have_text(["● stroke", "○ normal"])
    assert here.asked("study") == 2


def test_pictures_are_a_study_when_that_is_chosen(here: Visit) -> None:
    """In the order of their names; otherwise each has its row."""
    pictures = [(f"s{number}.png", BRIGHT if number == 10 else DARK) for number in range(1, 12)]
    here.page.select_option("#together", label="all as one study")
    here.add(*pictures)
    study = find_studies(here)
    expect_picture(study, "Slice 10 of 11")
    expect(study).to_contain_text("UNORDERED")
    assert here.asked("predict") == 0

    here.page.select_option("#together", label="each file by itself")
    here.add(*FILES[:2])
    assert here.column(0) == ["IM0009", "IM0010"]


def test_one_dicom_file_is_an_image(here: Visit) -> None:
    """Its row and its picture are those of any image, as the model sees it; several frames are a study."""
    here.add(FILES[3])
    assert [row[:2] for row in here.rows()] == [["IM0007", "● stroke"]]
    expect(here.page.locator("canvas.drawn")).to_be_visible()
    here.page.click(".name")
    picture = here.page.locator(".more img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    assert here.asked("render") == 1

    frames = make_enhanced(np.stack([np.full((64, 64), 5 + 5 * number, np.int16) for number in range(9)]))
    here.add(("enhanced.dcm", frames))
    study = find_studies(here)
    expect(study.locator("h2")).to_have_text("enhanced.dcm (1 file as one study)")
    assert len(here.rows()) == 1


def test_names_of_files_are_not_sent(browser: Browser, url: str) -> None:
    """Those of a study are numbers."""
    with visit(browser, url) as here:
        here.page.add_init_script(
            "const append = FormData.prototype.append; window.sent = [];"
            "FormData.prototype.append = function (...all) { sent.push(all.map(String)); append.apply(this, all); }"
        )
        here.open()
        here.add(*[(f"Doe^Jane-{name}", data) for name, data in FILES])
        sent = here.page.evaluate("window.sent")

    assert sent[:2] == [["model", "tiny"], ["version", "1"]]
    assert sent[2:] == [["file", "[object File]", str(number)] for number in range(1, 11)]
    assert "Doe" not in "".join(here.requests)


def test_a_study_is_stopped_and_sent_again(here: Visit) -> None:
    """While the next one waits for it, which then has its turn."""
    held: list[Route] = []  # the first one, which is not answered
    here.page.route("**/study", lambda route: route.continue_() if held else held.append(route))
    here.add(*FILES, *OTHER, wait=False)
    first, second = find_studies(here).first, find_studies(here).last
    expect(first.get_by_role("progressbar", name="Progress of the study")).to_be_visible()
    expect(second).to_contain_text("Waits for the study before it.")
    first.get_by_role("button", name="Stop").click()
    expect(first).to_contain_text("This study was not judged.")
    expect(second.locator(".said .badge")).to_have_text("○ normal")

    first.get_by_role("button", name="Judge this study").click()
    expect(first.locator(".said .badge")).to_have_text("● stroke")
    second.get_by_role("button", name="Remove").click()
    expect(find_studies(here)).to_have_count(1)
    assert here.focused() == "choose-files"


BUSY = problem(503, "TOO_MANY_STREAMS", "As many streams are open as the server accepts.", retry_after_ms=1)
LARGE = problem(413, "STUDY_TOO_LARGE", "A study may have 8 slices and 2 MB: send fewer series of it.")
WRONG = {
    "A study may have 8 slices and 2 MB: send fewer series of it. [STUDY_TOO_LARGE]": (BUSY, LARGE),
    "What answers here does not speak as StrokeServe does. Check the address. [ANSWER_INVALID]": ({"body": "<h1>"},),
    "The answer of the server cannot be read. Try again; twice in a row: report it. [ANSWER_INVALID]": (
        {"json": {"status": "ANALYSED", "slices": []}},
    ),
    "IM0001 was changed on its way to the server. Try again; twice in a row: check the network. [IMAGE_ALTERED]": (
        {"json": {"status": "NOT_ANALYSED", "threshold": 0.5, "slices": [{"id": "1", "image_sha256": "0" * 64}]}},
    ),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_a_study_that_is_refused_says_why(here: Visit, sentence: str) -> None:
    """In a sentence; what passes is waited for."""
    here.answer("study", *WRONG[sentence])
    here.add(*FILES)

    expect(find_studies(here).get_by_role("alert")).to_have_text(sentence)


def test_a_server_that_is_gone_is_told(here: Visit) -> None:
    """And the study can be sent again."""
    here.answer("study", None)
    here.answer("health/live", None)
    here.add(*FILES)
    study = find_studies(here)
    expect(study.get_by_role("alert")).to_contain_text("The server does not answer.")

    here.page.unroute_all()
    study.get_by_role("button", name="Judge this study").click()
    expect(study.locator(".said .badge")).to_have_text("● stroke")


def test_study_as_a_table(here: Visit) -> None:
    """A row for each slice, with what the study came to."""
    here.add(*FILES, ("torn.dcm", FILES[0][1][:2000]))
    with here.page.expect_download() as download:
        find_studies(here).get_by_role("button", name="Save as CSV").click()
    data = Path(download.value.path()).read_bytes().decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(data, newline=""), strict=True))

    (torn,) = [row for row in rows if row["file"] == "torn.dcm"]
    assert [row["file"] for row in rows if row is not torn] == [name for name, _ in FILES]
    assert [row["file"] for row in rows if row["first_look"] == "1"] == ["IM0007"]
    assert {row["study_label"] for row in rows} == {"stroke"}
    assert (torn["positive_probability"], torn["reason"]) == ("", "DICOM_TRUNCATED")
