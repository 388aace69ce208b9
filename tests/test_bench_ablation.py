"""The ablation: AUCs and their differences, what is run again and what is not, and the page."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.training import ablation
from bench.training import ablation_page as report_ablation
from bench.training.ablation import Plan, run_variants
from bench.training.ablation_judge import HeldOut, count_false_positives, judge_scores, read_slices, score_trivially
from bench.training.ablation_page import plot_curves, render_ablation
from bench.training.ablation_variants import VARIANTS
from bench.training.auc import compare_aucs, estimate_auc
from server.flags import LineParser, parse_settings
from tests.fakes import ROOT, make_slice
from tests.test_bench_report import MACHINE
from training.settings.phantom import PhantomConfig
from training.settings.train import TrainConfig


def draw_scores(shift: float, count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Normal scores whose positive half is higher by ``shift``, and which are positive."""
    positive = np.arange(count) % 2 == 1
    return np.random.default_rng(seed).normal(shift * positive, 1.0), positive


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    """Ties count half: of the pairs (3, 1), (3, 2), (2, 1), (2, 2) three and a half are."""
    auc, low, high = estimate_auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True]))

    assert auc == 3.5 / 4
    assert low < auc < high


def test_interval_holds_the_true_auc_as_often_as_it_says() -> None:
    """Of 300 drawn sets about 285 have the true AUC, 0.760, in their 95 % interval."""
    inside = 0
    for seed in range(300):
        _, low, high = estimate_auc(*draw_scores(1.0, seed=seed))
        inside += low <= 0.7602 <= high

    assert 275 <= inside <= 295


def test_difference_on_the_same_slices_is_surer_than_two_aucs() -> None:
    """A model that is a little worse on every slice alike is told from the other, though both intervals overlap."""
    scores, positive = draw_scores(1.0)
    worse = scores + np.random.default_rng(1).normal(0, 0.5, len(scores))

    difference, low, high = compare_aucs(worse, scores, positive)
    _, base_low, base_high = estimate_auc(scores, positive)

    assert difference == pytest.approx(estimate_auc(worse, positive)[0] - estimate_auc(scores, positive)[0])
    assert high - low < 0.6 * (base_high - base_low)


def test_false_positives_are_counted_at_the_same_rate_for_every_variant() -> None:
    """One of ten normal slices is called stroke, whatever the scores are; here it is the one with the clip."""
    scores = np.array([*np.linspace(0.9, 0.99, 9), 0.995, 0.2])
    positive = np.array([False] * 10 + [True])
    findings = [frozenset({"streaks"})] * 9 + [frozenset({"metal"})] + [frozenset({"metal"})]

    assert count_false_positives(scores, positive, findings) == {"metal": [1, 1], "streaks": [0, 9]}
    assert count_false_positives(scores / 100, positive, findings) == {"metal": [1, 1], "streaks": [0, 9]}


def test_every_variant_is_made_of_flags_that_exist(tmp_path: Path) -> None:
    """A variant that fails after the others would be found out after hours."""
    plan = Plan(count=60, test_count=40, epochs=1)
    for variant in VARIANTS.values():
        for config, flags in (
            (TrainConfig, ["--data", "d", *plan.list_training_flags(variant, seed=7)]),
            (PhantomConfig, plan.list_phantom_flags(variant)),
        ):
            parse_settings(LineParser("bench", "a variant"), config, ["--out", str(tmp_path), *flags])


def test_variants_differ_from_each_other() -> None:
    """Two that are the same would cost hours and show nothing."""
    plan = Plan(count=60, test_count=40, epochs=1)

    assert len({plan.describe(variant, seed=7) for variant in VARIANTS.values()}) == len(VARIANTS)


@pytest.fixture
def calls() -> list[str]:
    """The variants that were run."""
    return []


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> Plan:
    """A plan whose held-out slices are four, and whose trainings do nothing but tell of themselves."""
    positive = np.array([False, True, False, True])
    slices = HeldOut({"plain": np.zeros((4, 8, 8, 1), np.uint8)}, positive, (frozenset(),) * 4)
    monkeypatch.setattr(ablation, "draw_slices", lambda *arguments: tmp_path)
    monkeypatch.setattr(ablation, "read_slices", lambda folder: slices)
    monkeypatch.setattr(report_ablation, "plot_curves", lambda runs, path: None)  # slow

    def run_variant(plan: Plan, name: str, seed: int, slices: HeldOut) -> dict[str, Any]:
        calls.append(name)
        if name == "no-aug":
            raise KeyboardInterrupt
        auc = {"plain": [0.9, 0.8, 1.0], "jpeg": [0.8, 0.7, 0.9]}
        settings = plan.describe(VARIANTS[name], seed)
        run = {"about": name, "settings": settings, "curve": [0.6, 0.7], "seconds": 1.0, "auc": auc}
        run |= {"matched_auc": 0.87, "brain_correlation": -0.1}
        return {**run, "false_positives": {"metal": [1 + (name == "base"), 4]}}

    monkeypatch.setattr(ablation, "run_variant", run_variant)
    return Plan(count=60, test_count=4, epochs=2, folder=tmp_path)


