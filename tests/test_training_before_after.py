"""What a run that tunes says of itself: whether it helped, in plain words; and what it takes from data and parent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server.models.contract import ModelSpec
from tests.training_fakes import make_predictions
from training.data.labels import ImageSet
from training.errors import TrainingError
from training.evaluation.measure import Decision
from training.own.before_after import BeforeAfter, Judged, compare_judged
from training.own.inheritance import settle, take_labels
from training.settings.tune_up import TuneUpConfig

SPEC = ModelSpec("stroke-cnn", "2", ("normal", "stroke"), ("stroke",), 0.5)
CONFIG = TuneUpConfig(parent="model", data=Path("data"), out=Path("run"))


def judge(gain_before: float, gain_after: float, people: int = 60, *, kept_parent: bool = False) -> BeforeAfter:
    """One slice of each person, answered better or worse before and after."""
    predictions = make_predictions(people, people=people)
    noise = np.random.default_rng(3).random(people)
    before, after = (np.clip(0.4 * noise + gain * predictions.positive, 0, 1) for gain in (gain_before, gain_after))
    decision = Decision(0.3, "fixed")
    return compare_judged(
        Judged("before", before, decision),
        Judged("recalibrated", before**2, replace(decision, threshold=0.09)),
        Judged("after", after, decision),
        predictions,
        kept_parent=kept_parent,
    )


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (0.0, 0.3, "Tuning helped: it ranks better than before (test AUC 0."),
        (0.3, 0.0, "Tuning did harm: it ranks worse than before"),
        (0.2, 0.2, "It is not shown that tuning helped: the interval of the difference holds 0"),
    ],
)
def test_conclusion_is_plain(before: float, after: float, words: str) -> None:
    """With the figures that it rests on, and what became of the calibration."""
    found = judge(before, after)
    assert found.conclude().startswith(words)
    assert "60 test people" in found.conclude()
    error = found.slices[0].figures["ece"]
    assert f"error {error.first.value:.3f} before, {error.second.value:.3f} after." in found.conclude()
    assert f"**{found.conclude()}**" in found.render()
    assert found.to_document()["conclusion"] == found.conclude()


def test_gain_that_a_trivial_score_explains_is_none() -> None:
    """Who has learned how much brain there is ranks better, and knows no more of what is looked for."""
    predictions = make_predictions(60, people=60)
    trivial = np.where(predictions.positive, 0.3, 0.1) + np.random.default_rng(1).random(60) * 0.25
    noise, decision = np.random.default_rng(2).random(60), Decision(0.3, "fixed")
    found = compare_judged(
        Judged("before", noise, decision),
        Judged("recalibrated", noise, decision),
        Judged("after", trivial, decision),
        replace(predictions, trivial=trivial),
        kept_parent=False,
    )
    assert found.slices[0].delong.p < 0.05
    assert found.conclude().startswith("It is not shown that tuning helped: it ranks better than before")
    assert "what was gained may be no more than the amount of brain" in found.conclude()


def test_nothing_better_than_the_parent_is_said() -> None:
    """Whatever the test patients show: they choose nothing."""
    assert judge(0.2, 0.2, kept_parent=True).conclude().startswith("Tuning did not help: nothing that was trained was")


def test_few_people_can_hide_much() -> None:
    """How large a difference may still be is a part of the sentence."""
    words = judge(0.2, 0.25, people=10).conclude()
    assert words.startswith("It is not shown that tuning helped")
    assert " can hide in so few." in words


def test_recalibration_changes_no_order() -> None:
    """Its AUC is that of before, its decisions are its own."""
    recalibrated = judge(0.1, 0.2).slices[1]
    assert recalibrated.figures["auc"].difference.value == 0
    assert recalibrated.figures["sensitivity"].difference.value == 0  # the same order, and the same place in it
    assert recalibrated.figures["brier"].difference.value != 0


def test_people_of_several_slices_have_a_table() -> None:
    """Each model by its own rule for them."""
    predictions = make_predictions(80, people=20)
    scores = np.linspace(0.1, 0.9, 80)
    rules = Decision(0.5, "a"), Decision(0.5, "b", 2, 0.4)
    judged = [
        Judged(name, scores, rule)
        for name, rule in zip(("before", "recalibrated", "after"), (*rules, rules[1]), strict=True)
    ]
    found = compare_judged(judged[0], judged[1], judged[2], predictions, kept_parent=False)
    assert found.people is not None
    assert found.people[0].thresholds == (0.5, 0.4)
    assert "People: 20, " in found.render()


@pytest.mark.parametrize(
    ("version", "name", "wanted"),
    [("2", "own", ("stroke-cnn", "3")), ("9", "site", ("site", "10")), ("1.4", "own", ("stroke-cnn", "1.4.1"))],
)
def test_result_is_the_next_version(version: str, name: str, wanted: tuple[str, str]) -> None:
    """Of the parent's name, unless another is given."""
    settled = settle(replace(CONFIG, name=name), replace(SPEC, version=version))
    assert (settled.name, settled.version) == wanted


def list_images(*labels: str) -> ImageSet:
    names = tuple(f"{index}.png" for index in range(4))
    targets = np.arange(4) % len(labels)
    return ImageSet(Path("data"), labels, names, targets, names)


def take(images: ImageSet, spec: ModelSpec = SPEC, **settings: Any) -> ImageSet:
    parent = SimpleNamespace(spec=spec, name=f"{spec.name} {spec.version}")
    return take_labels(replace(CONFIG, **settings), images, parent)  # type: ignore[arg-type]


def test_labels_are_those_of_the_parent() -> None:
    """In its order, whatever their case; of tables with 0 and 1, and of two other names, --positive says which is
    which."""
    turned = replace(SPEC, labels=("stroke", "normal"))
    assert take(list_images("normal", "stroke")).targets.tolist() == [0, 1, 0, 1]
    assert take(list_images("Normal", "Stroke"), turned).targets.tolist() == [1, 0, 1, 0]
    assert take(list_images("0", "1")).targets.tolist() == [0, 1, 0, 1]
    taken = take(list_images("bleed", "clear"), positive=("bleed",))
    assert (taken.labels, taken.targets.tolist()) == (SPEC.labels, [1, 0, 1, 0])


@pytest.mark.parametrize("labels", [("normal", "tumour"), ("normal", "other", "stroke")])
def test_other_labels_are_refused(labels: tuple[str, ...]) -> None:
    """A network has an answer for each of its labels, and for no other."""
    with pytest.raises(TrainingError, match="stroke-cnn 2 tells normal, stroke: a model is tuned on all of its own"):
        take(list_images(*labels))
