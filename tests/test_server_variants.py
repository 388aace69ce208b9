"""Which of a model's files is served, and that each is verified against its own answers."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from server.errors import ModelFileError
from server.models import runtime
from server.models.engines.engine import EngineOptions
from server.models.manifest import INT8_FILE, MODEL_FILE
from server.models.runtime import load_model
from tests.fakes import SIDE, build_tiny_model, rewrite_manifest, run_module, sha256_hex, write_model

INT8 = build_tiny_model(gain=0.06)
"""Stands for a quantised model: it answers a little otherwise."""


@pytest.mark.parametrize(
    ("wanted", "suited", "served"),
    [("auto", True, "int8"), ("auto", False, "fp32"), ("fp32", True, "fp32"), ("int8", False, "int8")],
)
def test_precision_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, suited: bool, served: str
) -> None:
    """``auto`` takes INT8 where it was made for this processor; the digest is that of the file that judges."""
    folder = write_model(tmp_path, int8=INT8, target="x86")
    monkeypatch.setattr(runtime, "is_suited", lambda target: suited)

    model = load_model(folder, EngineOptions(precision=wanted))

    assert model.options.precision == served
    assert (model.digest == sha256_hex(INT8)) == (served == "int8")


def test_auto_is_fp32_without_a_variant(tmp_path: Path) -> None:
    """Nothing else is there."""
    assert load_model(write_model(tmp_path), EngineOptions(precision="auto")).options.precision == "fp32"


def test_missing_variant_names_the_command_that_makes_it(tmp_path: Path) -> None:
    """One line, and exit code 1."""
    write_model(tmp_path)

    result = run_module("server", "--models", str(tmp_path), "--port", "0", "--precision", "int8")

    assert result.returncode == 1
    assert "MODEL_VARIANT_MISSING" in result.stderr
    assert "python -m converter MODEL -o" in result.stderr
    assert "--int8 --calibrate DIR" in result.stderr


def test_variant_is_verified_against_its_own_answers(tmp_path: Path) -> None:
    """What fp32 answers is not what it must answer."""
    folder = write_model(tmp_path, int8=INT8)
    rewrite_manifest(folder, lambda document: document["files"][INT8_FILE].pop("probabilities"))

    with pytest.raises(ModelFileError) as refusal:
        load_model(folder, EngineOptions(precision="int8"))

    assert refusal.value.reason == "MODEL_ANSWERS_WRONG"
    assert INT8_FILE in refusal.value.message


def test_altered_variant_is_refused(tmp_path: Path) -> None:
    """Also by ``auto``: a damaged file does not silently become another precision."""
    folder = write_model(tmp_path, int8=INT8)
    (folder / INT8_FILE).write_bytes(build_tiny_model(gain=0.0601))

    with pytest.raises(ModelFileError) as refusal:
        load_model(folder, EngineOptions(precision="auto"))

    assert refusal.value.reason == "MODEL_FILE_ALTERED"


@pytest.mark.parametrize("served", ["fp32", "int8"])
def test_file_that_is_not_served_is_verified_too(tmp_path: Path, served: str) -> None:
    """It may be served the next time: not one of 40 flipped bits, and no other size, is passed over."""
    folder = write_model(tmp_path, int8=INT8)
    path = folder / (MODEL_FILE if served == "int8" else INT8_FILE)
    whole, dice = path.read_bytes(), random.Random(7)
    load_model(folder, EngineOptions(precision=served))

    for _ in range(40):
        bit = dice.randrange(8 * len(whole))
        altered = bytearray(whole)
        altered[bit // 8] ^= 1 << bit % 8
        path.write_bytes(altered)
        with pytest.raises(ModelFileError, match=path.name) as refusal:
            load_model(folder, EngineOptions(precision=served))
        assert refusal.value.reason == "MODEL_FILE_ALTERED"
    for data, reason in ((whole[:-1], "TRUNCATED"), (whole + b"x", "ALTERED"), (b"", "TRUNCATED"), (None, "MISSING")):
        path.unlink() if data is None else path.write_bytes(data)
        with pytest.raises(ModelFileError) as refusal:
            load_model(folder, EngineOptions(precision=served))
        assert refusal.value.reason == f"MODEL_FILE_{reason}"


def test_both_numbers_of_threads_answer_alike(tmp_path: Path) -> None:
    """The busy session is the same model."""
    model = load_model(write_model(tmp_path), EngineOptions(threads=2, busy_threads=1))
    pixels = np.full((1, SIDE, SIDE, 3), 150, np.uint8)

    assert (model.options.threads, model.options.busy_threads) == (2, 1)
    assert np.array_equal(model.run(pixels, busy=False), model.run(pixels, busy=True))
