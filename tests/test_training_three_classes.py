"""A real training on three classes of synthetic slices: what it leaves, and that an evaluation finds the same."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from converter.cli import main as convert
from server.models.contract import METADATA_KEY, ModelSpec
from tests.test_training_judge import ask, flatten
from tests.test_training_train import SIZES, FakeModel
from training.cli import main
from training.phantom.classes import THREE_CLASSES
from training.phantom.dataset import write_dataset
from training.settings.train import TrainConfig

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.usefixtures("blank_plots"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

LABELS = ("haemorrhage", "ischaemia", "normal")
POSITIVE = LABELS[:2]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slices each of 48 drawn patients."""
    folder = tmp_path_factory.mktemp("three") / "slices"
    write_dataset(folder, 96, 3, size=64, processes=1, slices_per_patient=2, classes=THREE_CLASSES)
    return folder


@pytest.fixture(scope="module")
def config(slices: Path) -> TrainConfig:
    return TrainConfig(
        data=slices,
        out=slices.parent / "run",
        positive=POSITIVE,
        epochs=1,
        batch_size=16,
        validation=0.25,
        test=0.3,
        operating_point="sensitivity=0.9",
    )


@pytest.fixture(scope="module")
def run(config: TrainConfig) -> Path:
    """The folder of one finished run."""
    from training.run.train import train

    return train(config)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_evaluation(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text("utf-8"))["evaluation"]
    return found


def read_spec(folder: Path) -> str:
    """The contract in a model folder's file."""
    return {entry.key: entry.value for entry in onnx.load(folder / "model.onnx").metadata_props}[METADATA_KEY]


def test_networks_have_an_output_for_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last layer grows, and nothing else; of the paper's network and behind a backbone."""
    import keras

    from training.fit.models import BACKBONES, CNN_PARAMETERS, build_cnn, build_on_backbone

    assert (build_cnn(classes=3).output_shape, build_cnn(classes=3).count_params()) == ((None, 3), CNN_PARAMETERS + 65)
    tiny = replace(BACKBONES["resnet50"], build=keras.layers.Conv2D(4, 3))
    monkeypatch.setitem(BACKBONES, "resnet50", tiny)
    assert build_on_backbone("resnet50", classes=3).output_shape == (None, 3)


def test_validation_watches_the_positive_set(tmp_path: Path) -> None:
    """The AUC of an epoch is that of bleeds and infarcts together, the loss and accuracy those of all classes."""
    from training.fit.monitor import Monitor

    rows = np.array([[8, 2, 6], [2, 8, 6], [6, 2, 8], [5, 5, 6]], np.float32) / 16
    model = FakeModel()
    sizes = {**SIZES, "positive": np.array([0, 1])}
    monitor = Monitor(model, tmp_path, lambda: rows, np.array([1, 0, 2, 2]), **sizes)
    monitor.set_model(model)
    monitor.on_epoch_end(0, {"loss": 1.0, "accuracy": 0.5})
    assert monitor.history[0].val_auc == 0.75  # 10 and 10 sixteenths against 8 and 10: two wins, two ties
    assert monitor.history[0].val_accuracy == 0.5
    assert monitor.history[0].val_loss == pytest.approx(-np.log(np.array([2, 2, 8, 6]) / 16).mean())


def test_spec_has_the_positive_set(run: Path) -> None:
    """Labels, decision, calibration and figures over all classes are in the contract, of the schema for several."""
    spec = ModelSpec.from_json((run / "spec.json").read_text("utf-8"))
    assert (spec.labels, spec.positive_labels, spec.schema) == (LABELS, POSITIVE, 2)
    assert 0 < spec.threshold < 1
    assert spec.temperature != 1
    assert spec.study_top_k >= 1
    assert {
        "test_patient_macro_auc",
        "test_macro_auc",
        "test_macro_auc_low",
        "test_macro_sensitivity",
        "test_class_accuracy",
    } <= {*spec.metrics}
    assert "--positive haemorrhage ischaemia" in spec.provenance["flags"]
    assert "haemorrhage, ischaemia, normal" in (run / "model_card.md").read_text("utf-8")


def test_predictions_have_a_column_for_each_class(run: Path) -> None:
    """They add up to 1, those of the positive labels to the score, and are what the reference answers say."""
    rows = read_rows(run / "predictions.csv")
    reference = json.loads((run / "reference.json").read_text("utf-8"))
    assert [name for name in rows[0] if name.startswith("probability_")] == [f"probability_{x}" for x in LABELS]
    answers = {row["file"]: [float(row[f"probability_{label}"]) for label in LABELS] for row in rows}
    for row in rows:
        assert sum(answers[row["file"]]) == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == sum(answers[row["file"]][:2])
    for image in reference["images"]:
        assert answers[image["file"]] == pytest.approx(image["probabilities"])
    assert {row["label"] for row in rows} == set(LABELS)


