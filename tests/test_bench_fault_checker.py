"""The checker of the fault bench refuses every history that must not be, and no other: forged ones, for no server made
them yet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.faults.checker import Violation, check
from bench.faults.history import OK, Declared, Ended, Entry, History, Sent, load

IMAGE, OTHER_IMAGE = "a" * 64, "b" * 64
MODELS = {"1": "1" * 64, "2": "2" * 64}
GOLDEN = {
    (MODELS["1"], IMAGE): (0.25, 0.75),
    (MODELS["1"], OTHER_IMAGE): (0.5, 0.5),
    (MODELS["2"], IMAGE): (0.125, 0.875),
    (MODELS["2"], OTHER_IMAGE): (0.0, 1.0),
}


def declare(version: str, at: float, *, is_rollback: bool = False) -> Declared:
    return Declared(version, MODELS[version], at, is_rollback, at if is_rollback else 0.0)


def make_call(
    call: str, begun: float, ended: float, version: str = "1", client: str = "c", image: str = IMAGE
) -> list[Entry]:
    """A call that was answered as it should be."""
    digest = MODELS[version]
    return [
        Sent(call, client, image, 2.0, begun),
        Ended(call, OK, ended, "", call, image, version, digest, GOLDEN[digest, image]),
    ]


def find_rules(entries: list[Entry]) -> set[str]:
    return {violation.rule for violation in check(entries, GOLDEN)}


def forge(change: dict[str, object]) -> list[Entry]:
    """A history whose second call's end is not what it should be."""
    sent, end = make_call("y", 2.0, 2.5)
    assert isinstance(end, Ended)
    return [declare("1", 0.0), *make_call("x", 1.0, 1.5), sent, replace(end, **change)]


def test_good_history_is_not_refused() -> None:
    """Two clients, a failure, a new version, a rollback."""
    entries = [
        declare("1", 0.0),
        *make_call("a", 1.0, 1.5),
        *make_call("b", 1.2, 1.6, client="d", image=OTHER_IMAGE),
        Sent("c", "c", IMAGE, 2.0, 2.0),
        Ended("c", "UNAVAILABLE", 2.1, "SERVER_STOPPING"),
        declare("2", 3.0),
        *make_call("e", 3.1, 3.5, "2"),
        declare("1", 4.0, is_rollback=True),
        *make_call("f", 4.1, 4.5, "1"),
    ]

    assert check(entries, GOLDEN) == []


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"scores": (0.25, 0.7500001)}, "right answer"),
        ({"scores": (float("nan"), 0.75)}, "right answer"),
        ({"scores": ()}, "right answer"),
        ({"digest": "3" * 64}, "right answer"),
        ({"digest": "3" * 64}, "good model"),
        ({"version": "2"}, "good model"),
        ({"sha256": OTHER_IMAGE}, "own answer"),
        ({"sha256": ""}, "own answer"),
        ({"answer_id": "x"}, "own answer"),
        ({"answer_id": ""}, "own answer"),
        ({"at": 4.26}, "in time"),
        ({"at": 1.9}, "in time"),
        ({"status": "DEADLINE_EXCEEDED", "at": 4.3}, "in time"),
        ({"call": "x"}, "ends once"),
        ({"call": "z"}, "ends once"),
    ],
)
def test_forged_end_is_refused(change: dict[str, object], rule: str) -> None:
    """Each rule by itself."""
    assert rule in find_rules(forge(change))


def test_little_later_than_the_deadline_is_in_time() -> None:
    """A caller's own processor takes its time, too."""
    assert find_rules(forge({"at": 4.2})) == set()


def test_call_without_an_end_is_refused() -> None:
    """It hangs, which no deadline allows."""
    assert check([declare("1", 0.0), Sent("x", "c", IMAGE, 2.0, 1.0)], GOLDEN) == [
        Violation("ends once", "x", "ended 0 times")
    ]


def test_call_that_ends_twice_is_refused() -> None:
    """Also when both ends say the same."""
    sent, end = make_call("x", 1.0, 1.5)

    assert find_rules([declare("1", 0.0), sent, end, end]) == {"ends once"}


def test_answer_before_its_version_was_declared_is_refused() -> None:
    """A model answers only after it was found good."""
    assert find_rules([declare("1", 2.0), *make_call("x", 1.0, 1.5)]) == {"good model"}


def test_going_back_without_a_rollback_is_refused() -> None:
    """For each caller by itself."""
    entries = [declare("1", 0.0), declare("2", 0.0), *make_call("x", 1.0, 1.5, "2"), *make_call("y", 2.0, 2.5, "1")]
    others = [declare("1", 0.0), declare("2", 0.0)]
    others += [*make_call("x", 1.0, 1.5, "2"), *make_call("y", 2.0, 2.5, "1", client="d")]

    assert find_rules(entries) == {"version"}
    assert find_rules(others) == set()


def test_calls_at_the_same_time_may_have_either_version() -> None:
    """Neither was before the other."""
    entries = [declare("1", 0.0), declare("2", 0.0), *make_call("x", 1.0, 2.0, "2"), *make_call("y", 1.5, 2.5, "1")]

    assert find_rules(entries) == set()


@pytest.mark.parametrize(("at", "is_refused"), [(0.5, True), (1.2, False), (2.2, False), (3.0, True)])
def test_rollback_excuses_what_it_lies_between(at: float, is_refused: bool) -> None:
    """Not what it comes before or after."""
    entries = [declare("1", 0.0), declare("2", 0.0), declare("1", at, is_rollback=True)]
    entries += [*make_call("x", 1.0, 1.5, "2"), *make_call("y", 2.0, 2.5, "1")]

    assert (find_rules(entries) == {"version"}) == is_refused


@pytest.mark.parametrize(
    ("began", "done", "is_refused"),
    [(0.5, 0.9, True), (0.5, 1.1, False), (1.7, 1.8, False), (0.5, 3.0, False), (2.4, 3.0, False), (2.6, 3.0, True)],
)
def test_rollback_may_be_made_at_any_time_until_it_is_known(began: float, done: float, is_refused: bool) -> None:
    """Answers of both versions come while it is on its way."""
    entries = [declare("1", 0.0), declare("2", 0.0), Declared("1", MODELS["1"], began, True, done)]
    entries += [*make_call("x", 1.0, 1.5, "2"), *make_call("y", 2.0, 2.5, "1")]

    assert (find_rules(entries) == {"version"}) == is_refused


def test_versions_are_compared_as_numbers() -> None:
    """10 comes after 9."""
    golden = {(MODELS["1"], IMAGE): (0.25, 0.75)}
    calls = [*make_call("x", 1.0, 1.5), *make_call("y", 2.0, 2.5)]
    entries: list[Entry] = [Declared(version, MODELS["1"], 0.0) for version in ("9", "10")]
    for entry, version in zip(calls, ("", "9", "", "10"), strict=True):
        entries.append(replace(entry, version=version) if isinstance(entry, Ended) else entry)

    assert check(entries, golden) == []


def test_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    """So that somebody can look at what was refused, and judge it again."""
    history = History()
    for entry in forge({"scores": (0.1, 0.9)}):
        history.add(entry)
    history.save(tmp_path / "history.jsonl")

    entries = load((tmp_path / "history.jsonl").read_text().splitlines())

    assert entries == history.list_entries()
    assert check(entries, GOLDEN) == check(history.list_entries(), GOLDEN) != []
