"""Figures by subgroup: those of each group alone, intervals over people, and how far the groups are apart."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import encode, make_slice
from training.cli import main
from training.data.labels import ImageSet, list_images
from training.data.subgroups import NOT_KNOWN, read_subgroups
from training.errors import TrainingError
from training.evaluation.figures import Figure, PatientLevel, Predictions, Subgroup, Subgroups
from training.evaluation.measure import Decision, evaluate
from training.evaluation.subgroups import SEVERAL, find_farthest, measure_gap, measure_subgroups
from training.evaluation.summary import from_document, to_document
from training.report.subgroups import describe_subgroups
from training.settings.evaluate import EvaluateConfig

THRESHOLD = 0.5


def make_predictions(people: int = 60, slices: int = 4, seed: int = 4) -> Predictions:
    """Scores that tell the classes apart somewhat; every other person has positive slices."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(people), slices)
    positive = (groups % 2 == 0) & (np.tile(np.arange(slices), people) < slices // 2)
    scores = np.clip(rng.normal(0.45 + 0.2 * positive, 0.2), 0, 1)
    return Predictions(
        files=tuple(f"{index}.png" for index in range(len(groups))),
        scores=scores,
        positive=positive,
        groups=groups,
        trivial=rng.uniform(size=len(groups)),
        has_patients=True,
    )


def take(predictions: Predictions, chosen: np.ndarray) -> Predictions:
    return Predictions(
        tuple(np.array(predictions.files)[chosen]),
        predictions.scores[chosen],
        predictions.positive[chosen],
        np.unique(predictions.groups[chosen], return_inverse=True)[1],
        predictions.trivial[chosen],
        has_patients=True,
    )


def measure(predictions: Predictions, values: list[str]) -> Subgroups:
    (found,) = measure_subgroups(predictions, THRESHOLD, None, {"site": values})
    return found


def test_figures_of_a_group_are_those_of_its_images_alone() -> None:
    """Only the octiles of the matched AUC are those of all images."""
    predictions = make_predictions()
    values = ["A" if group < 40 else "B" for group in predictions.groups]
    found = measure(predictions, values)

    assert [group.value for group in found.groups] == ["A", "B"]
    for group in found.groups:
        alone = take(predictions, np.array(values) == group.value)
        figures = evaluate(alone, Decision(THRESHOLD, ""), model="", data="").slices.figures
        for name in ("auc", "sensitivity", "specificity", "ece"):
            assert group.figures[name].value == pytest.approx(figures[name].value)
            assert group.figures[name].low == pytest.approx(figures[name].low, abs=0.04)
            assert group.figures[name].high == pytest.approx(figures[name].high, abs=0.04)
        assert group.figures["matched_auc"].low < group.figures["matched_auc"].value < group.figures["matched_auc"].high
    assert (found.groups[1].count, found.groups[1].people, found.groups[1].positives) == (80, 20, 20)
    assert found.smallest == "B"


def test_gap_is_the_largest_difference_with_the_interval_of_that_difference() -> None:
    """Three groups; where one of them misses every other stroke, the interval does not hold 0."""
    predictions = make_predictions(people=240)
    values = [("A", "B", "C")[group // 2 % 3] for group in predictions.groups]
    scores = predictions.scores.copy()
    scores[(np.array(values) == "C") & predictions.positive] -= 0.3
    found = measure(replace(predictions, scores=np.clip(scores, 0, 1)), values)

    rates = {group.value: group.figures["sensitivity"].value for group in found.groups}
    gap = found.gaps["sensitivity"]
    assert gap.difference.value == pytest.approx(max(rates.values()) - min(rates.values()))
    assert gap.lowest == "C"
    assert 0 < gap.difference.low < gap.difference.value < gap.difference.high
    assert set(found.gaps) == {"auc", "sensitivity", "specificity"}


def test_people_in_both_groups_are_drawn_together() -> None:
    """A difference between two halves of the same people's slices is surer than that of different people."""
    predictions = make_predictions(people=60, slices=20)
    scores = predictions.scores + np.repeat(np.random.default_rng(1).normal(0, 0.2, 60), 20)
    predictions = replace(predictions, scores=scores)
    within = measure(predictions, ["A" if index % 2 else "B" for index in range(1200)]).gaps["specificity"].difference
    between = (
        measure(predictions, ["A" if index < 600 else "B" for index in range(1200)]).gaps["specificity"].difference
    )

    assert within.high - within.low < 0.7 * (between.high - between.low)


def test_group_of_few_people_has_no_figure() -> None:
    """Not one of what its few slices happen to say; what is missing is told, and counts are not."""
    predictions = make_predictions()
    found = measure(predictions, ["B" if group < 4 else "A" for group in predictions.groups])
    small = found.groups[1]

    assert small.too_few == ("auc", "matched_auc", "sensitivity", "specificity", "ece")
    assert all(math.isnan(figure.value) for figure in small.figures.values())
    assert not found.gaps
    page = "\n".join(describe_subgroups([found]))
    assert "Smallest group of site: **B**, 4 people." in page
    assert "Too small for a figure: B (AUC, matched AUC, sensitivity, specificity, expected calibration error)." in page
    assert "| B | 16 | 4 | 4 | too few people | too few people |" in page


def test_group_of_one_class_has_the_figures_that_it_can_have() -> None:
    """Specificity, without a stroke."""
    predictions = make_predictions()
    found = measure(predictions, ["odd" if group % 2 else "even" for group in predictions.groups])

    assert found.groups[1].too_few == ("auc", "matched_auc", "sensitivity")
    assert set(found.gaps) == {"specificity"}


def test_certainty_is_not_claimed_of_shares_of_one() -> None:
    """All found in both groups: Wilson's interval for each, and Newcombe's for the difference."""
    predictions = make_predictions()
    predictions = replace(predictions, scores=predictions.positive * 0.8)
    found = measure(predictions, ["A" if group < 40 else "B" for group in predictions.groups])

    assert found.groups[1].figures["sensitivity"].low < 0.75  # 10 of 10 people
    gap = found.gaps["sensitivity"].difference
    assert gap.value == 0
    assert gap.low < -0.1 < 0.1 < gap.high


def test_newcombes_interval_is_the_published_one() -> None:
    """10 of 10 against 0 of 10: 0.6075 to 1 (Newcombe 1998, table II, method 10)."""
    wilson = Figure(1.0, 0.7225, 1.0), Figure(0.0, 0.0, 0.2775)
    found = measure_gap("sensitivity", *wilson, np.array([1.0, 1.0]))

    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.6075, abs=1e-3)


def test_farthest_of_one_is_none() -> None:
    """A column of one group has no gap."""
    assert find_farthest([0.5, np.nan]) is None
    assert find_farthest([0.5, 0.1, 0.5, 0.1]) == (0, 3)


def test_people_have_groups_of_their_own() -> None:
    """One whose slices are in several is in a group of such."""
    predictions = make_predictions(people=40)
    whole = evaluate(predictions, Decision(THRESHOLD, "", 2, 0.5), model="", data="")
    values = ["A" if group < 20 or index == 159 else "B" for index, group in enumerate(predictions.groups)]
    assert isinstance(whole.patients, PatientLevel)
    slices, people = measure_subgroups(predictions, THRESHOLD, whole.patients, {"site": values})

    assert (slices.level, people.level) == ("slices", "patients")
    assert {group.value: group.people for group in people.groups} == {"A": 20, "B": 19, SEVERAL: 1}
    assert "matched_auc" not in people.groups[0].figures


def test_document_is_read_back() -> None:
    """What has no figure as well."""
    predictions = make_predictions()
    whole = evaluate(predictions, Decision(THRESHOLD, "", 2, 0.5), model="", data="")
    values = ["B" if group < 4 else "A" for group in predictions.groups]
    groups = measure_subgroups(predictions, THRESHOLD, whole.patients, {"site": values})
    document = json.loads(json.dumps(to_document(replace(whole, subgroups=groups)), allow_nan=False))

    assert repr(from_document(document).subgroups) == repr(groups)
    assert "subgroups" not in to_document(whole)


def write_table(root: Path, header: str, rows: list[str]) -> ImageSet:
    root.mkdir(exist_ok=True)
    for index in range(len(rows)):
        (root / f"{index}.png").write_bytes(b"")
    lines = [f"{index}.png,{index % 2},P{index // 2},{row}" for index, row in enumerate(rows)]
    (root / "labels.csv").write_text("\n".join([f"file,label,patient,{header}", *lines]) + "\n")
    return list_images(root)


def test_empty_cell_is_a_group_and_case_makes_none(tmp_path: Path) -> None:
    """In the spelling that comes first."""
    images = write_table(tmp_path, "sex", ["F", "f", "M", "", " m ", "F"])

    assert read_subgroups(images, ("sex",)) == {"sex": ["F", "F", "M", NOT_KNOWN, "M", "F"]}


@pytest.mark.parametrize(
    ("column", "rows", "message"),
    [
        ("age", [str(age) for age in range(40)], "the column age, which --subgroup names, says 40 different things"),
        ("mrn", ["7", "7", "8", "8", "9", "9"], "the column mrn, .* says something else of each person"),
        ("note", ["x" * 200, "y", "x", "y"], "the column note, .* has texts of more than"),
        ("Patient", ["A", "B"], "--subgroup Patient would make a group of each Patient"),
        ("site", None, "has no column site"),
    ],
)
def test_column_that_makes_no_groups_is_refused(
    tmp_path: Path, column: str, rows: list[str] | None, message: str
) -> None:
    """Numbers, names and essays; the column is named."""
    images = write_table(tmp_path, column if rows else "sex", rows or ["F", "M"])
    with pytest.raises(TrainingError, match=message):
        read_subgroups(images, (column,))


def test_rows_of_one_image_must_agree(tmp_path: Path) -> None:
    """On what is asked about."""
    images = write_table(tmp_path, "sex", ["F", "M", "F", "M"])
    with (tmp_path / "labels.csv").open("a") as stream:
        stream.write("0.png,0,P0,M\n")
    with pytest.raises(TrainingError, match=r"line 6: 0\.png is there already, with another sex"):
        read_subgroups(images, ("sex",))


def test_too_many_columns_are_refused(tmp_path: Path) -> None:
    """A model card has an end."""
    with pytest.raises(ValueError, match="--subgroup takes at most 6 columns"):
        EvaluateConfig(model="m", data=tmp_path, subgroup=tuple("abcdefg"))


def test_evaluation_says_every_figure_by_group(
    tiny_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In JSON, on the page, and in the tables for a statistician; hostile names of groups are text."""
    root = tmp_path / "scans"
    root.mkdir()
    rows = []
    for index in range(48):
        name = f"{index}.png"
        stroke = index % 2
        (root / name).write_bytes(encode(make_slice(100 + 2 * (index % 12) + 20 * stroke, seed=index)))
        rows.append(
            [name, ("normal", "stroke")[stroke], f"P{index // 2}", "<b>|A" if index < 24 else "B", "F" * stroke]
        )
    with (root / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "label", "patient", "site", "sex"], *rows])
    out = tmp_path / "out"
    flags = ["--data", str(root), "--subgroup", "site,sex", "--out", str(out), "--json"]
    assert main(["evaluate", str(tiny_models / "tiny" / "1"), *flags]) == 0

    whole = json.loads(capsys.readouterr().out)["evaluations"]["all images"]
    assert [(one["column"], one["level"]) for one in whole["subgroups"]] == [
        ("site", "slices"),
        ("site", "patients"),
        ("sex", "slices"),
        ("sex", "patients"),
    ]
    site, _, sex, people = whole["subgroups"]
    assert [group["value"] for group in site["groups"]] == ["<b>|A", "B"]
    assert [group["value"] for group in sex["groups"]] == ["F", NOT_KNOWN]
    assert [group["value"] for group in people["groups"]] == [SEVERAL]
    page, html = (out / "evaluation.md").read_text(), (out / "evaluation.html").read_text()
    assert "| &lt;b&gt;\\|A | 24 | 12 | 12 |" in page
    assert "fairness gap, site, slices" in page
    assert "<b>" not in html.split("<body>")[-1]
    with (out / "predictions.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["subgroup_site"] for line in lines] == [row[3] for row in sorted(rows, key=lambda row: row[0])]


def test_too_few_of_every_group_is_no_error() -> None:
    """Then there is a table of counts."""
    predictions = make_predictions(people=4)
    found = measure(predictions, ["A" if group < 2 else "B" for group in predictions.groups])

    assert not found.gaps
    assert all(isinstance(group, Subgroup) and group.too_few for group in found.groups)
