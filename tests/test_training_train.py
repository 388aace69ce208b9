"""A whole training run on a few made-up slices, and what it leaves."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from server.images.preprocess import load_pixels
from server.models.contract import ModelSpec
from tests.test_training_data import write_discs
from training.data.format import INPUT_FORMAT
from training.data.labels import list_images
from training.data.pixels import decode_images
from training.errors import TrainingError
from training.fit.augment import AUGMENTATIONS
from training.settings.train import TrainConfig

pytestmark = [
    pytest.mark.tensorflow,
    # Keras 3.15 hands its variables to h5py, which asks numpy 2 for an array without a copy; harmless, and theirs.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

EPOCHS = 2


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("training") / "discs")


@pytest.fixture(scope="module")
def config(discs: Path) -> TrainConfig:
    return TrainConfig(
        data=discs, out=discs.parent / "run", epochs=EPOCHS, batch_size=8, validation=0.2, test=0.2, notes=("A note.",)
    )


@pytest.fixture(scope="module")
def run(config: TrainConfig) -> Path:
    """The folder of one finished run."""
    from training.run.train import train

    return train(config)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_run_folder_is_complete(run: Path) -> None:
    """Everything that a run promises is there, and nothing else."""
    assert sorted(path.name for path in run.iterdir()) == [
        "accuracy.png",
        "brain_stroke_model.h5",
        "brain_stroke_model.keras",
        "confusion.png",
        "decision_curve.png",
        "errors.png",
        "gallery.png",
        "history.csv",
        "loss.png",
        "metrics.json",
        "model_card.md",
        "patients.csv",
        "precision_recall.png",
        "predictions.csv",
        "reference.json",
        "reliability.png",
        "report.html",
        "report.md",
        "roc.png",
        "run.json",
        "spec.json",
        "split.csv",
    ]
    assert not run.with_name("run.partial").exists()


def test_saved_models_load_and_agree(run: Path, discs: Path) -> None:
    """Both files load, take the server's pixels in three equal channels, and give the recorded answers on the files."""
    import keras

    reference = json.loads((run / "reference.json").read_text())
    data = [(discs / image["file"]).read_bytes() for image in reference["images"]]
    assert [hashlib.sha256(file).hexdigest() for file in data] == [image["sha256"] for image in reference["images"]]
    pixels = np.stack([load_pixels(file, INPUT_FORMAT).array for file in data]).repeat(3, axis=3)
    for name in ("brain_stroke_model.h5", "brain_stroke_model.keras"):
        model = keras.models.load_model(run / name, compile=False)
        answers = model.predict_on_batch(pixels)
        assert np.allclose(answers, [image["probabilities"] for image in reference["images"]], atol=1e-6)
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_spec_is_the_servers_contract(run: Path) -> None:
    """The spec reads as a ModelSpec with the labels, the decision, the figures and where it all comes from."""
    spec = ModelSpec.from_json((run / "spec.json").read_text())
    assert (spec.labels, spec.positive_labels, spec.threshold) == (("normal", "stroke"), ("stroke",), 0.05)
    assert 0 <= spec.metrics["test_auc_low"] <= spec.metrics["test_auc"] <= spec.metrics["test_auc_high"] <= 1
    assert spec.provenance["images"] == "24"
    assert len(spec.provenance["data_fingerprint"]) == 64
    assert {"test_patient_auc", "test_ece", "test_brier"} <= spec.metrics.keys()
    assert not {name for name in spec.metrics if name.endswith(("top_k", "threshold"))}
    assert spec.study_top_k >= 1
    assert 0 <= spec.study_threshold <= 1
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["calibration"]["temperature"] == spec.temperature
    assert metrics["evaluation"]["slices"]["threshold"] == spec.threshold
    assert spec.provenance["notes"] == "A note."
    assert "--seed 7" in spec.provenance["flags"]
    assert str(run.parent) not in (run / "spec.json").read_text()


