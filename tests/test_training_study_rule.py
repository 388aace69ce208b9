"""``python -m training study-rule``: how studies are to be judged, chosen on labelled ones and measured on others."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server.models.contract import ModelSpec
from server.models.runtime import Scores
from tests.fakes import encode, make_slice, write_model
from training.cli import main
from training.data.format import INPUT_FORMAT
from training.judge.study_rule import judge_slice

SPEC = ModelSpec("tiny", "1", ("normal", "stroke"), ("stroke",), 0.5)
SLICES = 6


def make_head(level: int, seed: int = 0, side: int = 96) -> np.ndarray:
    """A slice that could be a head: brain of a grey level within bone, on black ground; uint8 [side, side]."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    radius = np.hypot(x / 0.75, y / 0.9)
    return np.select([radius < 0.9, radius < 1], [make_slice(level, side, seed).astype(int), 255]).astype(np.uint8)


def write_studies(root: Path, seed: int, patients: int = 12) -> Path:
    """Studies of six slices; of every other patient two are bright, and of all one is a little, by chance."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        (root / f"{patient}").mkdir(parents=True)
        for turn in range(SLICES):
            is_stroke = patient % 2 == 1 and turn in (2, 3)
            level = int(rng.integers(110, 125) if is_stroke else 98 if turn == 5 else rng.integers(70, 85))
            file = f"{patient}/{turn}.png"
            (root / file).write_bytes(encode(make_head(level, seed=seed * 1000 + patient * 10 + turn)))
            rows.append([file, "stroke" if is_stroke else "normal", f"P{patient}"])
    write_table(root, rows)
    return root


def write_table(root: Path, rows: list[list[str]], *columns: str) -> None:
    with (root / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "label", "patient", *columns], *rows])


def read_rows(root: Path) -> list[list[str]]:
    with (root / "labels.csv").open(newline="") as stream:
        return list(csv.reader(stream))[1:]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_studies(tmp_path_factory.mktemp("studies") / "validation", seed=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models"), SPEC)


def choose(capsys: pytest.CaptureFixture[str], model: Path, data: Path, *flags: str) -> dict[str, Any]:
    assert main(["study-rule", str(model), "--data", str(data), "--json", *flags]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_rule_is_what_a_spec_takes(studies: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A number of slices and a threshold between the studies with and without a stroke, which these tell apart."""
    document = choose(capsys, model, studies)
    spec = ModelSpec(
        **{name: getattr(SPEC, name) for name in ("name", "version", "labels", "positive_labels", "threshold")},
        study_top_k=document["study_top_k"],
        study_threshold=document["study_threshold"],
    )
    assert spec.study_top_k >= 1
    figures = document["chosen_on"]["figures"]
    assert (document["chosen_on"]["count"], document["chosen_on"]["positives"]) == (12, 6)
    assert figures["sensitivity"]["value"] == figures["specificity"]["value"] == figures["auc"]["value"] == 1
    assert figures["sensitivity"]["low"] < 0.7  # of six studies


