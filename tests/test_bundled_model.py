"""The model that the project ships."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from server.manifest import MANIFEST_FILE, MODEL_FILE
from server.runtime import load_model
from tests.fakes import ROOT

FOLDER = ROOT / "models" / "stroke-cnn" / "1"


def test_it_loads_verified() -> None:
    """Digest and golden vectors hold on this machine."""
    model = load_model(FOLDER)

    assert model.spec.labels == ("normal", "stroke")
    assert (model.spec.positive_label, model.spec.threshold) == ("stroke", 0.05)
    assert (model.input_format.height, model.input_format.width, model.input_format.channels) == (256, 256, 3)


def test_it_is_small_and_is_the_papers_network() -> None:
    """Under 1 MB, with the weights of 183,682 parameters."""
    graph = onnx.load(FOLDER / MODEL_FILE).graph

    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_000_000
    weights = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 0]
    assert 183_682 <= sum(int(onnx.numpy_helper.to_array(t).size) for t in weights) <= 183_682 + 16


def test_it_says_what_it_learned_from_and_what_it_is_not() -> None:
    """Whoever asks GetModel reads that it is a demonstration on synthetic slices."""
    spec = load_model(FOLDER).spec
    text = f"{spec.intended_use} {json.dumps(dict(spec.provenance))}".lower()

    assert "synthetic" in text
    assert "demonstration" in text
    assert "not a medical device" in text
    assert spec.provenance["data_fingerprint"]
    assert spec.metrics


@pytest.mark.tensorflow
def test_the_command_that_makes_it_works(tmp_path: Path) -> None:
    """``make model`` end to end, on a few slices: what it installs loads, and its answers were compared with Keras."""
    out = tmp_path / "models" / "stroke-cnn" / "1"
    environment = {**os.environ, "COUNT": "80", "EPOCHS": "1", "WORK": str(tmp_path / "work")}
    command = ["sh", "models/make_default.sh", sys.executable, str(out)]

    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)

    assert result.returncode == 0, result.stderr
    assert "files answer as training wrote down" in result.stdout
    made, bundled = load_model(out).spec, load_model(FOLDER).spec
    assert (made.labels, made.positive_label, made.threshold) == (bundled.labels, "stroke", 0.05)
    assert "auxiliary heads" in made.provenance["lesion_masks"]
    flags = made.provenance["flags"].replace("--epochs 1 ", "--epochs 8 ")
    assert flags == bundled.provenance["flags"], "the bundled model was made by another command"


def test_parity_with_keras_is_recorded() -> None:
    """The figures of the conversion travel with it."""
    parity = json.loads((FOLDER / MANIFEST_FILE).read_text())["parity"]

    assert 0 <= parity["image_difference"] <= 1e-5
    assert 0 <= parity["random_difference"] <= 1e-5
