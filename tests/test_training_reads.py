"""No training, selection or tuning step reads the real slices that figures are reported on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import ROOT, RSNA

REAL = re.compile(rf"{re.escape(RSNA.name)}|rsna|shared/data", re.IGNORECASE)
CODE = ("training/**/*.py", "converter/**/*.py", "bench/training/ablation*")
RECIPES = ("Makefile", "models/*.sh", "training/**/*.sh")
JUDGING = re.compile(r"-m (training (evaluate|score|audit)|client)\b")
"""Commands that change no model."""


def find_mentions(root: Path) -> list[str]:
    """Returns where the real slices are named: anywhere in code that learns, or in a recipe's command that may."""
    found = []
    for pattern in CODE:
        for path in root.glob(pattern):
            if path.is_file() and REAL.search(path.read_text(errors="replace")):
                found.append(path.relative_to(root).as_posix())
    for pattern in RECIPES:
        for path in root.glob(pattern):
            commands = path.read_text().replace("\\\n", " ").splitlines()
            found += [
                f"{path.relative_to(root).as_posix()}: {command.strip()}"
                for command in commands
                if REAL.search(command) and not JUDGING.search(command)
            ]
    return found


def test_nothing_that_learns_names_the_real_slices() -> None:
    """Training, conversion, ablations and the recipe of the bundled model do not know where they are."""
    assert find_mentions(ROOT) == []


@pytest.mark.parametrize(
    ("file", "text", "is_found"),
    [
        ("training/tune.py", 'DATA = "rsna_subset"', True),
        ("converter/int8/calibrate.py", "from tests.fakes import RSNA", True),
        ("bench/training/ablation.py", "data = root / 'shared/data'", True),
        ("models/make.sh", "python -m training \\\n  --data ../shared/data/x", True),
        ("models/make.sh", "python -m training evaluate run/model.onnx \\\n  --data ../shared/data/x", False),
        ("bench/real.py", "rsna", False),
    ],
)
def test_guard_can_fire(tmp_path: Path, file: str, text: str, is_found: bool) -> None:
    """The search finds what it is for, and lets commands that only judge pass."""
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    assert bool(find_mentions(tmp_path)) == is_found


def test_bundled_model_is_made_of_what_its_recipe_draws() -> None:
    """Every folder that the recipe trains, calibrates or judges on is one that it has made itself."""
    recipe = (ROOT / "models" / "make_default.sh").read_text()
    folders = re.findall(r"--(?:data|images|calibrate)[ =](\S+)", recipe)
    assert len(folders) >= 2
    assert all(folder.startswith('"$work/') for folder in folders)


OPENED = """
import sys
from pathlib import Path

opened = []
sys.addaudithook(lambda event, arguments: event == "open" and opened.append(str(arguments[0])))
{code}
wanted = (".png", ".jpg", ".jpeg", ".csv", ".npy", ".npz", ".dcm", ".h5", ".keras", ".onnx")
print(*(path for path in opened if path.lower().endswith(wanted)), sep="\\n")
"""
DRAW = """
from training.phantom.dataset import write_dataset
write_dataset(Path({out!r}), 4, 1, size=64, processes=1)
"""
READ = """
from training.data.labels import list_images
from training.data.pixels import decode_images
images = list_images(Path({out!r}))
store, _ = decode_images(images, Path({out!r}), lambda done, total: None)
"""


def list_opened(code: str) -> list[Path]:
    """Returns the data files that a new interpreter opens while it runs some code."""
    command = [sys.executable, "-c", OPENED.format(code=code)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    return [Path(line) for line in output.splitlines()]


def test_synthetic_slices_come_from_no_file(tmp_path: Path) -> None:
    """The generator opens nothing but what it writes; the data stage of a training nothing but that."""
    out = tmp_path / "slices"
    written = list_opened(DRAW.format(out=str(out)))
    assert len(written) >= 5
    assert all(path.is_relative_to(tmp_path) for path in written)
    read = list_opened(READ.format(out=str(out)))
    assert len(read) >= 5
    assert all(path.is_relative_to(out) for path in read)