def test_figures_on_other_studies_are_beside_those_that_chose(
    studies: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As text: what to give to the converter, and one line for each set."""
    others = write_studies(tmp_path / "others", seed=2, patients=10)
    assert main(["study-rule", str(model), "--data", str(studies), "--test", str(others)]) == 0
    top_k, threshold, chosen, other = capsys.readouterr().out.splitlines()
    document = choose(capsys, model, studies)
    assert top_k == f"study_top_k {document['study_top_k']}"
    assert threshold == f"study_threshold {document['study_threshold']:.6g}"
    assert chosen.startswith("chosen on validation: 12 studies, 6 positive: sensitivity 1.000 (")
    assert other.startswith("on others others: 10 studies, 5 positive: sensitivity 1.000 (")


def test_less_sensitivity_is_a_higher_threshold(studies: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--sensitivity says what share of the positive studies is to be found at least."""
    high, low = (choose(capsys, model, studies, "--sensitivity", share) for share in ("0.99", "0.5"))
    assert low["study_threshold"] > high["study_threshold"]
    assert low["chosen_on"]["figures"]["sensitivity"]["value"] >= 0.5


def test_slices_that_a_server_would_not_analyse_have_no_part(
    studies: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blank, inverted and damaged ones: the rule stays what it is without them, and they are counted."""
    before = choose(capsys, model, studies)
    (tmp_path / "data").symlink_to(studies)
    rows = [[f"data/{file}", label, patient] for file, label, patient in read_rows(studies)]
    (tmp_path / "blank.png").write_bytes(encode(np.full((64, 64), 200, np.uint8)))
    (tmp_path / "inverted.png").write_bytes(encode(255 - make_head(100)))
    (tmp_path / "damaged.png").write_bytes(encode(make_head(100))[:-20])
    write_table(tmp_path, [*rows, *([f"{name}.png", "normal", "P0"] for name in ("blank", "inverted", "damaged"))])
    after = choose(capsys, model, tmp_path)
    assert after["chosen_on"].pop("slices_left_out") == 3
    assert before["chosen_on"].pop("slices_left_out") == 0
    assert {**after["chosen_on"], "data": ""} == {**before["chosen_on"], "data": ""}
    assert main(["study-rule", str(model), "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("; 3 slices not analysed")


@pytest.mark.parametrize(
    ("probability", "outlier", "refusal"),
    [
        (0.9, 0.5, ""),
        (0.9, 2.5, "unlike those that the model knows"),
        (0.52, 0.5, "too near to the threshold"),
        (0.56, 0.5, ""),
    ],
)
def test_slices_that_the_model_itself_does_not_answer_have_no_part(
    tmp_path: Path, probability: float, outlier: float, refusal: str
) -> None:
    """As a server judges by the limits of the spec."""
    (tmp_path / "a.png").write_bytes(encode(make_head(80)))
    said = Scores(np.array([[1 - probability, probability]], np.float32), np.array([outlier], np.float32))
    model = SimpleNamespace(
        spec=replace(SPEC, outlier_threshold=2.0, indeterminate_margin=0.05),
        input_format=INPUT_FORMAT,
        score=lambda pixels: said,
    )
    answer = judge_slice(tmp_path / "a.png", model)  # type: ignore[arg-type]
    assert refusal in answer.refusal
    assert bool(answer.refusal) == bool(refusal) == np.isnan(answer.score)


def test_two_studies_of_a_person_are_two(
    studies: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the table tells studies; where it does not, a person's slices are one."""
    (tmp_path / "data").symlink_to(studies)
    rows = [
        [f"data/{file}", label, f"P{int(patient[1:]) // 2}", patient] for file, label, patient in read_rows(studies)
    ]
    write_table(tmp_path, rows, "study")
    assert choose(capsys, model, tmp_path)["chosen_on"]["count"] == 12
    only = [row[:3] for row in rows if row[2] != "P0"]
    write_table(tmp_path, [*only, ["data/0/1.png", "normal", "P9"], ["data/0/2.png", "normal", "P9"]])
    assert choose(capsys, model, tmp_path)["chosen_on"]["count"] == 6


def test_no_rule_where_none_can_be_chosen(
    studies: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line: one slice a study, one class, nobody known, no model."""
    (tmp_path / "data").symlink_to(studies)
    rows = [[f"data/{file}", label, file] for file, label, _ in read_rows(studies)]
    write_table(tmp_path, rows)
    refused = ["study-rule", str(model), "--data"]
    assert main([*refused, str(tmp_path)]) == 2
    assert "has no two slices of a study" in capsys.readouterr().err
    write_table(tmp_path, [[file, label, "P1"] for file, label, _ in rows])
    assert main([*refused, str(tmp_path)]) == 2
    assert "are all of one class" in capsys.readouterr().err
    write_table(tmp_path, [[file, label, ""] for file, label, _ in rows])
    assert main([*refused, str(tmp_path)]) == 2
    assert "it is not known which slices are of one study" in capsys.readouterr().err
    for path in sorted((tmp_path / "data").glob("*/*.png")):
        (tmp_path / f"{path.parent.name}-{path.name}").write_bytes(b"no image")
    write_table(tmp_path, [[file.removeprefix("data/").replace("/", "-"), label, "P1"] for file, label, _ in rows])
    assert main([*refused, str(tmp_path)]) == 2
    assert "no slice could be judged; the first: The file is" in capsys.readouterr().err
    assert main(["study-rule", str(tmp_path / "none"), "--data", str(studies)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
