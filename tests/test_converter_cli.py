"""The converter's command line: one-line errors, and outputs that decide over nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from converter.cli import main
from server.models.manifest import MODEL_FILE
from tests.fakes import ROOT, run_module, sha256_hex


@pytest.mark.parametrize(
    ("redirections", "code"), [(">/dev/full", 1), (">&-", 0), ("2>/dev/full", 0), ("2>&-", 0), (">&- 2>&-", 0)]
)
def test_report_that_nobody_got_has_failed(redirections: str, code: int) -> None:
    """Nothing else comes of that command; a closed output is one that wants nothing."""
    command = [sys.executable, "-m", "converter", "report", "models/stroke-cnn/4"]
    shell = ["sh", "-c", f'exec "$@" {redirections}', "sh", *command]

    assert subprocess.run(shell, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=60, check=False).returncode == code


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--threshold", "nan"], "--threshold must be a number, 0 to 1"),
        (["--threshold", "2"], "--threshold must be 0 to 1"),
        (["--opset", "100000"], "--opset must be 7 to 25"),
        (["--colour", "blue"], "--colour must be one of grey, rgb"),
        (["--images", ""], "--images must not be empty"),
        (["--target", "x86"], "are for --int8"),
        (["--int8-minutes", "5"], "are for --int8"),
        (["--int8", "--int8-minutes", "0"], "--int8-minutes must be 0.1 to 1440"),
    ],
)
def test_usage_error_is_one_line(flags: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the flag, and where all are explained."""
    with pytest.raises(SystemExit) as exit_:
        main(["model.keras", "-o", "models/x/1", *flags])

    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("converter: error: ")
    assert named in line
    assert line.endswith("(python -m converter --help shows all settings)")


def make_command(model: Path, out: Path, images: Path) -> list[str]:
    """Arguments for a conversion whose answers are compared on a folder of images."""
    stated = ["--labels", "normal,stroke", "--positive", "stroke", "--threshold", "0.05"]
    return [str(model), "-o", str(out), *stated, "--images", str(images)]


@pytest.mark.tensorflow
def test_command_line_reports_and_exits(
    keras_file: Path, tmp_path: Path, converter_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Report on standard output, steps on standard error, in an encoding without dots, too; an error is one line."""
    out = tmp_path / "models" / "small" / "1"
    command = make_command(keras_file, out, converter_images)

    done = run_module("converter", *command, "--json", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert main(command) == 1

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["parity"]["image_difference"] <= 1e-5
    assert report["digest"] == sha256_hex((out / MODEL_FILE).read_bytes())
    again = capsys.readouterr()
    assert again.out == ""
    assert again.err.strip().splitlines()[-1].startswith("converter: error:")
    assert "Traceback" not in again.err
    assert main(["report", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][MODEL_FILE]["sha256"] == report["digest"]


@pytest.mark.tensorflow
@pytest.mark.parametrize("redirections", [">/dev/full 2>/dev/full", ">&- 2>&-"])
def test_model_is_installed_whatever_the_outputs_are(
    redirections: str, keras_file: Path, tmp_path: Path, converter_images: Path
) -> None:
    """Nothing that is printed decides over it: a full disk for both, or both closed."""
    out = tmp_path / "models" / "small" / "1"
    command = [sys.executable, "-m", "converter", *make_command(keras_file, out, converter_images)]

    shell = ["sh", "-c", f'exec "$@" {redirections}', "sh", *command]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, timeout=300, check=False)

    assert done.returncode == 0, done.stderr
    assert (out / MODEL_FILE).is_file()


def test_help_is_quick_and_has_examples() -> None:
    """--help does not wait for TensorFlow."""
    result = run_module("converter", "--help")

    assert result.returncode == 0
    assert "examples:" in result.stdout
    assert run_module("converter").returncode == 2
    assert run_module("converter", "model.keras", "-o", "models/x/1", "--calibrate", "data").returncode == 2
