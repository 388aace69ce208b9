"""``python -m training audit``: what it finds in a data set that was made to mislead, and in one that was not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from training.audit.inspection import measure_border
from training.audit.shortcuts import SUSPICIOUS_AUC, find_class_shortcuts, find_shortcuts, predict_by_category
from training.cli import main

PATIENTS, SLICES = 24, 6


def write_slices(root: Path, *, suffix: dict[str, str]) -> Path:
    """Writes slices of patients who each look the same on all of theirs; the label changes nothing in the picture."""
    rng = np.random.default_rng(6)
    for patient in range(PATIENTS):
        label = ("normal", "stroke")[patient % 2]
        (root / label).mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(rng.integers(0, 256, (12, 12)).astype(np.uint8))
        face = np.asarray(noise.resize((64, 64), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2)))
        for number in range(SLICES):
            pixels = np.clip(face + rng.normal(0, 25, face.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{patient} ({number}){suffix[label]}")
    return root


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slices(tmp_path_factory.mktemp("audit") / "clean", suffix={"normal": ".png", "stroke": ".png"})


@pytest.fixture(scope="module")
def misleading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One class is JPEG, a file is in both classes, one is a brighter copy, one is damaged, one is of 16 bits."""
    root = write_slices(tmp_path_factory.mktemp("audit") / "misleading", suffix={"normal": ".png", "stroke": ".jpg"})
    shutil.copy(root / "normal" / "0 (0).png", root / "stroke" / "1 (90).png")
    with Image.open(root / "normal" / "2 (0).png") as image:
        brighter = image.point(lambda value: min(255, value * 1.05 + 3)).resize((128, 128))
        brighter.convert("RGB").save(root / "normal" / "4 (90).png")
    (root / "normal" / "6 (90).png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    Image.fromarray(np.full((64, 64), 4000, np.uint16)).save(root / "normal" / "6 (91).png")
    (root / "normal" / "notes.txt").write_text("x")
    return root


@pytest.fixture(scope="module")
def page(misleading: Path) -> str:
    """The page about the misleading set."""
    out = misleading.parent / "out"
    assert main(["audit", str(misleading), "--out", str(out)]) == 0
    return (out / "audit.md").read_text()


def test_page_counts_images_and_patients(page: str) -> None:
    """Images, people and slices per person of each class, sizes and modes."""
    assert "| normal | 73 | 12 | 6 (median), 6 to 7 |" in page
    assert "| stroke | 73 | 12 | 6 (median), 6 to 7 |" in page
    assert "Sizes: 64 x 64 (145), 128 x 128 (1). Colour modes: L (145), RGB (1)." in page


def test_unreadable_images_are_listed(page: str) -> None:
    """Damaged and 16-bit files are named with their reason and left out; other files are counted."""
    assert "- **2 images cannot be decoded; a training would stop at the first.**" in page
    assert "- **Of these: 1 x The image file ends too early, 1 x The image has 16 bits a channel.**" in page
    assert "- `normal/6 (90).png`: The image" in page
    assert "- `normal/6 (91).png`: The image has 16 bits" in page
    assert "- **left out: 1 file besides the images**" in page


def test_class_linked_file_type_is_flagged(page: str) -> None:
    """A class that was saved by another program is told by its files alone."""
    assert "The label can be told from the JPEG tables alone (AUC 0.9" in page
    assert "**suspicious**" in page
    assert "told from the brightness" not in page


def test_duplicates_are_named(page: str) -> None:
    """The file in both classes and the brighter copy of another patient are found and named."""
    assert "- **1 pair of images with the same bytes and different labels: one label of each is wrong.**" in page
    assert "- `normal/0 (0).png` and `stroke/1 (90).png`" in page
    assert "- **1 pair of images with the same look, of different or unknown patients.**" in page
    assert "- `normal/2 (0).png` and `normal/4 (90).png`" in page


def test_leakage_test_shows_both_splits(page: str) -> None:
    """The random split looks excellent, and means nothing."""
    assert "figures from random slice splits of this data mean nothing" in page
    assert "| random slices (leaks: the same patient on both sides) | " in page
    assert "| always the more frequent class | " in page


def test_picture_is_drawn(page: str, misleading: Path) -> None:
    """The plot is a real image with something on it."""
    with Image.open(misleading.parent / "out" / "audit.png") as image:
        assert image.width >= 1000
        assert len(set(image.convert("L").tobytes())) > 50


def test_json_says_the_same(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For scripts there is everything as JSON, on standard output alone; a clean set has the leak alone as finding."""
    assert main(["audit", str(clean), "--out", str(tmp_path / "out"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["data"] == "clean"
    assert [count["images"] for count in result["classes"]] == [72, 72]
    assert result["unreadable"] == []
    assert result["leakage"]["random"] > 0.95
    assert result["leakage"]["grouped"] < 0.8
    assert len(result["findings"]) == 1


def test_unknown_patients_are_said_first(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without patients there is no leakage test, and the page says why."""
    assert main(["audit", str(clean), "--out", str(tmp_path / "out"), "--patient-pattern", "(none)"]) == 0
    assert "leakage between splits cannot be excluded" in capsys.readouterr().out
    page = (tmp_path / "out" / "audit.md").read_text()
    assert "Not possible: patients are not known for all images." in page
    assert "| normal | 72 | not known | not known |" in page


def test_strict_fails_after_writing_the_page(
    misleading: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ``--strict`` unreadable images are an error, and the page is there to look them up."""
    assert main(["audit", str(misleading), "--out", str(tmp_path / "out"), "--strict"]) == 2
    assert "error: 2 of 148 images cannot be decoded, see " in capsys.readouterr().err
    assert (tmp_path / "out" / "audit.md").exists()


def test_earlier_audit_is_kept(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An audit never writes over another one."""
    (tmp_path / "audit.md").write_text("mine")
    assert main(["audit", str(clean), "--out", str(tmp_path)]) == 2
    assert "audit.md exists; name another --out, or remove it" in capsys.readouterr().err
    assert (tmp_path / "audit.md").read_text() == "mine"


def test_class_without_a_readable_image_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing can be compared with a class of damaged files."""
    for label, data in (("normal", b"x"), ("stroke", b"x")):
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "1.png").write_bytes(data)
    assert main(["audit", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 2
    assert "has no readable image of normal and none of stroke" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("is_known", [True, False])
def test_names_are_text_on_the_page(tmp_path: Path, is_known: bool) -> None:
    """Labels, files, patients and the folder are other people's words: no markup, no table of its own, no formula."""
    label = "<script>alert(1)<b>_x|`$a_$"
    data = write_slices(tmp_path / "<i>set", suffix={"normal": ".png", "stroke": ".png"})
    (data / "stroke").rename(data / label)
    shutil.copy(data / label / "1 (0).png", data / "normal" / "`<img src=x onerror=alert(1)>` (0).png")
    (data / "normal" / "<script>\n# x (1).png").write_bytes(b"no image")
    (data / "normal" / "\udcff (1).png").write_bytes(b"no UTF-8")
    (data / "normal" / "notes.<u>").write_text("")
    (data / "normal" / "notes.txt").write_text("")
    pattern = [] if is_known else ["--patient-pattern", "(none)"]
    assert main(["audit", str(data), "--out", str(tmp_path / "out"), *pattern]) == 0
    page = (tmp_path / "out" / "audit.md").read_text()
    assert not [tag for tag in ("<script", "<b>", "<i>", "<img", "<u>") if tag in page]
    assert r"| &lt;script&gt;alert(1)&lt;b&gt;\_x\|\`\$a\_\$ | 72 |" in page
    assert r"<code>normal/\`&lt;img src=x onerror=alert(1)&gt;\` (0).png</code>" in page
    assert "\n# x" not in page


def test_border_counts_black_rows_and_columns() -> None:
    """Rows and columns count from the edges up to the first that is not black; JPEG noise in black does not."""
    grey = np.full((100, 100), 5, np.uint8)
    grey[10:90, 20:60] = 100
    assert measure_border(grey) == pytest.approx((20 + 60) / 200)
    assert measure_border(np.zeros((10, 10), np.uint8)) == 1


def test_value_of_one_person_predicts_nothing() -> None:
    """A size that only one person's images have does not count as telling the class."""
    groups = np.repeat(np.arange(20), 5)
    assert predict_by_category([str(group) for group in groups], groups % 2 == 0, groups) < SUSPICIOUS_AUC


def test_each_property_is_measured() -> None:
    """A property that goes with the label has an AUC of 1, whichever way round; the others stay near chance."""
    groups = np.repeat(np.arange(40), 3)
    positive = groups % 2 == 0
    rng = np.random.default_rng(9)
    facts = [
        SimpleNamespace(
            size=(512, 512), mode="L", tables="PNG", border=0.1, brightness=-float(label), file_bytes=int(bits)
        )
        for label, bits in zip(positive, rng.integers(1, 10**6, 120), strict=True)
    ]
    aucs = {shortcut.name: shortcut.auc for shortcut in find_shortcuts(facts, positive, groups)}
    assert aucs.pop("brightness") == 1
    assert set(aucs) == {"image size", "colour mode", "JPEG tables", "black border", "file size"}
    assert max(aucs.values()) < SUSPICIOUS_AUC


def test_shortcuts_name_the_class_that_they_give_away() -> None:
    """Of three classes each is told from the rest, and what tells one of them is found under its name."""
    groups = np.repeat(np.arange(60), 2)
    targets = groups % 3
    facts = [
        SimpleNamespace(
            size=(512, 512), mode="L", tables="PNG", border=0.1, brightness=float(target == 1), file_bytes=1
        )
        for target in targets
    ]
    found = find_class_shortcuts(facts, targets, groups, ("bleed", "infarct", "normal"))
    assert (found[0].name, found[0].auc) == ("brightness (infarct or not)", 1)
    assert len(found) == 6
    assert all(not shortcut.is_suspicious for shortcut in found[1:])


def test_three_classes_are_audited(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Page and picture have all of them; somebody with slices of two is named as such."""
    data = tmp_path / "data"
    shutil.copytree(clean, data)
    for path in sorted((data / "stroke").iterdir())[::2]:
        (data / "bleed").mkdir(exist_ok=True)
        path.rename(data / "bleed" / path.name)
    assert main(["audit", str(data), "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [count["label"] for count in found["classes"]] == ["bleed", "normal", "stroke"]
    assert any("in several classes" in finding for finding in found["findings"])
    assert all(shortcut["name"].endswith(" or not)") for shortcut in found["shortcuts"])
    assert (tmp_path / "out" / "audit.png").exists()
