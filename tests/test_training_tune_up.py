"""``python -m training tune-up``: an earlier model on other slices, and whether that has helped."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.models.contract import ModelSpec
from tests.backbones import randomise_statistics, use_tiny_backbone
from tests.fakes import ROOT
from tests.test_training_data import write_discs
from training.cli import main
from training.evaluation.calibration import Scaling

pytestmark = [
    pytest.mark.tensorflow,
    # Keras 3.15 hands its variables to h5py, which asks numpy 2 for an array without a copy; harmless, and theirs.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.usefixtures("blank_plots"),
]

(BUNDLED,) = (ROOT / "models" / "stroke-cnn").iterdir()
FLAGS = ("--last-epochs", "2", "--epochs", "1", "--batch-size", "8", "--validation", "0.25", "--test", "0.25")


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slices of each of 16 people, every other with a bright disc: nothing that the bundled model has seen."""
    return write_discs(tmp_path_factory.mktemp("site") / "discs", patients=16)


@pytest.fixture(scope="module")
def run(discs: Path) -> Path:
    """The run folder of the bundled model, tuned."""
    out = discs.parent / "run"
    assert main(["tune-up", str(BUNDLED), "--data", str(discs), "--out", str(out), *FLAGS]) == 0
    return out


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_run_folder_is_that_of_a_training(run: Path) -> None:
    """What the converter, evaluate and card take, and nothing that only an unfinished run needs."""
    names = {path.name for path in run.iterdir()}
    assert {
        "brain_stroke_model.keras",
        "brain_stroke_model.h5",
        "spec.json",
        "split.csv",
        "metrics.json",
        "predictions.csv",
        "report.md",
        "report.html",
        "model_card.md",
        "parent.json",
        "history.csv",
    } <= names
    assert not [name for name in names if "checkpoint" in name or "layers" in name]
    assert not run.with_name("run.partial").exists()


def test_spec_names_the_parent(run: Path) -> None:
    """By name, version and digest of its file; window, labels and checks are the parent's, the version is the next."""
    parent = read_json(BUNDLED / "manifest.json")["files"]["model.onnx"]["sha256"]
    spec = ModelSpec.from_json((run / "spec.json").read_text())
    assert spec.provenance["parent"] == f"stroke-cnn {BUNDLED.name}, SHA-256 {parent}"
    assert spec.provenance["parent_trained_on"].startswith("phantom, fingerprint ")
    assert (spec.name, spec.version) == ("stroke-cnn", str(int(BUNDLED.name) + 1))
    assert [(window.level, window.width) for window in spec.windows] == [(40, 80)]
    assert spec.labels == ("normal", "stroke")
    assert "--last-epochs 2" in spec.provenance["flags"]
    assert "--model" not in spec.provenance["flags"]
    assert str(run.parent) not in (run / "spec.json").read_text()


def test_report_says_before_and_after_side_by_side(run: Path) -> None:
    """On the same test patients, with the difference, its interval and p; first of all, and in the card too."""
    page = (run / "report.md").read_text()
    conclusion = read_json(run / "metrics.json")["before_and_after"]["conclusion"]
    assert page.index("## Before and after") < page.index("## Headline")
    assert "| recalibrated (95 %) | after (95 %) | after less before (95 %) | p |" in page
    assert f"**{conclusion}**" in page
    assert conclusion.split(":")[0] in (run / "model_card.md").read_text()
    assert "recalibrated (95 %)" in (run / "report.html").read_text()


def test_figures_are_those_of_the_test_patients(run: Path) -> None:
    """Those of after are the run's own, of all test slices and no others."""
    metrics = read_json(run / "metrics.json")
    after = metrics["before_and_after"]["slices"]["after"]
    test = [row for row in read_rows(run / "split.csv") if row["split"] == "test"]
    assert after["count"] == len(test) == len(read_rows(run / "predictions.csv"))
    assert after["people"] == len({row["patient"] for row in test})
    assert after["figures"]["auc"]["second"]["value"] == metrics["evaluation"]["slices"]["figures"]["auc"]["value"]
    assert after["thresholds"][1] == metrics["evaluation"]["slices"]["threshold"]
    recalibrated = metrics["before_and_after"]["slices"]["recalibrated"]
    assert recalibrated["figures"]["auc"]["difference"]["value"] == 0


def test_before_is_what_the_served_model_answers(run: Path, discs: Path, tmp_path: Path) -> None:
    """The parent in fp32, through the runtime that serves, on the same slices."""
    flags = ["--data", str(discs), "--split", str(run / "split.csv"), "--out", str(tmp_path / "out")]
    assert main(["evaluate", str(BUNDLED / "model.onnx"), *flags]) == 0
    served = read_json(tmp_path / "out" / "evaluation.json")["evaluations"]["all images"]["slices"]["figures"]
    before = read_json(run / "metrics.json")["before_and_after"]["slices"]["after"]["figures"]
    for name in ("auc", "sensitivity", "specificity", "brier"):
        assert before[name]["first"]["value"] == pytest.approx(served[name]["value"], abs=1e-5)


