"""The commands of "A model of your own" in docs/make-a-model.md, in order, on a few synthetic studies."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.fakes import ROOT

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.usefixtures("blank_plots"),
]

PAGE = (ROOT / "docs" / "make-a-model.md").read_text("utf-8")
SECTION = PAGE[PAGE.index("A model of your own") :].partition("\n## ")[0]
COMMANDS = re.findall(r"^    python -m (.+)$", SECTION, re.MULTILINE)
SHORTER = {"tune-up": ["--last-epochs", "1", "--epochs", "1"]}
"""What the page leaves at its default, so that the test need not wait."""


def test_commands_do_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of them is done, and finds what those before it have made."""
    from converter.cli import main as convert
    from training.cli import main as train
    from training.phantom.dataset import write_dataset

    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "models" / "stroke-cnn", "models/stroke-cnn")
    write_dataset(Path("scans"), 64, 9, processes=1, slices_per_patient=2)
    done = []
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        run = convert if program == "converter" else train
        assert run([*arguments, *SHORTER.get(arguments[0], [])]) == 0, command
        done.append(program if program == "converter" else arguments[0])

    assert done == ["threshold", "tune-up", "converter", "compare"]
    said = capsys.readouterr().out
    assert "nothing was written (--dry-run)" in said
    assert "# A and B on scans" in said
    assert (tmp_path / "models" / "stroke-cnn" / "4" / "manifest.json").exists()


def test_version_in_the_commands_is_the_bundled_one() -> None:
    """What the page starts from is there."""
    (bundled,) = (ROOT / "models" / "stroke-cnn").iterdir()
    assert f"models/stroke-cnn/{bundled.name} " in COMMANDS[0]
