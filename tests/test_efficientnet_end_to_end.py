"""EfficientNet-Lite0 as a user has it: trained on a few slices with masks, converted, explained, served."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from client import StrokeClient
from converter.cli import main as convert
from tests.fakes import run_server
from training.cli import main as train
from training.phantom.dataset import write_dataset

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.usefixtures("blank_plots"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few synthetic slices with their masks."""
    folder = tmp_path_factory.mktemp("lite0") / "slices"
    write_dataset(folder, 24, 5, processes=1)
    return folder


@pytest.fixture(scope="module")
def run(slices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch on the last stages, from random weights; do not change it."""
    run = tmp_path_factory.mktemp("lite0") / "run"
    flags = ["--model", "efficientnet-lite0", "--weights", "none", "--unfreeze", "3", "--epochs", "1"]
    assert train(["--data", str(slices), "--out", str(run), "--one-image-per-patient", *flags]) == 0
    assert "auxiliary" in json.loads((run / "spec.json").read_text())["provenance"]["lesion_masks"]
    return run


@pytest.fixture(scope="module")
def models(run: Path, slices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of models with the converted one; do not change it."""
    models = tmp_path_factory.mktemp("lite0") / "models"
    out = str(models / "stroke-lite0" / "1")
    assert convert([str(run / "brain_stroke_model.keras"), "-o", out, "--images", str(slices)]) == 0
    return models


def test_graph_has_no_normalisation_left(models: Path) -> None:
    """Folded into the convolutions, depthwise ones too; ReLU that ends at 6 is Clip."""
    graph = onnx.load(models / "stroke-lite0" / "1" / "model.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("Conv") == 49
    assert kinds.count("Clip") == 33
    assert not {"BatchNormalization", "Div", "Sqrt"} & set(kinds)


def test_answers_are_kerass_and_served(models: Path, run: Path, slices: Path) -> None:
    """From the file's bytes to the probability, 1e-5 apart from what training recorded; with a map of 8 x 8 cells."""
    recorded = {
        entry["file"]: entry["probabilities"] for entry in json.loads((run / "reference.json").read_text())["images"]
    }
    name = min(recorded)
    with run_server(models, "--explain") as server, StrokeClient(server.address, timeout=60) as client:
        explanation = client.explain(slices / name)
    scores = [explanation.prediction.scores[label] for label in ("normal", "stroke")]
    assert np.abs(np.array(scores) - recorded[name]).max() <= 1e-5
    assert np.array(explanation.heatmap).shape == (8, 8)
