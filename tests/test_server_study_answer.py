"""One answer for a study: which series is judged, why the others are not, the score, and what is said besides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from server.core.study.answer import StudyAnswer, answer_study
from server.core.study.facts import keep_facts
from server.core.study.rules import DEFAULT_RULES, SeriesRules
from server.core.study.slices import Refusal, StudySlice
from server.images.checks import BLANK, NO_HEAD
from server.models.contract import ModelSpec
from tests.studies import HEADER, STUDY_SPEC

SPEC = replace(STUDY_SPEC, labels=("normal", "stroke", "tumour"))
KINDS = replace(
    STUDY_SPEC, labels=("normal", "haemorrhagic", "ischaemic"), positive_labels=("haemorrhagic", "ischaemic")
)
DAMAGED = Refusal("INVALID_ARGUMENT", "DICOM_DAMAGED", "The DICOM file is damaged.")


def make(
    number: int,
    probability: float = 0.1,
    *,
    series: str = "1.2.9",
    study: str = "1.2.8",
    spacing: float = 5.0,
    **changes: Any,
) -> StudySlice:
    """A slice of a series. Changes are of what is known of it where that has such a field, otherwise of its header."""
    known = {name: changes.pop(name) for name in ("reasons", "refusal", "is_lossy", "other_label") if name in changes}
    header = replace(
        HEADER,
        **{
            "series_instance_uid": series,
            "study_instance_uid": study,
            "sop_instance_uid": f"{series}.{number}",
            "position": (0.0, 0.0, spacing * number),
            "slice_thickness": spacing,
            **changes,
        },
    )
    facts = keep_facts(header, DEFAULT_RULES)
    one = StudySlice(id=f"{series}-{number}", number=number, facts=facts, **known)
    if facts.exclusion or one.refusal:
        return one
    return replace(one, image_sha256=f"{series}{number:08}".rjust(64, "0"), probability=probability)


def make_series(count: int = 10, levels: Sequence[float] = (), **changes: Any) -> list[StudySlice]:
    return [make(number, (*levels, *[0.1] * count)[number], **changes) for number in range(count)]


def make_pictures(count: int = 4, level: float = 0.2) -> list[StudySlice]:
    """PNG files, which have no header."""
    return [
        StudySlice(id=f"p{number}", number=number, image_sha256=f"{number:064}", probability=level)
        for number in range(1, count + 1)
    ]


def make_kinds(probabilities: Sequence[tuple[float, float]]) -> list[StudySlice]:
    """Pictures with the probabilities of both positive labels."""
    return [
        replace(one, probability=sum(kinds), positive_probabilities=kinds)
        for one, kinds in zip(make_pictures(len(probabilities)), probabilities, strict=True)
    ]


def answer(slices: Sequence[StudySlice], spec: ModelSpec = SPEC, rules: SeriesRules = DEFAULT_RULES) -> StudyAnswer:
    model: Any = SimpleNamespace(spec=spec, digest="0" * 64)
    return answer_study("study", slices, model, rules)


def list_reasons(judged: StudyAnswer) -> dict[str, str]:
    """Why series were left out, by their UIDs."""
    return {one.uid: one.reason for one in judged.left_out}


def list_warnings(judged: StudyAnswer) -> list[str]:
    return [one.reason for one in judged.warnings]


def test_score_is_the_mean_of_the_highest() -> None:
    """Of three here; the slice to look at first is the highest."""
    judged = answer(make_series(10, (0.3, 0.9, 0.6, 0.8)))

    assert judged.score == pytest.approx((0.9 + 0.8 + 0.6) / 3)
    assert judged.label == "stroke"
    assert judged.first_look is not None
    assert judged.first_look.id == "1.2.9-1"
    assert (judged.reasons, judged.left_out, judged.failures, judged.warnings) == ((), (), (), ())


def test_threshold_must_be_exceeded() -> None:
    """As that of one image. Below it the label is the one that most slices would have of the others."""
    judged = answer([replace(one, other_label=2 if one.number > 2 else 0) for one in make_series(10, [0.5] * 10)])

    assert judged.score == SPEC.study_threshold
    assert judged.label == "tumour"


def test_the_most_probable_positive_label_is_answered() -> None:
    """On average over the slices of which the score is made: one that speaks loudly for another kind is outvoted, and
    those below the highest have no say."""
    kinds = [(0.9, 0.0), (0.2, 0.6), (0.1, 0.7), (0.6, 0.0), (0.6, 0.0)]
    judged = answer(make_kinds(kinds), KINDS)

    assert judged.score == pytest.approx((0.9 + 0.8 + 0.8) / 3)
    assert (judged.label, judged.positive_label) == ("ischaemic", "ischaemic")


def test_study_below_the_threshold_has_a_most_probable_positive_label_too() -> None:
    """Which is not its label; of equals, the first one that the spec names."""
    judged = answer(make_kinds([(0.2, 0.2)] * 3), KINDS)

    assert (judged.label, judged.positive_label) == ("normal", "haemorrhagic")


def test_study_of_which_nothing_is_known_is_of_no_kind() -> None:
    """Where the model has one positive label, that is it all the same."""
    series = [replace(one, reasons=(NO_HEAD,)) for one in make_series(6)]

    assert (answer(series, KINDS).label, answer(series, KINDS).positive_label) == ("", "")
    assert (answer(series).label, answer(series).positive_label) == ("", "stroke")


def test_fewer_slices_than_the_rule_takes_are_averaged() -> None:
    judged = answer(make_pictures(2, 0.75))

    assert judged.score == 0.75


def test_slices_without_an_answer_have_no_part() -> None:
    """Though the model said something of them."""
    series = make_series(10, (0.99, 0.98, 0.6, 0.6, 0.6))
    series[0] = replace(series[0], reasons=(NO_HEAD,))
    series[1] = replace(series[1], refusal=DAMAGED, image_sha256="")
    judged = answer(series)

    assert judged.score == pytest.approx(0.6)
    assert judged.first_look is not None
    assert judged.first_look.id == "1.2.9-2"
    assert list_warnings(judged) == ["SLICE_FAILED"]
    assert len(judged.slices) == 10


def test_study_of_which_nothing_was_analysed_has_no_label() -> None:
    """The reasons are those of its slices, the most frequent first."""
    series = [replace(one, reasons=(BLANK if one.number < 3 else NO_HEAD,)) for one in make_series(9)]
    judged = answer([*series, make(9, refusal=DAMAGED)])

    assert judged.label == ""
    assert judged.score == 0
    assert judged.first_look is None
    assert [one.reason for one in judged.reasons] == ["NO_HEAD", "IMAGE_BLANK", "DICOM_DAMAGED"]
    assert judged.series is not None


def test_score_near_the_threshold_says_nothing() -> None:
    """By the margin of the model; one as far away as the margin is answered."""
    spec = replace(SPEC, indeterminate_margin=0.25)

    assert [one.reason for one in answer(make_series(8, [0.7] * 8), spec).reasons] == ["INDETERMINATE"]
    assert answer(make_series(8, [0.7] * 8), spec).score == pytest.approx(0.7)
    assert answer(make_series(8, [0.75] * 8), spec).label == "stroke"
    assert answer(make_series(8, [0.25] * 8), spec).label == "normal"


def test_every_series_that_was_left_out_is_told_with_its_reason() -> None:
    """And with what the rule wants and what the series has."""
    left_out = {
        "1.2.1": make_series(3, series="1.2.1", modality="MR"),
        "1.2.2": make_series(2, series="1.2.2", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")),
        "1.2.3": make_series(10, series="1.2.3", kernel=("H60s",)),
        "1.2.4": make_series(10, series="1.2.4", contrast_agent="X"),
        "1.2.5": make_series(10, series="1.2.5", body_part="NECK"),
        "1.2.6": make_series(7, series="1.2.6"),
        "1.2.7": make_series(10, series="1.2.7", spacing=8.0),
    }
    judged = answer([one for series in (*left_out.values(), make_series()) for one in series])

    assert list_reasons(judged) == {
        "1.2.1": "WRONG_MODALITY",
        "1.2.2": "LOCALIZER",
        "1.2.3": "BONE_KERNEL",
        "1.2.4": "CONTRAST",
        "1.2.5": "OTHER_BODY_PART",
        "1.2.6": "TOO_FEW_SLICES",
        "1.2.7": "SLICE_THICKNESS",
    }
    messages = {one.uid: one.message for one in judged.left_out}
    assert messages["1.2.1"] == "The rule wants CT; this has MR."
    assert messages["1.2.6"] == "The rule wants at least 8 slices; this has 7."
    assert messages["1.2.7"] == "The rule wants slices of 0.625 to 5 mm; this has slices of 8 mm."
    assert [one.slices for one in judged.left_out] == [3, 2, 10, 10, 10, 7, 10]
    assert judged.series is not None
    assert judged.series.uid == "1.2.9"
    assert list_warnings(judged) == []


def test_series_of_two_kinds_is_judged_by_what_may_be() -> None:
    """Some scanners put their scout among the slices."""
    scouts = [make(90 + number, image_type=("LOCALIZER",)) for number in range(2)]
    judged = answer([*scouts, *make_series(10)])

    assert judged.series is not None
    assert judged.series.slices == 10
    assert [(one.uid, one.reason, one.slices) for one in judged.left_out] == [("1.2.9", "LOCALIZER", 2)]


def test_thickness_that_is_not_stated_is_the_distance_of_slices() -> None:
    """Where nothing tells, it is no series."""
    thin = [
        make(number, series="1.2.1", position=(0.0, 0.0, 0.3 * number), slice_thickness=None) for number in range(20)
    ]
    usual = [make(number, series="1.2.2", slice_thickness=None) for number in range(20)]
    unknown = [make(number, series="1.2.3", slice_thickness=None, position=None) for number in range(20)]
    judged = answer([*thin, *usual, *unknown])

    assert judged.series is not None
    assert judged.series.uid == "1.2.2"
    assert list_reasons(judged) == {"1.2.1": "SLICE_THICKNESS", "1.2.3": "SLICE_THICKNESS"}


@pytest.mark.parametrize(
    "other",
    [
        make_series(40, series="1.2.1", spacing=1.25),
        make_series(30, series="1.2.1", kernel=("MC",)),
        make_series(10, series="1.2.1"),
        make_series(28, series="1.2.1"),
        [replace(one, reasons=(NO_HEAD,)) for one in make_series(40, series="1.2.1")],
        make_series(30, series="1.2.99"),
    ],
    ids=["thinner", "unknown kernel", "a part", "fewer slices", "nothing in it", "later UID"],
)
def test_one_of_several_series_is_preferred(other: list[StudySlice]) -> None:
    """Whichever came first. The other one is said to have been possible."""
    for slices in ([*other, *make_series(30)], [*make_series(30), *other]):
        judged = answer(slices)
        assert judged.series is not None
        assert judged.series.uid == "1.2.9"
        assert list(list_reasons(judged).values()) == ["OTHER_SERIES_PREFERRED"]
        assert "SEVERAL_SERIES" in list_warnings(judged)


def test_several_studies_are_warned_of() -> None:
    """The answer names the one that was judged."""
    judged = answer([*make_series(30), *make_series(30, series="1.2.7", study="1.2.5", spacing=2.5)])

    assert judged.study == "1.2.8"
    assert list_warnings(judged) == ["SEVERAL_STUDIES", "SEVERAL_SERIES"]


def test_pictures_are_one_series_in_the_order_of_their_ids() -> None:
    """However few they are."""
    judged = answer(make_pictures()[::-1])

    assert [one.slice.id for one in judged.slices] == ["p1", "p2", "p3", "p4"]
    assert judged.series is not None
    assert judged.series.uid == judged.study == ""
    assert list_warnings(judged) == ["UNORDERED"]
    assert judged.label == "normal"


@pytest.mark.parametrize("slices", [make_series(10), make_series(2, modality="MR")])
def test_pictures_beside_files_with_headers_are_left_out(slices: list[StudySlice]) -> None:
    """Also where no series can be judged: what they show nobody can tell."""
    judged = answer([*make_pictures(), *slices])

    assert ("", "MIXED_FORMATS") in list_reasons(judged).items()
    assert not any(one.slice.id.startswith("p") for one in judged.slices)


@pytest.mark.parametrize(
    ("slices", "reason"),
    [
        (make_series(5, modality="MR"), "WRONG_MODALITY"),
        ([*make_series(5, modality="MR"), *make_series(2, series="1.2.1")], "NO_SERIES"),
        ([StudySlice(id="1", number=1, refusal=DAMAGED)], "NO_SERIES"),
    ],
)
def test_study_without_a_series_is_not_analysed(slices: list[StudySlice], reason: str) -> None:
    judged = answer(slices)

    assert [one.reason for one in judged.reasons] == [reason]
    assert (judged.label, judged.score, judged.series, judged.slices) == ("", 0.0, None, ())


def test_files_that_cannot_be_read_are_told_apart() -> None:
    """They are of no series."""
    broken = [StudySlice(id=name, number=1, refusal=DAMAGED) for name in ("b", "a")]
    judged = answer([*broken, *make_series()])

    assert [one.id for one in judged.failures] == ["a", "b"]
    assert len(judged.slices) == 10


def test_what_is_odd_about_a_series_is_said() -> None:
    """A gap, a slice that is there twice, one that was compressed with loss."""
    series = [one for one in make_series(20) if one.number not in (5, 9)]
    twice = replace(series[3], id="again")
    judged = answer([*series, twice, make(30, spacing=5.0, is_lossy=True)])

    assert list_warnings(judged) == ["SLICE_GAP", "SLICE_DUPLICATE", "IMAGE_LOSSY"]


def test_duplicate_counts_once() -> None:
    """One slice that is there three times does not make a mean of three."""
    series = make_series(10, (0.9,))
    judged = answer([*series, replace(series[0], id="x"), replace(series[0], id="y")])

    assert judged.score == pytest.approx((0.9 + 0.1 + 0.1) / 3)
    assert sum(one.is_duplicate for one in judged.slices) == 2


def test_order_of_arrival_changes_nothing() -> None:
    """Whatever comes first."""
    slices = [
        *make_series(20, (0.2, 0.9, 0.7)),
        *make_series(20, series="1.2.1", spacing=2.5),
        *make_series(9, series="1.2.2", modality="MR"),
        *make_pictures(),
        replace(make(3, 0.8, sop_instance_uid="1.2.77"), id="again"),
        StudySlice(id="bad", number=77, refusal=DAMAGED),
    ]
    first = answer(slices)
    for seed in range(5):
        random.Random(seed).shuffle(slices)
        again = answer(slices)
        assert replace(again, model=first.model) == first
