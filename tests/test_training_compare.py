"""``python -m training compare``: two models on the same images."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.models.contract import ModelSpec
from tests.fakes import ServerProcess, build_tiny_model, encode, make_slice, write_model
from training.cli import main

SPEC = ModelSpec("tiny", "1", ("normal", "stroke"), ("stroke",), 0.5)
PEOPLE, SLICES = 24, 3


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slices of each of 24 people, brighter where there is a stroke, and one damaged file."""
    root = tmp_path_factory.mktemp("compare") / "scans"
    rng = np.random.default_rng(5)
    rows: list[list[object]] = []
    root.mkdir()
    for person in range(PEOPLE):
        label = ("normal", "stroke")[person % 2]
        for turn in range(SLICES):
            file = f"{person}-{turn}.png"
            level = int(rng.integers(105, 140) + 12 * (label == "stroke"))
            (root / file).write_bytes(encode(make_slice(level, seed=person * 10 + turn)))
            rows.append([file, label, f"P{person}", turn])
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rows.append(["broken.png", "normal", "P0", 0])
    with (root / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "label", "patient", "turn"], *rows])
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1: knows strokes; 2: the same with a rule for studies and another threshold; 3: takes bright for normal."""
    root = tmp_path_factory.mktemp("models")
    write_model(root, SPEC)
    write_model(root, replace(SPEC, version="2", threshold=0.6, study_top_k=2, study_threshold=0.7))
    third = replace(SPEC, version="3")
    write_model(root, third, build_tiny_model(third, gain=-0.05))
    return root / "tiny"


def compare(capsys: pytest.CaptureFixture[str], first: object, second: object, data: Path, *flags: str) -> Any:
    assert main(["compare", str(first), str(second), "--data", str(data), "--json", *flags]) == 0
    return json.loads(capsys.readouterr().out)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_better_model_is_named(scans: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the interval of the difference over people, since they have several slices."""
    found = compare(capsys, models / "3", models / "1", scans)
    slices, people = found["comparisons"].values()
    assert found["conclusion"].startswith("B ranks better than A (AUC +0.")
    assert "bootstrap over people" in found["conclusion"]
    assert (slices["count"], slices["people"], slices["auc_test"]) == (72, 24, "bootstrap over people")
    assert (people["count"], people["people"], people["auc_test"]) == (24, 24, "delong")
    auc = slices["figures"]["auc"]
    assert auc["difference"]["value"] == pytest.approx(auc["second"]["value"] - auc["first"]["value"])
    assert auc["difference"]["low"] > 0
    assert list(found["refused"]) == ["broken.png"]


def test_order_turns_the_sign(scans: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same figures, seen from the other side."""
    there, back = (
        compare(capsys, *pair, scans)["comparisons"]["all images"]
        for pair in ((models / "1", models / "3"), (models / "3", models / "1"))
    )
    for name in there["figures"]:
        assert there["figures"][name]["first"] == pytest.approx(back["figures"][name]["second"])
        assert there["figures"][name]["difference"]["value"] == pytest.approx(
            -back["figures"][name]["difference"]["value"]
        )
    assert there["positive_changes"]["only_first_right"] == back["positive_changes"]["only_second_right"]


def test_threshold_alone_is_no_better_ranking(scans: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each decides with its own, of slices and of people, and what changed by that is counted."""
    found = compare(capsys, models / "1", models / "2", scans)
    slices = found["comparisons"]["all images"]
    assert slices["thresholds"] == [0.5, 0.6]
    assert found["comparisons"]["people"]["thresholds"] == [0.5, 0.7]
    assert slices["figures"]["auc"]["difference"] == {"value": 0, "low": 0, "high": 0}
    assert "No difference between A and B was found" in found["conclusion"]
    assert slices["positive_changes"]["only_first_right"] > 0 == slices["positive_changes"]["only_second_right"]
    assert slices["negative_changes"]["only_second_right"] > 0 == slices["negative_changes"]["only_first_right"]


def test_server_is_compared_as_its_folder(
    tiny_models: Path, tiny_server: ServerProcess, scans: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever evaluate takes."""
    by_server = compare(capsys, models / "3", tiny_server.address, scans)["comparisons"]
    by_folder = compare(capsys, models / "3", tiny_models / "tiny" / "1", scans)["comparisons"]
    for title in by_server:
        for name, pair in by_server[title]["figures"].items():
            assert pair["difference"] == pytest.approx(by_folder[title]["figures"][name]["difference"], abs=1e-6)


def test_flags_of_evaluate_mean_the_same(scans: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A subset has a table of its own; and where each image is another person's, DeLong's test is the one that
    counts."""
    found = compare(capsys, models / "1", models / "3", scans, "--subset", "turn<=1")
    assert found["comparisons"]["turn<=1"]["count"] == 48
    assert set(found["comparisons"]) == {"all images", "people", "turn<=1"}
    rows = read_rows(scans / "labels.csv")
    alone = scans.parent / "alone"
    alone.mkdir()
    (alone / "data").symlink_to(scans)
    with (alone / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "label"], *([f"data/{row['file']}", row["label"]] for row in rows[:-1])])
    found = compare(capsys, models / "1", models / "3", alone, "--one-image-per-patient")
    assert found["comparisons"]["all images"]["auc_test"] == "delong"
    assert "DeLong" in found["conclusion"]


def test_out_has_page_numbers_and_answers(
    scans: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page that is printed, and what a statistician needs to compute it again; nothing is written over."""
    command = ["compare", str(models / "1"), str(models / "2"), "--data", str(scans), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    page = capsys.readouterr().out
    assert (tmp_path / "out" / "comparison.md").read_text() == page
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "answers.csv",
        "comparison.json",
        "comparison.md",
        "people.csv",
    ]
    assert "the bootstrap above is what counts" in page
    assert "## Refused images" in page
    document = json.loads((tmp_path / "out" / "comparison.json").read_text())
    rows = read_rows(tmp_path / "out" / "answers.csv")
    changed = sum(row["positive"] == "1" and row["answered_positive_a"] != row["answered_positive_b"] for row in rows)
    assert changed == document["comparisons"]["all images"]["positive_changes"]["only_first_right"]
    people = read_rows(tmp_path / "out" / "people.csv")
    assert len(people) == PEOPLE
    assert {row["slices"] for row in people} == {"3"}
    assert main(command) == 2
    assert "out exists and is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("second", "flags", "message"),
    [
        ("nowhere", [], "nowhere: there is no such file or folder, and it is no HOST:PORT"),
        ("", ["--subset", "turn>5"], "turn>5: there are no images"),
    ],
)
def test_unusable_input_is_one_line(
    second: str, flags: list[str], message: str, scans: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model, a label, a subset."""
    command = ["compare", str(models / "1"), second or str(models / "3"), "--data", str(scans), *flags]
    assert main(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error
    assert error.startswith("error: ")