def test_a_killed_ablation_goes_on_where_it_was(tmp_path: Path, plan: Plan, calls: list[str]) -> None:
    """What is done is kept, and not done again."""
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_variants(plan, ["base", "no-heads", "no-aug"], [7], out)
    run_variants(plan, ["base", "no-heads", "glorot"], [7], out)

    assert calls == ["base", "no-heads", "no-aug", "glorot"]
    document = json.loads((out / "ablation.json").read_text())
    assert [name for name, runs in document["runs"].items() if runs] == ["base", "no-heads", "glorot"]


def test_variants_of_another_size_are_not_mixed(tmp_path: Path, plan: Plan) -> None:
    """A try with 60 slices must not end up beside figures of 5,600."""
    run_variants(plan, ["base"], [7], tmp_path / "out")
    with pytest.raises(SystemExit, match="another folder"):
        run_variants(Plan(count=80, test_count=4, epochs=2, folder=tmp_path), ["base"], [7], tmp_path / "out")


def test_variants_on_slices_of_another_generator_are_not_mixed(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen by how well mid-grey alone tells them apart, which every slice takes part in."""
    run_variants(plan, ["base"], [7], tmp_path / "out")
    grey = np.array([0, 110, 0, 110], np.uint8).reshape(4, 1, 1, 1)
    others = HeldOut({"plain": np.full((4, 8, 8, 1), grey)}, np.array([False, True] * 2), (frozenset(),) * 4)
    monkeypatch.setattr(ablation, "read_slices", lambda folder: others)
    with pytest.raises(SystemExit, match="another generator"):
        run_variants(plan, ["no-heads"], [7], tmp_path / "out")


def test_page_sets_variants_beside_the_base(tmp_path: Path, plan: Plan) -> None:
    """The score without a model, each AUC, and the false positives with a finding left out."""
    run_variants(plan, ["base", "without-hard-negatives"], [7], tmp_path)
    document = json.loads((tmp_path / "ablation.json").read_text())

    page = render_ablation({**document, "machine": MACHINE})

    assert "which needs no model" in page
    assert "| without-hard-negatives | without-hard-negatives | 7 | 0.900 (0.800 to 1.000) |" in page
    assert "| metal | 1 | 4 | 0.50 | 0.25 |" in page
    assert page.count("| 0.870 | -0.10 |") == 2


def test_a_score_that_is_only_the_amount_of_brain_is_seen_as_such() -> None:
    """Its AUC can be fair; matched by the amount of brain nothing is left, and the correlation says why."""
    rng = np.random.default_rng(0)
    share = rng.uniform(0, 1, 300)
    images = np.where(rng.random((300, 8, 8, 1)) < share[:, None, None, None], 100, 0).astype(np.uint8)
    positive = rng.random(300) < share
    judged = judge_scores(
        {"plain": score_trivially(images)}, HeldOut({"plain": images}, positive, (frozenset(),) * 300)
    )

    assert judged["auc"]["plain"][0] > 0.75
    assert judged["matched_auc"] < 0.62
    assert judged["brain_correlation"] == pytest.approx(1.0)


def test_committed_ablation_is_that_of_its_figures() -> None:
    """Nobody has edited one of the two by hand."""
    figures = ROOT / "docs" / "ablation.json"
    if not figures.exists():
        pytest.skip("no ablation is committed")

    assert (ROOT / "docs" / "ablation.md").read_text("utf-8") == render_ablation(json.loads(figures.read_text("utf-8")))


def test_learning_curves_are_drawn(tmp_path: Path) -> None:
    """Of seeds that stopped at different epochs too."""
    curve = {"7": {"curve": [0.5, 0.8, 0.9]}, "8": {"curve": [0.5, 0.7]}}

    plot_curves({"base": curve, "no-aug": curve, "without-hard-negatives": curve}, tmp_path / "curves.png")

    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_held_out_slices_are_judged_as_they_are_and_as_jpeg(tmp_path: Path) -> None:
    """In the order of their files, with their findings where the table tells them."""
    rows = [("stroke/1.png", "stroke", "metal streaks"), ("normal/0.png", "normal", "")]
    for file, *_ in rows:
        (tmp_path / file).parent.mkdir()
        Image.fromarray(make_slice(60 if "normal" in file else 160, side=256)).save(tmp_path / file)
    with (tmp_path / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "label", "findings"), *rows])

    slices = read_slices(tmp_path)

    assert slices.positive.tolist() == [False, True]
    assert slices.findings == (frozenset(), frozenset({"metal", "streaks"}))
    distance = np.abs(slices.images["plain"].astype(float) - slices.images["jpeg"])
    assert slices.images["plain"].shape == (2, 256, 256, 1)
    assert 0 < distance.mean() < 10
