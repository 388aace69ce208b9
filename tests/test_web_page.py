"""The page, in a real browser on a real server: what is dropped is judged, shown, and saved."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Download, Request, expect

from client.cli.csv_results import CSV_COLUMNS, DICOM_COLUMNS, POSITIVE_COLUMNS, STATUS_COLUMNS
from tests.fakes import SPEC, encode, make_slice, write_model
from tests.web_browser import Visit, needs_browser, numbered, serve_page

pytestmark = needs_browser

STRICT = replace(SPEC, name="strict", checks="head-ct")
"""Looks whether there is a head: of noise it says that there is none."""

DARK, LOW, HIGH, BRIGHT = (encode(make_slice(level)) for level in (20, 75, 100, 200))
"""P(stroke) is 0.005, 0.066, 0.2 and 0.97; the threshold 0.05."""

SMALL = encode(make_slice(200, side=40))
"""It has to be enlarged."""

TORN = BRIGHT[:-200]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with two models, that takes small files only."""
    models = tmp_path_factory.mktemp("models")
    write_model(models)
    write_model(models, STRICT)
    with serve_page(models, "--model", "tiny,strict", "--max-image-bytes", "65536") as address:
        yield address


def read_table(download: Download) -> list[dict[str, str]]:
    """What was saved, as Excel and RFC 4180 have it: a mark, and CR LF."""
    data = Path(download.path()).read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    assert data.endswith(b"\r\n")
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))


def save(here: Visit) -> list[dict[str, str]]:
    with here.page.expect_download() as download:
        here.page.click("#save")
    assert re.fullmatch(r"strokeserve-[0-9T-]+\.csv", download.value.suggested_filename)
    return read_table(download.value)


# Answers.


def test_images_are_judged_and_shown(here: Visit) -> None:
    """Label, probability, confidence, warnings, and which model answered."""
    here.add(("b10.png", BRIGHT), ("b9.png", DARK), ("small.png", SMALL))

    dark, bright, small = here.rows()
    assert dark[:2] == ["b9.png", "○ normal"]  # 9 before 10
    assert bright[:2] == ["b10.png", "● stroke"]
    assert float(bright[2]) == float(bright[3]) > 0.9
    assert float(dark[2]) == pytest.approx(1 - float(dark[3]))
    assert re.fullmatch(r"tiny 1\s+[0-9a-f]{12}", dark[5])
    assert re.fullmatch(r"Warning: The image is 40 x 40 .* IMAGE_UPSCALED", small[4])


def test_a_row_opens_to_everything_that_is_known(here: Visit) -> None:
    """The image, full digests, scores and the id in the log; it closes again."""
    here.add(("scan.png", BRIGHT))
    here.page.click(".name")

    more = here.page.locator(".more")
    assert hashlib.sha256(BRIGHT).hexdigest() in more.inner_text()
    assert re.search(r"\b[0-9a-f]{64}\b", more.inner_text().split("Digest")[1])
    assert "0.05 on P(stroke)" in more.inner_text()
    assert more.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 96
    here.page.click(".name")
    expect(more).to_be_hidden()


def test_not_analysed_is_a_class_of_its_own(here: Visit) -> None:
    """With its reason, without a figure; the other model is chosen on the page."""
    here.page.select_option("#model", label="strict 1")
    here.add(("noise.png", BRIGHT))

    ((_, answer, probability, confidence, notes, model),) = here.rows()
    assert (answer, probability, confidence) == ("? not analysed", "", "")
    assert notes.endswith("NO_HEAD")
    assert model.startswith("strict 1")
    expect(here.page.locator("#filters")).to_contain_text("not analysed 1")


def test_refusals_say_why(here: Visit) -> None:
    """In the server's words; what cannot be an image is not sent at all."""
    here.add(("a.png", TORN), ("b.png", b""), ("c.jpg", b"%PDF-1.7 ..."))

    assert here.column(1) == ["✕ refused"] * 3
    torn, empty, pdf = here.column(4)
    assert torn == "The image file ends too early. Copy or export it again. IMAGE_TRUNCATED"
    assert empty.endswith("check that its export finished. IMAGE_EMPTY")
    assert pdf.startswith("The file is no DICOM, PNG or JPEG file, and was not sent.")
    assert here.asked("predict") == 1


def test_a_file_that_is_too_large_has_the_servers_sentence(here: Visit) -> None:
    """And one that is far larger than any slice is not even read."""
    here.add(("large.png", BRIGHT + bytes(65_536)))
    assert re.match(r"The file has .* at most 65,536 are accepted.*IMAGE_TOO_LARGE$", here.column(4)[0])

    here.page.evaluate("Object.defineProperty(Blob.prototype, 'size', {value: 65 << 20})")
    here.add(("huge.png", BRIGHT))
    assert here.column(4)[1] == "The file has 68,157,440 bytes and was not sent. Add single slices. IMAGE_TOO_LARGE"
    assert here.asked("predict") == 1