def test_no_patient_is_in_two_splits(run: Path) -> None:
    """The written split keeps every patient in one place, and uses all three."""
    rows = read_csv(run / "split.csv")
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["patient"], set()).add(row["split"])
    assert len(rows) == 24
    assert len(splits) == 12
    assert all(len(parts) == 1 for parts in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}


def test_history_has_a_line_per_epoch(run: Path) -> None:
    """Each epoch is recorded with loss, accuracy and the AUC on the validation images."""
    rows = read_csv(run / "history.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["loss"]) > 0 and 0 <= float(row["val_auc"]) <= 1 for row in rows)


def test_report_does_not_warn_where_patients_are_known(run: Path) -> None:
    """With patient ids in every name there is nothing to warn of, and the page shows figures and notes."""
    page = (run / "report.md").read_text()
    assert "CANNOT BE EXCLUDED" not in page
    assert "matched AUC" in page
    assert "A note." in page


@pytest.mark.parametrize("name", ["accuracy.png", "loss.png"])
def test_curves_are_drawn(run: Path, name: str) -> None:
    """The curves are real images with something on them."""
    with Image.open(run / name) as image:
        assert image.width >= 600
        assert len(set(image.convert("L").tobytes())) > 20


def test_existing_run_folder_is_kept(config: TrainConfig, run: Path) -> None:
    """A run never writes over another one."""
    from training.run.train import train

    before = (run / "report.md").read_bytes()
    with pytest.raises(TrainingError, match="run exists; name another run folder"):
        train(config)
    assert (run / "report.md").read_bytes() == before


def test_failed_run_leaves_nothing(config: TrainConfig, tmp_path: Path) -> None:
    """A damaged image ends the run with its name, and the run folder can be used again."""
    from training.run.train import train

    data = write_discs(tmp_path / "data", patients=4, slices=1, size=64)
    (data / "normal" / "0 (1).png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(TrainingError, match=r"0 \(1\)\.png"):
        train(replace(config, data=data, out=tmp_path / "run"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_unknown_patients_are_said_loudly(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without patient ids, terminal, report and spec all say that leakage cannot be excluded; Ctrl-C keeps the best.

    One run shows both, since a run takes seconds.
    """
    from training.fit.monitor import Monitor
    from training.run.train import train

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        end_epoch = Monitor.on_epoch_end
        patch.setattr(Monitor, "on_epoch_end", lambda *arguments: (end_epoch(*arguments), interrupt()))
        out = train(replace(config, out=tmp_path / "run", epochs=50, patient_pattern="(no such name)", augment="none"))
    assert "CANNOT BE EXCLUDED" in capsys.readouterr().err
    assert "CANNOT BE EXCLUDED" in (out / "report.md").read_text()
    assert ModelSpec.from_json((out / "spec.json").read_text()).provenance["epochs"] == "1, best 1; interrupted"
    assert (out / "brain_stroke_model.h5").exists()


def test_interrupt_before_the_first_epoch_leaves_nothing(config: TrainConfig, tmp_path: Path) -> None:
    """With no epoch finished there is nothing to keep."""
    from training.fit.monitor import Monitor
    from training.run.train import train

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Monitor, "on_epoch_begin", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(replace(config, out=tmp_path / "run"))
    assert not list(tmp_path.iterdir())


SIZES = {"positive": np.array([1]), "patience": 2, "epochs": 9, "image_count": 4, "batch_size": 2}


class FakeModel:
    """Stands in for the network that a monitor watches."""

    stop_training = False
    weight = 0.0
    variables: tuple[object, ...] = ()
    optimizer = SimpleNamespace(variables=())

    def get_weights(self) -> list[np.ndarray]:
        return [np.full(1, self.weight, np.float32)]


def test_training_stops_when_validation_gets_no_better(tmp_path: Path) -> None:
    """After as many epochs without a lower validation loss as patience allows, training stops; the best is kept."""
    from training.fit.monitor import Monitor

    certainties = iter([0.5, 0.7, 0.6, 0.6])

    def predict() -> np.ndarray:
        certainty = next(certainties)
        return np.array([[certainty, 1 - certainty], [1 - certainty, certainty]], np.float32)

    model = FakeModel()
    monitor = Monitor(model, tmp_path, predict, np.array([0, 1]), **SIZES)
    monitor.set_model(model)
    for epoch in range(4):
        assert not model.stop_training
        monitor.on_epoch_end(epoch, {"loss": 1.0, "accuracy": 0.5})
    assert model.stop_training
    assert monitor.best is not None
    assert monitor.best.epoch == 2


def test_weights_that_are_not_numbers_are_never_best(tmp_path: Path) -> None:
    """ReLU can hide NaN weights behind a good loss; they are not kept all the same."""
    from training.fit.monitor import Monitor

    model = FakeModel()
    monitor = Monitor(model, tmp_path, lambda: np.eye(2, dtype=np.float32), np.array([0, 1]), **SIZES)
    model.weight = np.nan
    monitor.set_model(model)
    monitor.on_epoch_end(0, {"loss": 0.1, "accuracy": 1.0})
    assert monitor.best is None
    assert monitor.best_weights == []


def test_mixed_precision_leaves_out_a_step_that_is_not_a_number() -> None:
    """A NaN gradient, as bfloat16 convolutions give now and then, changes nothing; the next step counts."""
    import keras

    from training.fit.optimizer import make_optimizer

    optimizer, weight = make_optimizer(0.1, "mixed_bfloat16", steps=10**6), keras.Variable([1.0])
    optimizer.apply([keras.ops.convert_to_tensor([np.nan])], [weight])
    assert weight.numpy().tolist() == [1.0]
    optimizer.apply([keras.ops.convert_to_tensor([1.0])], [weight])
    assert weight.numpy()[0] == pytest.approx(0.9, abs=1e-3)


@pytest.fixture(scope="module")
def passes(discs: Path) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Two passes over a training pipeline, and the second one again from a pipeline that begins there."""
    from training.fit.pipeline import make_training_batches

    images = list_images(discs)
    store, _ = decode_images(images, discs.parent, lambda done, total: None)
    with store:
        options = {"seed": 5, "augmentation": AUGMENTATIONS["paper"]}
        both, second = (
            [
                (images, targets)
                for images, targets, _ in make_training_batches(
                    store, np.arange(24), images.targets, 8, epochs=epochs, **options
                ).as_numpy_iterator()
            ]
            for epochs in (range(2), range(1, 2))
        )
    return [both[:3], both[3:], second]


def test_few_batches_wait() -> None:
    """One, beside one that is being made: more would cost memory in each step."""
    from training.fit.pipeline import make_training_batches

    read: list[int] = []
    taken = 0
    order = np.arange(24)

    class Store:
        channels, planes = 1, 1

        def read(self, indices: np.ndarray) -> np.ndarray:
            read.append(len(read) - taken)  # batches before this one that nobody has taken
            return np.zeros((len(indices), 256, 256, 1), np.uint8)

    options = {"seed": 5, "augmentation": None, "epochs": range(1)}
    batches = make_training_batches(cast(Any, Store()), order, order % 2, 1, **options)
    for images, *_ in batches:
        assert images.shape == (1, 256, 256, 3)
        taken += 1
    assert max(read) <= 3  # with the one that is being taken


def test_batches_are_seeded(passes: list[list[tuple[np.ndarray, np.ndarray]]]) -> None:
    """The same seed gives the same order and the same changes, also to a run that begins in the middle."""
    for (images, targets), (same_images, same_targets) in zip(passes[1], passes[2], strict=True):
        assert np.array_equal(targets, same_targets)
        assert np.array_equal(images, same_images)


def test_each_pass_is_another(passes: list[list[tuple[np.ndarray, np.ndarray]]]) -> None:
    """A second pass has the same images in another order and with other changes."""
    first, second = (np.concatenate([images for images, _ in part]) for part in passes[:2])
    assert first.shape == second.shape == (24, 256, 256, 3)
    assert not np.allclose(np.sort(first.sum(axis=(1, 2, 3))), np.sort(second.sum(axis=(1, 2, 3))), rtol=1e-6)
