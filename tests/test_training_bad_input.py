"""``python -m training`` on data that cannot be used: one clear line, exit code 2, and earlier work is kept."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.test_training_data import write_discs
from training.cli import main

pytestmark = pytest.mark.tensorflow

TABLE = "file,label,patient\nnormal/0 (1).png,normal,0\nstroke/1 (1).png,stroke,1\n"


def write_table(text: str) -> Callable[[Path], object]:
    return lambda data: (data / "labels.csv").write_text(text)


def keep_one_stroke(data: Path) -> None:
    for path in (data / "stroke").iterdir():
        if not path.name.startswith("1 "):
            path.unlink()


def write_sixteen_bits(data: Path) -> None:
    Image.fromarray(np.full((64, 64), 4000, np.uint16)).save(data / "stroke" / "1 (1).png")


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "one-class": (
        lambda data: shutil.rmtree(data / "stroke"),
        "has 1 class (normal); the networks tell two or more apart",
    ),
    "empty-class": (
        lambda data: (shutil.rmtree(data / "stroke"), (data / "stroke").mkdir()),
        "the class folder stroke has no PNG, JPEG or DICOM images",
    ),
    "patients-for-classes": (
        lambda data: [shutil.copytree(data / "stroke", data / f"P{index:02}") for index in range(19)],
        "has 21 classes (P00, P01, P02, P03, P04, …); at most 20 are told apart",
    ),
    "one-patient": (keep_one_stroke, "the class has 1 patient (images that belong together count as one)"),
    "table-missing-images": (write_table(TABLE + "stroke/99 (1).png,stroke,9\n"), "1 image: stroke/99 (1).png"),
    "table-missing-column": (
        write_table("file,class\nnormal/0 (1).png,a\n"),
        "has no column label; it has file, class",
    ),
    "table-empty": (write_table("file,label\n"), "labels.csv lists no images"),
    "table-contradiction": (
        write_table(TABLE + "stroke/1 (1).png,normal,1\n"),
        "line 4: stroke/1 (1).png is there already, with another label or patient",
    ),
    "no-images": (
        lambda data: [path.rename(path.with_suffix(".tif")) for path in data.glob("*/*.png")],
        "has neither a labels.csv nor PNG, JPEG or DICOM images",
    ),
    "text-named-png": (
        lambda data: (data / "stroke" / "1 (1).png").write_text("not an image, whatever it is called " * 9),
        "stroke/1 (1).png: The",
    ),
    "damaged": (
        lambda data: (data / "stroke" / "1 (1).png").write_bytes((data / "stroke" / "3 (1).png").read_bytes()[:-30]),
        "stroke/1 (1).png: The image file ends too early",
    ),
    "sixteen-bits": (write_sixteen_bits, "stroke/1 (1).png: The image has 16 bits"),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six patients of each class, and an earlier run beside them."""
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "report.md").write_text("mine")
    return write_discs(tmp_path / "data", patients=12, slices=1, size=64)


def require_one_line(data: Path, capsys: pytest.CaptureFixture[str], message: str, out: str = "run") -> None:
    """Runs a training on the data, which has to end with this line and leave everything as it was."""
    before = sorted(path for path in data.parent.rglob("*"))
    assert main(["--data", str(data), "--out", str(data.parent / out)]) == 2
    error = capsys.readouterr().err
    assert error.endswith("\n")
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert error.splitlines()[-1] == lines[0]
    assert sorted(path for path in data.parent.rglob("*")) == before
    assert (data.parent / "earlier" / "report.md").read_text() == "mine"


@pytest.mark.parametrize("case", CASES)
def test_unusable_data_is_one_clear_line(data: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    """What is wrong is said in one line that names it; no run folder stays behind."""
    spoil, message = CASES[case]
    spoil(data)
    require_one_line(data, capsys, message)


def test_run_folder_that_exists_is_kept(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run never writes over another one."""
    require_one_line(data, capsys, "earlier exists; name another", out="earlier")


def test_too_small_disk_is_noticed_before(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels that will not fit are said at once, with both sizes."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    require_one_line(data, capsys, "0.0 GB are free")


@pytest.mark.parametrize("failure", ["error", "short-write"])
def test_disk_that_fills_up_is_one_line(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    """Somebody else may take the space while the pixels are written."""

    def write_little(descriptor: int, content: bytes, offset: int) -> int:
        if failure == "error":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return 17

    monkeypatch.setattr("os.pwrite", write_little)
    require_one_line(data, capsys, "the disk is full: the decoded pixels do not fit beside the run folder")
