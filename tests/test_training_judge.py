"""``python -m training evaluate``: the same figures whatever is asked, and one line for what cannot be used."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import StrokeClient
from server.models.contract import ModelSpec
from tests.fakes import SIDE, ServerProcess, encode, make_slice, write_model
from training.cli import main

GAIN = 0.05
"""Of the tiny model: its score grows with the mean grey level."""

LEVELS = {"normal": range(60, 124, 4), "stroke": range(100, 164, 4)}
PEOPLE = 8
"""Of each class, with two slices each."""


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 slices of 16 people, bright where there is a stroke, one damaged file and one in colours."""
    root = tmp_path_factory.mktemp("evaluate") / "scans"
    rows = []
    for label, levels in LEVELS.items():
        (root / label).mkdir(parents=True)
        for index, level in enumerate(levels):
            file = f"{label}/{label[0]}{index % PEOPLE} ({index}).png"
            (root / file).write_bytes(encode(make_slice(level, seed=level + 1000 * (label == "stroke"))))
            rows.append([file, int(label == "stroke"), index / 20, int(index == 3)])
    (root / "normal" / "broken (1).png").write_bytes(b"\x89PNG\r\n\x1a\n")
    colours = np.stack([make_slice(90), make_slice(20), make_slice(90)], axis=2)
    (root / "stroke" / "coloured (1).png").write_bytes(encode(colours))
    return root


