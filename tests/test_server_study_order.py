"""In which order the slices of a series lie, what is tilted, missing or there twice."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from server.core.study.facts import keep_facts
from server.core.study.rules import DEFAULT_RULES
from server.core.study.slices import StudySlice, order_by_id
from server.core.study.stack import Stack
from tests.studies import HEADER

STEP = 5.0


def place(
    number: int,
    position: tuple[float, float, float] | None,
    *,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    probability: float = 0.5,
    thickness: float = STEP,
    sop: str = "",
    digest: str = "",
    tilt: float = 0.0,
) -> StudySlice:
    """A slice that was judged, with its number as its id."""
    header = replace(
        HEADER,
        sop_instance_uid=sop or f"1.2.{number}",
        position=position,
        orientation=tuple(orientation),
        slice_thickness=thickness,
        gantry_tilt=tilt,
    )
    facts = keep_facts(header, DEFAULT_RULES)
    return StudySlice(
        id=str(number), number=number, facts=facts, image_sha256=digest or f"{number:064x}", probability=probability
    )


def list_ids(stack: Stack) -> list[str]:
    return [one.slice.id for one in stack.slices]


def test_order_is_that_of_places_from_the_feet() -> None:
    """Whatever their numbers, and the order in which they came."""
    slices = [place(number, (0, 0, -STEP * number)) for number in range(20)]
    random.Random(1).shuffle(slices)
    stack = Stack(slices)

    assert list_ids(stack) == [str(number) for number in reversed(range(20))]
    assert stack.spacing == STEP
    assert stack.extent == 20 * STEP
    assert stack.gaps == []
    assert stack.tilt == 0
    assert stack.is_ordered


@pytest.mark.parametrize("orientation", [(-1, 0, 0, 0, -1, 0), (1, 0, 0, 0, -1, 0), (0, 1, 0, 1, 0, 0)])
def test_head_is_up_whichever_way_rows_run(orientation: Sequence[float]) -> None:
    """A patient lies on the face, or an image is mirrored: the normal may point to the feet."""
    stack = Stack([place(number, (0, 0, STEP * number), orientation=orientation) for number in range(5)])

    assert list_ids(stack) == ["0", "1", "2", "3", "4"]
    assert [one.position for one in stack.slices] == [STEP * number for number in range(5)]


@pytest.mark.parametrize("degrees", [-25, 15, 30])
def test_tilted_gantry_is_told_and_disturbs_nothing(degrees: float) -> None:
    """The table goes along the body, the slices lie aslant: their distance is shorter than its steps."""
    angle = math.radians(degrees)
    orientation = (1, 0, 0, 0, math.cos(angle), math.sin(angle))
    slices = [place(number, (-120, -130, STEP * number), orientation=orientation) for number in range(20)]
    stack = Stack(slices)

    assert list_ids(stack) == [str(number) for number in range(20)]
    assert stack.tilt == pytest.approx(abs(degrees), abs=1e-6)
    assert stack.spacing == pytest.approx(STEP * math.cos(angle))
    assert stack.gaps == []


def test_aslant_stack_without_a_tilt_is_straight() -> None:
    """A head that was put straight by software: slices follow each other along their normal."""
    angle = math.radians(20)
    normal = (0, -math.sin(angle), math.cos(angle))
    orientation = (1, 0, 0, 0, math.cos(angle), math.sin(angle))
    slices = [
        place(number, (0, STEP * number * normal[1], STEP * number * normal[2]), orientation=orientation)
        for number in range(10)
    ]

    assert Stack(slices).tilt == pytest.approx(0, abs=1e-5)


def test_stated_tilt_counts_where_places_do_not_tell() -> None:
    assert Stack([place(1, None, tilt=-12.0)]).tilt == 12.0


def test_missing_slice_is_a_gap() -> None:
    """Two are two gaps, and none where the distances differ a little."""
    there = [number for number in range(20) if number not in (7, 12)]
    stack = Stack([place(number, (0, 0, STEP * number + 0.3 * (number % 2))) for number in there])

    assert len(stack.gaps) == 2
    assert max(stack.gaps) == pytest.approx(2 * STEP)


def test_thicker_slices_further_up_are_no_gaps() -> None:
    """As when the base of the skull is scanned in thin slices."""
    thin = [place(number, (0, 0, 2.5 * number), thickness=2.5) for number in range(16)]
    thick = [place(100 + number, (0, 0, 37.5 + STEP * (number + 1))) for number in range(8)]

    assert Stack(thin + thick).gaps == []


@pytest.mark.parametrize("kind", ["sop", "digest", "place"])
def test_what_shows_the_same_counts_once(kind: str) -> None:
    """With its highest probability, so that the order in which slices came changes nothing; all are listed."""
    slices = [place(number, (0, 0, STEP * number)) for number in range(10)]
    changes = {"sop": {"sop": "1.2.3"}, "digest": {"digest": f"{3:064x}"}, "place": {}}[kind]
    high = (0, 0, STEP * 3 + 0.01) if kind == "place" else (0, 0, 77.0)
    twice = place(50, high, probability=0.9, **changes)

    for order in ([*slices, twice], [twice, *slices]):
        stack = Stack(order)
        assert len(stack.slices) == 11
        assert len(stack.counted) == 10
        assert [one.slice.id for one in stack.slices if one.is_duplicate] == ["3"]
        assert max(one.probability for one in stack.analysed) == 0.9


def test_frames_of_one_file_are_no_duplicates() -> None:
    """They have one SOP instance and one digest."""
    one = place(1, (0, 0, 0))
    facts = one.facts
    assert facts is not None
    frames = [
        replace(one, frame=number, facts=replace(facts, frame=number, place=(0.0, 0.0, STEP * number)))
        for number in (1, 2, 3)
    ]

    assert len(Stack(frames).counted) == 3


def test_slices_without_a_place_come_last_by_their_ids() -> None:
    """And that is said."""
    stack = Stack([place(10, None), place(9, None), place(3, (0, 0, 1.0)), place(2, (0, 0, 9.0))])

    assert list_ids(stack) == ["3", "2", "9", "10"]
    assert not stack.is_ordered


def test_ids_are_in_natural_order() -> None:
    """Numbers in them by their value, also in front; what is alike as it came."""
    names = ["slice-10.png", "slice-9.png", "2", "10", "1", "b7", "a", "", "slice-9b"]
    slices = [StudySlice(id=name, number=number) for number, name in enumerate(names)]

    assert [one.id for one in sorted(slices, key=order_by_id)] == [
        *("", "1", "2", "10", "a", "b7", "slice-9.png", "slice-9b", "slice-10.png"),
    ]


def test_series_without_any_place_has_no_distances() -> None:
    stack = Stack([StudySlice(id="a", number=1), StudySlice(id="b", number=2)])

    assert (stack.spacing, stack.tilt, stack.extent, stack.gaps) == (0.0, 0.0, 0.0, [])
