"""A network with three classes, trained here for some seconds: from Keras through INT8's gate to a server's answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import StrokeClient
from converter.cli import main
from converter.int8.calibrate import CalibrationSets, Slices, load_sets
from converter.int8.gate import Comparison, Judge
from converter.int8.watch import Watch
from server.images.preprocess import InputFormat
from server.models.contract import ModelSpec
from server.models.manifest import INT8_FILE
from server.models.runtime import load_model
from tests.converting import SIDE, build_network
from tests.fakes import encode, make_slice, run_server

LABELS = ("normal", "haemorrhagic", "ischaemic")
LEVELS = {"normal": 128, "haemorrhagic": 210, "ischaemic": 45}
COUNT = 48
SPEC = ModelSpec("kinds", "1", LABELS, LABELS[1:], 0.5)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices of three kinds, which differ in their brightness: a folder a class."""
    root = tmp_path_factory.mktemp("slices") / "slices"
    for label, level in LEVELS.items():
        (root / label).mkdir(parents=True)
        for number in range(COUNT):
            pixels = make_slice(level + number % 9 - 4, SIDE, number)
            (root / label / f"{number:02}.png").write_bytes(encode(pixels))
    return root


@pytest.fixture(scope="module")
def models(slices: Path, tmp_path_factory: pytest.TempPathFactory, steady_speed: None) -> Path:
    """A models folder with the network, trained on slices of other noise, and its INT8 variant."""
    folder = tmp_path_factory.mktemp("kinds")
    network = build_network(outputs=3)
    network.compile("adam", "sparse_categorical_crossentropy")
    pixels = np.stack([make_slice(level, SIDE, 1000 + seed) for level in LEVELS.values() for seed in range(40)])
    colours = np.repeat(pixels[..., np.newaxis], 3, axis=-1).astype(np.float32)
    network.fit(colours, np.repeat(np.arange(3), 40), epochs=12, batch_size=20, verbose=0)
    network.save(folder / "network.keras")
    out = folder / "models" / "kinds" / "1"
    stated = ["--labels", ",".join(LABELS), "--positive", "haemorrhagic,ischaemic", "--threshold", "0.5"]
    flags = ["--images", slices / "normal", "--int8", "--calibrate", slices, "--preprocess", "0..255"]
    assert main([*map(str, [folder / "network.keras", "-o", out, *stated, *flags])]) == 0
    return folder / "models"


pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("steady_speed")]


def test_model_is_converted_gated_and_reported(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With both positive labels in its spec, an INT8 variant judged on all three classes, and a heatmap."""
    folder = models / "kinds" / "1"
    spec = load_model(folder).spec
    gate = json.loads((folder / "manifest.json").read_text())["files"][INT8_FILE]["gate"]["held_out"]

    assert (spec.labels, spec.positive_labels, spec.threshold) == (LABELS, LABELS[1:], 0.5)
    assert gate["agreement_at_threshold"] >= 0.995
    assert gate["auc_drop"] is not None
    assert main(["report", str(folder)]) == 0
    assert "held out     96 slices: same label 100.00% at the threshold" in capsys.readouterr().out
    assert main(["verify", str(folder)]) == 0


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_server_answers_by_kind(models: Path, precision: str) -> None:
    """And shows where the evidence for either kind lies."""
    flags = ("--checks", "off", "--explain", "--precision", precision)
    with run_server(models, *flags) as server, StrokeClient(server.address) as client:
        answers = {label: client.explain(encode(make_slice(level, SIDE, 7))) for label, level in LEVELS.items()}

    assert [one.prediction.label for one in answers.values()] == list(answers)
    assert [one.prediction.is_positive for one in answers.values()] == [False, True, True]
    assert all(one.overlay_png for one in answers.values())


@pytest.fixture
def three() -> Any:
    """Compares what two models answer on four slices, of classes 0, 1, 1 and 2."""

    class Fixed:
        spec = SPEC

        def __init__(self, answers: list[list[float]]) -> None:
            self._answers = np.array(answers, np.float32)

        def run(self, image: np.ndarray) -> np.ndarray:
            return self._answers[[image.flat[0]]]

    def compare(before: list[list[float]], after: list[list[float]]) -> Comparison:
        slices = Slices(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), np.array([0, 1, 1, 2]))
        judge = Judge(Fixed(before), CalibrationSets(slices, slices, ""), Watch())  # type: ignore[arg-type]
        return judge.compare(Fixed(after)).held_out  # type: ignore[arg-type]

    return compare


ANSWERS = [[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]


def test_gate_counts_another_kind_as_another_label(three: Any) -> None:
    """Though the decision and the probability of both kinds together are the same."""
    found = three(ANSWERS, [*ANSWERS[:2], [0.2, 0.3, 0.5], ANSWERS[3]])

    assert found.agreement_at_threshold == found.agreement_at_half == 0.75
    assert found.mean_difference == pytest.approx(0.2 / 4)
    assert found.largest_difference == pytest.approx(0.2)
    assert found.auc_drop == 0


def test_gate_sees_a_kind_that_is_told_less_well(three: Any) -> None:
    """The largest drop of an AUC counts, be it that of one kind against all others."""
    found = three(ANSWERS, [*ANSWERS[:2], [0.05, 0.05, 0.9], ANSWERS[3]])

    assert found.auc_drop == 0.5  # one of the two haemorrhagic slices is now below both others


def test_calibration_slices_have_the_class_of_their_folder(slices: Path) -> None:
    """All three, in both sets."""
    sets = load_sets(slices, InputFormat(SIDE, SIDE, "grey"), SPEC)

    for part in (sets.calibration, sets.held_out):
        assert part.classes is not None
        assert np.unique(part.classes).tolist() == [0, 1, 2]


def test_reference_asks_for_the_same_kind() -> None:
    """Unless two kinds are so near to each other that the author's answer may as well be the other."""
    from converter.pixels.reference import Reference  # it loads TensorFlow

    reference = Reference(Path("x.csv"), (), np.array([[0.1, 0.6, 0.3], [0.1, 0.451, 0.449], [0.9, 0.1, 0.0]]), 0)

    swapped = reference.compare(np.array([[0.1, 0.3, 0.6], [0.1, 0.449, 0.451], [0.9, 0.1, 0.0]]), SPEC)

    assert swapped.same_label == pytest.approx(2 / 3)
    assert reference.compare(reference.answers, replace(SPEC, threshold=0.2)).same_label == 1