def test_both_stages_are_in_the_history(run: Path) -> None:
    """From the parent, epoch 0, on; the first stage changes no convolution."""
    rows = read_rows(run / "history.csv")
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert all(float(row["val_loss"]) > 0 for row in rows)


def test_converter_takes_it_as_any_other(run: Path, discs: Path, tmp_path: Path) -> None:
    """And what is served says whose child it is; the answers are those that were recorded."""
    from converter.convert import ConvertOptions, convert

    out = tmp_path / "models" / "stroke-cnn" / "3"
    report = convert(ConvertOptions(run / "brain_stroke_model.keras", out, images=discs))
    assert report.recorded > 0
    assert report.spec.provenance["parent"].startswith("stroke-cnn ")


def test_interrupted_run_goes_on_to_the_same_result(
    run: Path, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --resume after a crash in the second stage: weights, figures and spec as without it."""
    import keras

    from training.fit.monitor import Monitor

    finish, calls = Monitor.on_epoch_begin, []

    def crash(self: Monitor, epoch: int, logs: Any = None) -> None:
        calls.append(epoch)
        if len(calls) == 3:
            raise OSError(5, "crash")
        finish(self, epoch, logs)

    out = tmp_path / "run"
    command = ["tune-up", str(BUNDLED), "--data", str(discs), "--out", str(out), *FLAGS]
    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "on_epoch_begin", crash)
        assert main(command) == 2
    assert (tmp_path / "run.partial" / "last-layers" / "checkpoint.npz").exists()
    assert main(command) == 2  # unfinished, and nobody said that it is to go on
    assert main([*command, "--resume"]) == 0
    first, second = (
        keras.models.load_model(folder / "brain_stroke_model.keras", compile=False) for folder in (run, out)
    )
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        assert np.array_equal(one, other)
    assert read_json(out / "metrics.json")["before_and_after"] == read_json(run / "metrics.json")["before_and_after"]
    assert main([*command, "--resume"]) == 0  # finished: nothing to do


def test_run_can_be_tuned_again_on_its_own_split(run: Path, discs: Path, tmp_path: Path) -> None:
    """A run folder is an earlier model too; what it has learned from cannot become test images."""
    command = ["tune-up", str(run), "--data", str(discs), "--last-epochs", "0", "--epochs", "1"]
    assert main([*command, "--out", str(tmp_path / "leak"), "--seed", "8"]) == 2
    assert main([*command, "--out", str(tmp_path / "again"), "--split", str(run / "split.csv")]) == 0
    spec = ModelSpec.from_json((tmp_path / "again" / "spec.json").read_text())
    assert spec.provenance["parent"].startswith(f"stroke-cnn {int(BUNDLED.name) + 1}, SHA-256 ")
    before = read_json(tmp_path / "again" / "metrics.json")["before_and_after"]["slices"]["after"]["figures"]["auc"]
    assert (
        before["first"]["value"] == read_json(run / "metrics.json")["evaluation"]["slices"]["figures"]["auc"]["value"]
    )


def test_parent_is_kept_where_nothing_is_better(discs: Path, tmp_path: Path) -> None:
    """Steps that are far too large: the weights stay, calibration and threshold are new, and the report says so."""
    import keras

    from training.own.parent import open_parent

    rows = [[file.relative_to(discs).as_posix(), file.parent.name == "stroke"] for file in sorted(discs.rglob("*.png"))]
    (tmp_path / "data").symlink_to(discs)
    with (tmp_path / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [
                ["file", "bleed", "patient"],
                *([f"data/{file}", int(has), file.split("/")[1].split(" ")[0]] for file, has in rows),
            ]
        )
    out = tmp_path / "run"
    flags = ["--label-column", "bleed", "--last-epochs", "0", "--epochs", "1", "--learning-rate", "0.3"]
    assert main(["tune-up", str(BUNDLED), "--data", str(tmp_path), "--out", str(out), *flags]) == 0
    found = read_json(out / "metrics.json")["before_and_after"]
    assert found["kept_parent"]
    assert found["conclusion"].startswith("Tuning did not help: nothing that was trained was better")
    assert found["slices"]["after"]["figures"]["auc"]["difference"]["value"] == 0
    network = keras.models.load_model(out / "brain_stroke_model.keras", compile=False)
    spec = ModelSpec.from_json((out / "spec.json").read_text())
    *body, kernel, bias = network.get_weights()
    *parent, old_kernel, old_bias = open_parent(str(BUNDLED)).network.get_weights()
    assert all(np.array_equal(one, other) for one, other in zip(body, parent, strict=True))
    assert kernel * spec.temperature == pytest.approx(old_kernel, rel=1e-5)
    shift = np.array(read_json(out / "metrics.json")["calibration"]["shift"])
    assert (bias - shift) * spec.temperature == pytest.approx(old_bias, rel=1e-5, abs=1e-6)


def test_calibration_alone_can_be_made_anew(discs: Path, tmp_path: Path) -> None:
    """Without a pass over the training images; the answers differ from the parent's by temperature and shift alone."""
    import keras

    from training.own.parent import open_parent

    out = tmp_path / "run"
    flags = ["--data", str(discs), "--out", str(out), "--last-epochs", "0", "--epochs", "0"]
    assert main(["tune-up", str(BUNDLED), *flags]) == 0
    conclusion = read_json(out / "metrics.json")["before_and_after"]["conclusion"]
    assert conclusion.startswith("Nothing was trained: calibration and threshold alone are new (test AUC")
    assert "Expected calibration error" in conclusion
    network = keras.models.load_model(out / "brain_stroke_model.keras", compile=False)
    parent = open_parent(str(BUNDLED)).network
    images = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3)).astype(np.float32)
    found = read_json(out / "metrics.json")["calibration"]
    scaling = Scaling(found["temperature"], np.array(found["shift"]))
    answers = [one.predict_on_batch(images) for one in (network, parent)]
    assert answers[0] == pytest.approx(scaling.apply(answers[1]), abs=1e-5)
    assert "and then adds to them normal" in (out / "report.md").read_text()


