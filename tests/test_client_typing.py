"""The types that users of the client see, checked by mypy --strict as their own checker would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import ROOT

HEADER = "from client import AsyncStrokeClient, Prediction, StrokeClient, TLSConfig\n"


def check_types(file: Path, cache: Path) -> list[str]:
    """Returns the error codes that mypy --strict finds, one for each error."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(cache), str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.returncode in (0, 1), done.stdout
    return [line.rsplit("[", 1)[-1].rstrip("]") for line in done.stdout.splitlines() if ": error: " in line]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of mypy's, so that the client itself is checked once."""
    return tmp_path_factory.mktemp("mypy")


def test_typical_uses_have_the_types_they_state(cache: Path) -> None:
    """A page of ordinary code passes the strictest check."""
    assert check_types(ROOT / "tests" / "typical_uses.py", cache) == []


def test_wrong_uses_are_found(cache: Path, tmp_path: Path) -> None:
    """Misspelled options, wrong types and forgotten awaits do not pass."""
    wrong = {
        'StrokeClient("a:1", 5.0)': "call-arg",  # options are keyword-only
        'StrokeClient("a:1", time_out=5.0)': "call-arg",
        'StrokeClient("a:1", tls="yes")': "arg-type",
        'AsyncStrokeClient("a:1", tmeout=5.0)': "call-arg",
        "StrokeClient().predict(7)": "arg-type",
        "StrokeClient().predict_many([b''], in_flight='8')": "arg-type",
        "[result.label for result in StrokeClient().predict_many([b''])]": "union-attr",
        "AsyncStrokeClient().predict(b'').label": "attr-defined",
        "AsyncStrokeClient().predict_study('s').label": "attr-defined",
        "StrokeClient().predict_study(7)": "arg-type",
        "TLSConfig('ca.pem')": "call-arg",
        "def change(prediction: Prediction) -> None: prediction.label = 'x'": "misc",
    }
    file = tmp_path / "wrong.py"
    file.write_text(HEADER + "\n".join(wrong) + "\n")

    assert check_types(file, cache) == list(wrong.values())