# Folders.


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with two slices, and four other files."""
    folder = tmp_path / "study"
    for name, data in {"s2.png": DARK, "deep/er/s10.JPG": encode(make_slice(200), "JPEG")}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for name in ("notes.txt", "deep/scan.dcm", ".hidden.png", "deep/._s10.JPG"):
        (folder / name).write_bytes(DARK)
    return folder


LEFT_OUT = "4 files of the folder left out: no PNG or JPEG by name, no DICOM by what is in it, or hidden."


def check_study(here: Visit) -> None:
    assert sorted(row[:2] for row in here.rows()) == [["s10.JPG", "● stroke"], ["s2.png", "○ normal"]]
    assert "study/deep/er" in here.page.locator("#table").inner_text()
    assert here.text("left-out") == LEFT_OUT


def test_a_dropped_folder_is_judged_with_what_is_in_its_folders(here: Visit, study: Path) -> None:
    """What is no image by name is counted and left out."""
    here.drop(study)

    check_study(here)


def test_a_chosen_folder_is_judged_as_a_dropped_one(here: Visit, study: Path) -> None:
    """For those without a mouse."""
    here.page.set_input_files("#folder", study)
    here.wait()

    check_study(here)


def test_dropped_files_are_judged(here: Visit, study: Path) -> None:
    """One by one, whatever they are called."""
    here.drop(study / "s2.png", study / "notes.txt")

    assert [row[:2] for row in here.rows()] == [["notes.txt", "○ normal"], ["s2.png", "○ normal"]]


def test_names_of_files_stay_in_the_browser(here: Visit) -> None:
    """Neither in addresses nor in headers nor in what is sent, which is the image alone."""
    sent: list[Request] = []
    here.page.on("request", lambda request: sent.append(request))
    here.add(("Doe^Jane.png", BRIGHT))

    (predict,) = [request for request in sent if "/predict" in request.url]
    assert predict.post_data_buffer == BRIGHT
    heads = [(request.url, request.all_headers()) for request in sent]
    assert not re.search("doe|jane", str(heads), re.IGNORECASE)


# The threshold, order, and what is shown.


def test_another_threshold_shows_what_would_change(here: Visit) -> None:
    """And says that the server's stays: no request is made, answers and the saved table remain."""
    here.add(("a.png", DARK), ("b.png", LOW), ("c.png", HIGH), ("d.png", BRIGHT))
    saved, asked = save(here), len(here.requests)
    slider = here.page.locator("#threshold")
    assert here.text("threshold-text").startswith("The server decided with 0.05, and stays with that.")

    slider.fill("0.5")
    assert "At 0.500, 2 of 4 answers would change: 2 stroke → normal." in here.text("threshold-text")
    assert here.column(1) == ["○ normal", "● stroke\n→ would be normal", "● stroke\n→ would be normal", "● stroke"]
    here.page.click("text=would change 2")
    assert here.column(0) == ["b.png", "c.png"]
    here.page.click("text=all 4")

    slider.fill("0")
    assert "At 0.000, 1 of 4 answers would change: 1 normal → stroke." in here.text("threshold-text")
    here.page.click("#threshold-reset")
    assert here.column(1) == ["○ normal", "● stroke", "● stroke", "● stroke"]
    assert here.text("threshold-value") == "0.050"
    assert len(here.requests) == asked + here.asked("blob")  # saving is none of the server's business
    assert save(here) == saved


def test_rows_are_sorted_and_filtered(here: Visit) -> None:
    """By the headings, which say so; what has no figure comes last."""
    here.add(("a.png", HIGH), ("b.png", TORN), ("c.png", BRIGHT), ("d.png", DARK))
    heading = here.page.get_by_role("columnheader", name="P(stroke)")
    for order, names in (("descending", "cadb"), ("ascending", "dacb")):
        heading.get_by_role("button").click()
        expect(heading).to_have_attribute("aria-sort", order)
        assert "".join(name[0] for name in here.column(0)) == names
    here.page.get_by_role("columnheader", name="Answer").get_by_role("button").click()
    assert here.column(1) == ["● stroke", "● stroke", "○ normal", "✕ refused"]

    here.page.click("#filters >> text=stroke 2")
    expect(here.page.locator("#filters [aria-pressed=true]")).to_have_text("stroke 2")
    assert here.column(1) == ["● stroke"] * 2
    here.page.click("#clear")
    expect(here.page.locator("#results")).to_be_hidden()