@pytest.fixture(scope="module")
def table(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same slices with a labels.csv that has no people, without the damaged one."""
    root = tmp_path_factory.mktemp("table") / "scans"
    root.mkdir()
    rows = []
    for path in sorted(path for path in scans.rglob("*.png") if path.name[1].isdigit()):
        number = int(path.stem.split("(")[1].rstrip(")"))
        name = f"{path.parent.name}-{number}.png"
        (root / name).write_bytes(path.read_bytes())
        rows.append([name, int(path.parent.name == "stroke"), number / 20, int(number == 3)])
    with (root / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "hemorrhage", "brain_fraction", "blank"], *rows])
    return root


def ask(capsys: pytest.CaptureFixture[str], model: object, data: Path, *flags: str) -> dict[str, Any]:
    """Runs the command and returns its JSON."""
    assert main(["evaluate", str(model), "--data", str(data), "--json", *flags]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_running_server_gives_the_figures_of_the_file_that_it_serves(
    tiny_models: Path, tiny_server: ServerProcess, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folder, file and server answer alike: every figure, interval, refusal and warning but for the model's name."""
    folder = tiny_models / "tiny" / "1"
    documents = [ask(capsys, model, scans) for model in (folder, folder / "model.onnx", tiny_server.address)]
    for document in documents:
        whole = document["evaluations"]["all images"]
        assert whole.pop("model").startswith("tiny 1 (sha256 ")
        assert whole["slices"]["count"] == 33
        assert whole["patients"]["count"] == 17
        assert list(document["refused"]) == ["normal/broken (1).png"]
        assert any("1 images have colours" in warning for warning in whole["warnings"])
    assert documents[0] == documents[1]
    assert flatten(documents[2]) == pytest.approx(flatten(documents[0]), abs=1e-6)


def flatten(value: Any, name: str = "") -> dict[str, float]:
    """All numbers of a document by where they are."""
    if isinstance(value, dict):
        return {key: item for part in value for key, item in flatten(value[part], f"{name}/{part}").items()}
    return {name: value} if isinstance(value, int | float) else {}


@pytest.mark.tensorflow
def test_keras_file_gives_the_figures_of_its_conversion(
    tiny_models: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Keras network that computes the same has the same figures; labels and threshold come from its run."""
    import keras

    network = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, "softmax")]
    )
    network.layers[-1].set_weights([np.array([[0, GAIN / 3]] * 3), np.array([0, -128 * GAIN])])
    network.save(tmp_path / "brain_stroke_model.keras")
    spec = ModelSpec("tiny", "1", ("normal", "stroke"), ("stroke",), 0.05)
    (tmp_path / "spec.json").write_text(spec.to_json())
    keras_figures = flatten(ask(capsys, tmp_path, scans)["evaluations"])
    onnx_figures = flatten(ask(capsys, tiny_models / "tiny" / "1", scans)["evaluations"])
    assert keras_figures == pytest.approx(onnx_figures, abs=1e-5)


def test_figures_follow_the_table(tiny_models: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Label, exclusion and trivial score are columns of labels.csv; a subset has figures of its own."""
    document = ask(
        capsys,
        tiny_models / "tiny" / "1",
        table,
        *("--label-column", "hemorrhage", "--exclude-column", "blank", "--trivial-column", "brain_fraction"),
        *("--subset", "brain_fraction>=0.4", "--prevalence", "0.1"),
    )
    whole, subset = document["evaluations"].values()
    assert (whole["slices"]["count"], whole["slices"]["positives"]) == (30, 15)
    assert (subset["slices"]["count"], subset["slices"]["positives"]) == (16, 8)
    assert whole["baselines"]["trivial_auc"]["value"] == 0.5  # the same numbers in both classes
    assert whole["baselines"]["trivial_name"] == "column brain_fraction"
    assert [line["prevalence"] for line in whole["restated"]] == [0.1]


def test_training_images_among_the_judged_are_said(
    tiny_models: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where folders give a split and no split.csv chooses from it, nobody takes the figures for those of a test set."""
    for part in ("train", "test"):
        (tmp_path / part).symlink_to(scans if part == "train" else shutil.copytree(scans, tmp_path / ".other"))
    assert main(["evaluate", str(tiny_models / "tiny" / "1"), "--data", str(tmp_path)]) == 0
    assert "The images of all folders are judged, those of train too" in capsys.readouterr().out


def test_decision_is_the_servers(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Positive is what exceeds the model's own threshold; nothing is chosen on the images."""
    spec = ModelSpec("tiny", "1", ("normal", "stroke"), ("stroke",), 0.5)
    flags = ("--label-column", "hemorrhage", "--out", str(tmp_path / "out"))
    document = ask(capsys, write_model(tmp_path, spec), table, *flags)
    confusion = document["evaluations"]["all images"]["slices"]["confusion"]
    with (tmp_path / "out" / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert all((float(row["probability"]) > 0.5) == (row["answered_positive"] == "1") for row in rows)
    hits = sum(row["positive"] == row["answered_positive"] == "1" for row in rows)
    assert confusion["true_positives"] == hits
    assert 0 < hits < 16


def test_people_are_decided_on_as_the_model_recorded(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Number of slices and threshold of people travel with the model."""
    spec = ModelSpec("tiny", "1", ("normal", "stroke"), ("stroke",), 0.5, study_top_k=2, study_threshold=0.4)
    patients = ask(capsys, write_model(tmp_path, spec), scans)["evaluations"]["all images"]["patients"]
    assert (patients["top_k"], patients["threshold"]) == (2, 0.4)


def test_only_the_held_out_part_is_judged(
    tiny_models: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the split of a run, its training images are left out; with --part all it is said that they are in."""
    files = sorted(path.relative_to(scans).as_posix() for path in scans.rglob("*.png") if "broken" not in path.name)
    rows = [
        [file, hashlib.sha256((scans / file).read_bytes()).hexdigest(), "test" if int(file[8]) < 3 else "train"]
        for file in files
        if file[8].isdigit()
    ]
    with (tmp_path / "split.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "sha256", "split"], *rows])
    split = ("--split", str(tmp_path / "split.csv"))
    held_out = ask(capsys, tiny_models / "tiny" / "1", scans, *split)["evaluations"]["all images"]
    everything = ask(capsys, tiny_models / "tiny" / "1", scans, *split, "--part", "all")["evaluations"]["all images"]
    assert held_out["slices"]["count"] == 12
    assert not any("leakage" in warning for warning in held_out["warnings"])
    assert any("20 of the images were used in training" in warning for warning in everything["warnings"])


def test_out_has_page_numbers_answers_and_plots(
    tiny_models: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page says that people are not known; nothing that was there before is written over."""
    flags = ["--data", str(table), "--label-column", "hemorrhage", "--out", str(tmp_path / "out")]
    assert main(["evaluate", str(tiny_models / "tiny" / "1"), *flags]) == 0
    page = capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"evaluation.md", "evaluation.json", "predictions.csv", "roc.png", "errors.png"} <= names
    assert (tmp_path / "out" / "evaluation.md").read_text() == page
    assert "too narrow" in page
    assert "0.05" in page
    assert "19 false alarms" in page
    assert main(["evaluate", str(tiny_models / "tiny" / "1"), *flags]) == 2
    assert "out exists and is not empty" in capsys.readouterr().err
    assert (tmp_path / "out" / "evaluation.md").read_text() == page


@pytest.mark.parametrize(
    ("model", "flags", "message"),
    [
        ("nowhere", [], "nowhere: there is no such file or folder, and it is no HOST:PORT"),
        ("127.0.0.1:1", [], "127.0.0.1:1"),
        (".", [], "no run folder and no model folder"),
        ("", ["--positive", "bleed"], "--positive bleed is not among the labels: normal, stroke"),
        ("", ["--subset", "brain"], "--subset 'brain' is not COLUMN>=NUMBER"),
        ("", ["--subset", "brain>=1"], "has no labels.csv"),
        ("", ["--split", "none.csv"], "none.csv: No such file"),
    ],
)
def test_unusable_input_is_one_line(
    model: str,
    flags: list[str],
    message: str,
    tiny_models: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever is wrong with model, data or flags is one line, and exit code 2."""
    monkeypatch.setattr("client.StrokeClient", partial(StrokeClient, timeout=1))
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", model or str(tiny_models / "tiny" / "1"), "--data", str(scans), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