def test_evaluation_of_the_run_finds_what_the_run_found(
    run: Path, slices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked again about the same test images, the saved network has the same figures, class by class."""
    recorded = read_evaluation(run)
    found = ask(capsys, run, slices, "--split", str(run / "split.csv"))["evaluations"]["all images"]
    assert found["classes"]["confusion"] == recorded["classes"]["confusion"]
    assert sum(map(sum, found["classes"]["confusion"])) == len(read_rows(run / "predictions.csv"))
    for ours, theirs in zip(found["classes"]["figures"], recorded["classes"]["figures"], strict=True):
        assert {name: one["value"] for name, one in ours.items()} == pytest.approx(
            {name: one["value"] for name, one in theirs.items()}, nan_ok=True
        )
    for name, figure in found["slices"]["figures"].items():
        assert figure["value"] == pytest.approx(recorded["slices"]["figures"][name]["value"], abs=1e-5)


def test_converted_model_has_the_same_answers(
    run: Path, slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's folder is converted as it is; the model that would be served has the same figures, class by class."""
    folder = tmp_path / "models" / "three" / "1"
    assert convert([str(run / "brain_stroke_model.keras"), "-o", str(folder), "--images", str(slices)]) == 0
    assert ModelSpec.from_json(read_spec(folder)).positive_labels == POSITIVE
    capsys.readouterr()
    parts = [
        ask(capsys, model, slices, "--split", str(run / "split.csv"))["evaluations"]["all images"]
        for model in (run, folder)
    ]
    assert parts[0]["classes"]["confusion"] == parts[1]["classes"]["confusion"]
    for part in parts:
        part.pop("model")
    assert flatten(parts[1]) == pytest.approx(flatten(parts[0]), abs=1e-3)


def test_folds_are_pooled_class_by_class(config: TrainConfig) -> None:
    """Each image is counted once, by what the network said that has not seen its person."""
    from training.run.train import train

    folder = train(replace(config, out=config.out.with_name("folds"), folds=2, no_weights=True))
    rows = read_rows(folder / "predictions.csv")
    evaluation = read_evaluation(folder)
    counts = dict(zip(LABELS, map(sum, evaluation["classes"]["confusion"]), strict=True))
    assert len(rows) == sum(counts.values()) == 96
    assert counts == {label: sum(row["label"] == label for row in rows) for label in LABELS}
    parts = [row for fold in ("fold-1", "fold-2") for row in read_rows(folder / fold / "predictions.csv")]
    columns = [f"probability_{label}" for label in LABELS]
    pooled = {row["file"]: [row[column] for column in columns] for row in rows}
    assert {row["file"]: [row[column] for column in columns] for row in parts} == pooled
    assert "## Classes" in (folder / "report.md").read_text("utf-8")
    people = evaluation["patient_classes"]
    assert sum(map(sum, people["confusion"])) == evaluation["patients"]["count"] == 48


def test_model_of_three_classes_is_tuned(run: Path, slices: Path) -> None:
    """By the command: all of its labels and its positive set are kept, and what it answered before is compared."""
    out = run.with_name("tuned")
    flags = ["--split", str(run / "split.csv"), "--last-epochs", "1", "--epochs", "1", "--batch-size", "16"]
    assert main(["tune-up", str(run), "--data", str(slices), "--out", str(out), *flags]) == 0

    spec = ModelSpec.from_json((out / "spec.json").read_text("utf-8"))
    assert (spec.labels, spec.positive_labels, spec.schema, spec.version) == (LABELS, POSITIVE, 2, "2")
    assert spec.provenance["parent"].startswith("stroke-cnn 1, SHA-256 ")
    before, after = read_evaluation(run), read_evaluation(out)
    compared = json.loads((out / "metrics.json").read_text("utf-8"))["before_and_after"]["slices"]["after"]
    for place, evaluation in (("first", before), ("second", after)):
        assert compared["figures"]["auc"][place]["value"] == pytest.approx(
            evaluation["slices"]["figures"]["auc"]["value"], abs=1e-6
        )
    assert sum(map(sum, after["classes"]["confusion"])) == len(read_rows(out / "predictions.csv"))
    assert [name for name in read_rows(out / "predictions.csv")[0] if name.startswith("probability_")] == [
        f"probability_{label}" for label in LABELS
    ]


def test_model_of_three_classes_is_not_tuned_on_two(
    run: Path, slices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would forget the third; one line says so, and nothing is left behind."""
    (tmp_path / "data").mkdir()
    for label in LABELS[1:]:
        (tmp_path / "data" / label).symlink_to(slices / label)

    assert main(["tune-up", str(run), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "tuned")]) == 2

    error = capsys.readouterr().err.splitlines()[-1]
    assert "has the labels ischaemia, normal, and stroke-cnn 1 tells haemorrhage, ischaemia, normal" in error
    assert error.endswith("a model is tuned on all of its own labels, and no others")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_label_that_was_not_named_positive_is_refused(slices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The default, stroke, is none of three classes; one line says so, and nothing is left behind."""
    command = ["--data", str(slices), "--out", str(slices.parent / "refused")]
    assert main(command) == 2
    assert "--positive stroke is not among the labels: haemorrhage, ischaemia, normal" in capsys.readouterr().err
    assert main([*command, "--positive", *LABELS]) == 2
    assert "--positive names all labels" in capsys.readouterr().err
    for flags in (["haemorrhage", "haemorrhage"],):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--positive", *flags])
        assert stop.value.code == 2
        assert "--positive names a label twice" in capsys.readouterr().err
    assert not list(slices.parent.glob("refused*"))