@pytest.mark.parametrize(
    ("name", "learned", "kept"),
    [
        # Statistics of millions of images, and sums that residual blocks bound.
        ("resnet50", {"conv2_conv", "conv5_conv"}, {"conv1_bn", "conv2_bn", "conv5_bn"}),
        # Fixed statistics would let its last channels die. Early layers and kernels of one channel know enough.
        (
            "efficientnet-lite0",
            {"block2a_project_conv", "block2a_project_bn", "block2a_depthwise_bn", "top_conv", "top_bn"},
            {"stem_conv", "stem_bn", "block1a_project_conv", "block1a_project_bn", "block2a_depthwise_conv"},
        ),
    ],
)
def test_network_on_a_backbone_is_tuned(
    name: str, learned: set[str], kept: set[str], discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its Keras file; layers and normalisation learn where they do in a training that unfreezes all stages."""
    import keras

    from training.fit.models import MODELS
    from training.own import stages

    losses = iter((3.0, 2.0, 1.0))  # of the parent and the stages: eight images are no judge
    monkeypatch.setattr(stages, "measure_loss", lambda network, data: next(losses))
    keras.utils.set_random_seed(7)
    with use_tiny_backbone(name):
        network = MODELS[name]("float32")
    randomise_statistics(network)
    network.save(tmp_path / "model.keras")
    spec = ModelSpec("site", "1", ("normal", "stroke"), ("stroke",), 0.5, colour="grey")
    (tmp_path / "spec.json").write_text(spec.to_json())
    out = tmp_path / "run"
    flags = ["--data", str(discs), "--out", str(out), "--last-epochs", "1", "--epochs", "1", "--batch-size", "8"]
    assert main(["tune-up", str(tmp_path / "model.keras"), *flags]) == 0
    tuned = keras.models.load_model(out / "brain_stroke_model.keras", compile=False)
    before = {layer.name: layer.get_weights() for layer in network.layers}
    changed = {
        layer.name
        for layer in tuned.layers
        if any(not np.array_equal(*pair) for pair in zip(layer.get_weights(), before[layer.name], strict=True))
    }
    assert {"probabilities", *learned} <= changed
    assert not kept & changed
    assert "CANNOT BE EXCLUDED" in (out / "report.md").read_text()  # it does not say what it has learned from


def test_last_layers_learn_alone_first() -> None:
    """What is before them has no gradient, and its normalisation no part in it."""
    from training.fit.models import CLASSIFIER, MODELS
    from training.own.stages import choose_trainable

    with use_tiny_backbone("efficientnet-lite0"):
        network = MODELS["efficientnet-lite0"]("float32")
    choose_trainable(network, only_last=True)
    assert {variable.path.split("/")[0] for variable in network.trainable_variables} == {CLASSIFIER, "probabilities"}
    assert [layer.name for layer in network.layers if layer.trainable] == [CLASSIFIER, "probabilities"]


def test_normalisation_of_a_foreign_network_stays_at_rest() -> None:
    """What a training would do with it is not known, even where Keras gave it a name that we know."""
    import keras
    from keras import layers

    from training.own.stages import choose_trainable

    normalised = [layers.Conv2D(2, 3), layers.BatchNormalization(), layers.GlobalAveragePooling2D()]
    network = keras.Sequential([keras.Input((8, 8, 3)), *normalised, layers.Dense(2)], name="efficientnet-lite0")
    choose_trainable(network, only_last=False)
    assert [layer.trainable for layer in network.layers] == [True, False, True, True]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "missing"], "missing is not a folder"),
        (["--out", "data"], "data exists; name another run folder"),
        (["--split", "none.csv"], "none.csv"),
    ],
)
def test_unusable_input_is_one_line(
    flags: list[str],
    message: str,
    discs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And leaves nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(discs)
    assert main(["tune-up", str(BUNDLED), "--data", "data", "--out", "run", *flags]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "resnet50"], "unrecognized arguments: --model"),
        (["--last-rate", "0"], "--last-rate must be positive"),
        (["--epochs", "-1"], "--epochs must be 0 to 100000"),
    ],
)
def test_bad_flag_is_named(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What the model settles is no flag."""
    with pytest.raises(SystemExit) as exit_:
        main(["tune-up", "model", "--data", "missing", "--out", "run", *flags])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
