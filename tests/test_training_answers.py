"""A run on a data set that brings a leaking split and subgroups: what every page says of them, and every answer."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from server.models.contract import ModelSpec
from tests.test_training_data import write_discs
from training.cli import main
from training.evaluation.summary import from_document
from training.report.answers import complete_probabilities

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("blank_plots")]

TRAIN, VALIDATION, PATIENTS = 14, 20, 42
LEAK = "3 of 44 test images known"


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """42 patients of two slices; one is in train and test, and a slice of test is a copy, another a near-copy."""
    root = write_discs(tmp_path_factory.mktemp("answers") / "scans", patients=PATIENTS, slices=2, size=64)
    (root / "stroke" / "23 (1).png").write_bytes((root / "stroke" / "3 (1).png").read_bytes())
    pixels = np.asarray(Image.open(root / "normal" / "4 (1).png"))
    Image.fromarray(np.clip(pixels * 1.1, 0, 255).astype(np.uint8)).save(root / "normal" / "24 (1).png")
    rows = []
    for path in sorted(root.rglob("*.png")):
        number = int(path.stem.split(" ")[0])
        part = "train" if number < TRAIN else "val" if number < VALIDATION else "test"
        patient = "P3" if path.name == "25 (2).png" else f"P{number}"
        sex = ("F", "M")[number // 2 % 2] if number < 40 else ""
        rows.append([path.relative_to(root).as_posix(), path.parent.name, patient, part, sex])
    with (root / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "label", "patient", "split", "sex"], *rows])
    return root


@pytest.fixture(scope="module")
def told(scans: Path) -> tuple[Path, str]:
    """The folder of a run with the split as it is given, and what was on the terminal."""
    run = scans.parent / "run"
    flags = ["--split", "given", "--subgroup", "sex", "--epochs", "1", "--batch-size", "8"]
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("sys.stderr.write", lines.append, raising=False)
        assert main(["--data", str(scans), "--out", str(run), *flags]) == 0
    return run, "".join(lines)


@pytest.fixture(scope="module")
def run(told: tuple[Path, str]) -> Path:
    return told[0]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_refused_unless_it_is_asked_for(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the ways out, and nothing is left."""
    assert main(["--data", str(scans), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "leaks, and figures on such a split mean little" in error
    assert "--split given takes it as it is" in error
    assert not list(tmp_path.iterdir())


def test_finding_is_on_the_terminal_with_examples(told: tuple[Path, str]) -> None:
    """Before the training, so that it can be stopped."""
    assert "It LEAKS: in two parts of it are 1 patient and 1 file (byte for byte) and 1 pair of images of" in told[1]
    assert "  1 file (byte for byte): stroke/23 (1).png and stroke/3 (1).png" in told[1]
    assert "the split leaks, see above" in told[1].splitlines()[-1]


def test_finding_stands_beside_every_headline(run: Path) -> None:
    """In both forms of the report and in the card, with the figure of the test images that are not known."""
    for name in ("report.md", "model_card.md"):
        page = (run / name).read_text()
        headlines = [line for line in page.splitlines() if re.match(r"\| (slices|patients): \*\*", line)]
        assert len(headlines) == 9
        assert all(LEAK in line for line in headlines)
        assert "on the others" in headlines[0]
        assert "On the 41 test images that are not known from training or validation" in page
    assert LEAK in (run / "report.html").read_text()
    assert "stroke/23 (1).png and stroke/3 (1).png" in (run / "report.md").read_text()


def test_what_travels_with_the_model_names_nobody(run: Path) -> None:
    """Card and spec count what leaks."""
    for text in ((run / "model_card.md").read_text(), (run / "spec.json").read_text()):
        assert "LEAKS" in text
        assert not re.search(r"\(\d\)\.png|\bP\d+\b", text)


def test_finding_is_in_the_numbers(run: Path) -> None:
    """For machines, and read back for the card."""
    document = json.loads((run / "metrics.json").read_text())["evaluation"]
    check = document["own_split"]["check"]
    assert (check["known"], check["test"], check["patients"]["count"]) == (3, 44, 1)
    summary = from_document(document)
    assert summary.own_split is not None
    assert summary.own_split.check.leaks
    assert summary.own_split.others is not None
    assert summary.own_split.others.count == 41


def test_flags_repeat_the_run(run: Path) -> None:
    """Those of the split and of the subgroups are among them."""
    flags = ModelSpec.from_json((run / "spec.json").read_text()).provenance["flags"]
    assert "--split given" in flags
    assert "--subgroup sex" in flags


def test_subgroups_are_in_report_and_card(run: Path) -> None:
    """With the smallest and the gap; two people whose sex is not known are a group."""
    for name in ("report.md", "model_card.md"):
        page = (run / name).read_text()
        assert "| sex, slices | count | people | positive | AUC |" in page
        assert "fairness gap, sex, slices" in page
        assert "Smallest group of sex: **not known**, 2 people." in page
        assert "Too small for a figure: not known" in page
    assert "fairness gap, sex, slices" in (run / "report.html").read_text()
    groups = json.loads((run / "metrics.json").read_text())["evaluation"]["subgroups"][0]["groups"]
    assert [group["value"] for group in groups] == ["F", "M", "not known"]


def test_every_slice_has_a_line_from_which_the_figures_follow(run: Path) -> None:
    """Whoever computes them anew finds the same."""
    rows = read_csv(run / "predictions.csv")
    assert list(rows[0]) == [
        *("file", "patient", "label", "positive", "part", "fold", "probability", "answered", "answered_positive"),
        *("probability_normal", "probability_stroke", "trivial", "subgroup_sex"),
    ]
    assert len(rows) == 44
    assert {row["part"] for row in rows} == {"test"}
    for row in rows:
        assert float(row["probability_normal"]) + float(row["probability_stroke"]) == pytest.approx(1)
        assert row["probability"] == row["probability_stroke"]
        assert (row["label"] == "stroke") == (row["positive"] == "1")
        assert (row["answered"] == "stroke") == (row["answered_positive"] == "1")
    document = json.loads((run / "metrics.json").read_text())["evaluation"]
    assert share(rows) == pytest.approx(document["slices"]["figures"]["sensitivity"]["value"])
    women = document["subgroups"][0]["groups"][0]
    assert share([row for row in rows if row["subgroup_sex"] == "F"]) == pytest.approx(
        women["figures"]["sensitivity"]["value"]
    )


def share(rows: list[dict[str, str]]) -> float:
    return float(np.mean([row["answered_positive"] == "1" for row in rows if row["positive"] == "1"]))


def test_every_patient_has_a_line_with_the_slices_that_decided(run: Path) -> None:
    """The mean of the highest, as the rule says; patients of one group are in one line."""
    slices = {row["file"]: float(row["probability"]) for row in read_csv(run / "predictions.csv")}
    rows = read_csv(run / "patients.csv")
    spec = ModelSpec.from_json((run / "spec.json").read_text())
    figures = json.loads((run / "metrics.json").read_text())["evaluation"]["patients"]
    assert len(rows) == figures["count"]
    for row in rows:
        files = row["deciding_files"].split(" | ")
        assert len(files) == min(spec.study_top_k, int(row["slices"]))
        assert np.mean([slices[file] for file in files]) == pytest.approx(float(row["probability"]))
        assert (float(row["probability"]) > float(row["threshold"])) == (row["answered_positive"] == "1")
    assert share(rows) == pytest.approx(figures["figures"]["sensitivity"]["value"])
    assert {row["subgroup_sex"] for row in rows} >= {"F", "M", "not known"}


def test_own_split_of_an_evaluation_is_its_test_part(
    run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures of the run again, with a warning of what is known from training."""
    flags = ["--data", str(scans), "--split", "given", "--subgroup", "sex", "--out", str(tmp_path / "out")]
    assert main(["evaluate", str(run), *flags]) == 0
    page = capsys.readouterr().out
    assert "WARNING: 1 of the images were used in training or validation: leakage." in page
    assert "WARNING: 1 of the images show patients of training or validation: leakage." in page
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())["evaluations"]["all images"]
    trained = json.loads((run / "metrics.json").read_text())["evaluation"]
    for name in ("auc", "sensitivity", "specificity"):
        assert evaluation["slices"]["figures"][name]["value"] == pytest.approx(
            trained["slices"]["figures"][name]["value"]
        )
    assert {row["part"] for row in read_csv(tmp_path / "out" / "predictions.csv")} == {"test"}
    assert len(read_csv(tmp_path / "out" / "patients.csv")) == evaluation["patients"]["count"]


def test_two_classes_are_told_by_one_score() -> None:
    """Whichever of them is the positive one."""
    scores = np.array([0.25, 1.0])
    assert complete_probabilities(scores, ("stroke", "normal"), np.array([0])).tolist() == [[0.25, 0.75], [1.0, 0.0]]
