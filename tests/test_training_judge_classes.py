"""``python -m training evaluate`` and ``threshold`` of a model that tells three classes apart."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from server.models.contract import ModelSpec
from tests.fakes import build_tiny_graph, encode, make_slice, run_server, write_model
from tests.test_training_judge import ask, flatten
from training.cli import main

LABELS = ("haemorrhage", "ischaemia", "normal")
SPEC = ModelSpec("three", "1", LABELS, LABELS[:2], 0.6, checks="none")
GAIN = 0.1
LEVELS = {"haemorrhage": range(128, 168, 5), "ischaemia": range(52, 92, 5), "normal": range(84, 132, 3)}
"""Mean grey levels of the slices, two of each person; the classes overlap a little."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes bright slices for bleeds, and dark ones for infarcts."""
    graph = build_tiny_graph(SPEC)
    values = {"weights": np.array([[GAIN, -GAIN, 0]]), "bias": GAIN * np.array([-125.0, 95.0, 0.0])}
    for tensor in graph.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name].astype(np.float32), tensor.name))
    return write_model(tmp_path_factory.mktemp("models"), SPEC, graph.SerializeToString())


def write_scans(root: Path, names: dict[str, str]) -> Path:
    """Slices of the three classes in folders that are called as ``names`` says."""
    for label, levels in LEVELS.items():
        folder = root / names.get(label, label)
        folder.mkdir(parents=True, exist_ok=True)
        for index, level in enumerate(levels):
            name = f"{label[0]}{index // 2} ({index}).png"
            (folder / name).write_bytes(encode(make_slice(level, seed=level + 1000 * LABELS.index(label))))
    return root


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The labels are the model's but for their case."""
    return write_scans(tmp_path_factory.mktemp("three") / "scans", {"ischaemia": "Ischaemia"})


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("blank_plots")
def test_every_class_has_figures(model: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model's own positive labels are found in data that have its labels; page, JSON and CSV say each class."""
    out = tmp_path / "out"
    found = ask(capsys, model, scans, "--out", str(out))["evaluations"]["all images"]
    classes = found["classes"]
    rows = read_rows(out / "predictions.csv")
    assert classes["labels"] == list(LABELS)
    assert [sum(row) for row in classes["confusion"]] == [8, 8, 16]
    assert found["slices"]["positives"] == 16
    assert all(0.8 < one["auc"]["value"] <= 1 for one in classes["figures"])
    counted = [[0] * 3 for _ in LABELS]
    for row in rows:
        counted[LABELS.index(row["label"])][LABELS.index(row["answered"])] += 1
        parts = [float(row[f"probability_{label}"]) for label in LABELS]
        assert float(row["probability"]) == pytest.approx(parts[0] + parts[1], abs=2e-6)
        assert (row["answered"] in LABELS[:2]) == (row["answered_positive"] == "1")
    assert counted == classes["confusion"]
    page = (out / "evaluation.md").read_text("utf-8")
    assert "haemorrhage or ischaemia is answered where their probabilities together exceed 0.6" in page
    assert "| ischaemia (positive) | 8 |" in page
    assert (out / "classes.png").exists()


def test_running_server_has_the_figures_of_the_folder(
    model: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels, positive labels and each probability come from the server's answers."""
    with run_server(model.parent.parent) as server:
        asked = ask(capsys, server.address, scans)["evaluations"]["all images"]
    found = ask(capsys, model, scans)["evaluations"]["all images"]
    assert asked["classes"]["confusion"] == found["classes"]["confusion"]
    assert flatten(asked["classes"]["overall"]) == pytest.approx(flatten(found["classes"]["overall"]), abs=1e-6)
    assert flatten(asked["slices"]) == pytest.approx(flatten(found["slices"]), abs=1e-6)


def test_data_of_two_labels_are_judged_by_the_positive_set(
    model: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the data say only stroke or not, the figures are those of the labels together, and the page says so."""
    two = write_scans(tmp_path / "two", {"haemorrhage": "stroke", "ischaemia": "stroke"})
    three = ask(capsys, model, scans)["evaluations"]["all images"]
    found = ask(capsys, model, two)["evaluations"]["all images"]
    assert "classes" not in found
    figures = [{name: one["value"] for name, one in each["slices"]["figures"].items()} for each in (found, three)]
    assert figures[0] == pytest.approx(figures[1])
    assert any("its positive labels are judged together" in warning for warning in found["warnings"])
    assert not any("judged together" in warning for warning in three["warnings"])


def test_a_subset_has_classes_of_its_own(
    model: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A class that is not among some of the images is not defined there."""
    table = tmp_path / "table"
    table.mkdir()
    rows = []
    for index, path in enumerate(sorted(scans.rglob("*.png"))):
        (table / f"{index}.png").write_bytes(path.read_bytes())
        rows.append([f"{index}.png", path.parent.name, path.name.split()[0], int(path.parent.name != "Ischaemia")])
    with (table / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "label", "patient", "kept"], *rows])
    found: dict[str, Any] = ask(capsys, model, table, "--subset", "kept=1")["evaluations"]
    assert [sum(row) for row in found["kept=1"]["classes"]["confusion"]] == [8, 0, 16]
    assert found["kept=1"]["classes"]["figures"][1]["sensitivity"]["value"] is None
    assert found["all images"]["classes"]["figures"][1]["sensitivity"]["value"] > 0


def test_labels_that_are_named_come_first(model: Path, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--positive`` says what counts as positive in the data; a label that they lack is refused."""
    found = ask(capsys, model, scans, "--positive", "haemorrhage")["evaluations"]["all images"]
    assert found["slices"]["positives"] == 8
    assert main(["evaluate", str(model), "--data", str(scans), "--positive", "haemorrhage", "tumour"]) == 2
    assert "--positive tumour is not among the labels" in capsys.readouterr().err


def test_studies_are_judged_by_the_positive_set(model: Path, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rule for studies is chosen on the score of all positive labels."""
    assert main(["threshold", str(model), "--data", str(scans), "--sensitivity", "0.95", "--dry-run", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    studies = next(of for title, of in figures.items() if title.startswith("studies"))
    assert (studies["people"], studies["positives"]) == (16, 8)
    assert studies["figures"]["sensitivity"]["second"]["value"] >= 0.95