# The table as a file.


def test_csv_has_the_columns_of_the_command_line(here: Visit) -> None:
    """And says of every image what was judged, by what, and how it ended."""
    here.add(("a.png", SMALL), ("torn.png", TORN))
    here.page.select_option("#model", label="strict 1")
    here.add(("noise.png", DARK))
    small, torn, noise = save(here)

    columns = CSV_COLUMNS + STATUS_COLUMNS + DICOM_COLUMNS + POSITIVE_COLUMNS
    assert tuple(small) == (*columns, "p_normal", "p_stroke")
    assert (small["label"], small["status"], small["warnings"]) == ("stroke", "ANALYSED", "IMAGE_UPSCALED")
    assert small["image_sha256"] == hashlib.sha256(SMALL).hexdigest()
    assert re.fullmatch("[0-9a-f]{64}", small["digest"])
    assert (small["model"], small["version"], small["threshold"]) == ("tiny", "1", "0.05")
    assert small["scores"] == f"normal={small['p_normal']} stroke={small['p_stroke']}"
    assert small["confidence"] == small["positive_probability"] == small["p_stroke"]
    assert (small["outlier_score"], small["frame"]) == ("0", "")
    assert small["file_bytes"] == str(len(SMALL))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", small["file_modified"])
    assert (noise["label"], noise["confidence"]) == ("", "")
    assert (noise["status"], noise["reason"], noise["model"]) == ("NOT_ANALYSED", "NO_HEAD", "strict")
    assert (torn["label"], torn["reason"]) == ("", "IMAGE_TRUNCATED")
    assert torn["error"].startswith("The image file ends too early.")


def test_csv_has_no_formulas(here: Visit) -> None:
    """Names that a spreadsheet would run are kept text; separators, quotes and umlauts are kept as well."""
    names = ["=cmd|' /C calc'!A0.png", "+1.png", "-1.png", "@SUM(1).png", "'q.png", 'x,"y";z.png', "Schädel 頭.png"]
    here.add(*((name, DARK) for name in names))

    assert sorted(row["file"] for row in save(here)) == sorted([f"'{name}" for name in names[:5]] + names[5:])


# Many.


def test_300_slices_have_progress_and_few_requests_at_once(here: Visit) -> None:
    """Four at most, and thumbnails only of what is near the part that is seen."""
    open_now = most = 0

    def count(change: int) -> None:
        nonlocal open_now, most
        open_now += change
        most = max(most, open_now)

    here.page.on("request", lambda request: count("/predict" in request.url))
    for event in ("requestfinished", "requestfailed"):
        here.page.on(event, lambda request: count(-("/predict" in request.url)))  # type: ignore[call-overload]
    here.add(*numbered([DARK, HIGH, BRIGHT], 300), wait=False)
    progress = here.page.get_by_role("progressbar")
    expect(progress).to_have_attribute("max", "300")
    expect(here.page.locator("#progress-text")).to_contain_text(re.compile(r"^[1-9]\d* of 300 done"))
    here.wait()

    assert here.asked("predict") == 300
    assert most <= 4
    expect(here.page.locator("#filters")).to_contain_text("stroke 200")
    expect(here.page.locator("#spoken")).to_have_text("300 images: 200 stroke, 100 normal.")
    expect(here.page.locator("canvas.drawn").first).to_be_visible()
    drawn = "all => all.filter(canvas => canvas.width).length"
    assert 0 < here.page.locator("canvas").evaluate_all(drawn) < 60
    here.page.locator("tbody").last.scroll_into_view_if_needed()
    expect(here.page.locator("canvas").last).to_have_class("drawn")
    assert 0 < here.page.locator("canvas").evaluate_all(drawn) < 60


def test_a_run_is_stopped_and_gone_on_with(here: Visit) -> None:
    """What was not judged says so, and nothing that was is judged again."""
    left = list(range(10))
    here.page.route("**/predict?*", lambda route: route.continue_() if left and left.pop() >= 0 else None)
    here.add(*numbered([DARK], 60), wait=False)
    expect(here.page.locator("#progress-text")).to_have_text(re.compile("^10 of 60 done"))
    here.page.click("#stop")
    here.wait()
    assert here.column(1) == ["○ normal"] * 10 + ["not judged"] * 50
    assert [row["reason"] for row in save(here)] == [""] * 10 + ["NOT_JUDGED"] * 50

    here.page.unroute("**/predict?*")
    here.page.click("text=Judge 50 remaining images")
    here.wait()
    assert here.column(1) == ["○ normal"] * 60
    assert here.asked("predict") == 60 + 4  # of which four had been on their way
    expect(here.page.locator("#problem")).to_be_hidden()
