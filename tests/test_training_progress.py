"""The progress line: of one job, and of several trainings that are one job."""

from __future__ import annotations

import pytest

from training import progress
from training.progress import Part, Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as the one element of a list."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_time_left_is_that_of_the_whole_job(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Halfway through the second of four trainings, time left counts the other two as well."""
    part = Part(Progress("training"), index=1, count=4, name="fold 2 of 4")
    clock[0] = 300.0
    part(50, 100)
    assert capsys.readouterr().err == "training: 150/400 (37 %), 8:20 left; fold 2 of 4\n"


def test_what_was_done_before_does_not_count_as_fast(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """A run that goes on after a break, or whose fold stopped early, is not taken for a fast one."""
    part = Part(Progress("training"), index=1, count=2)
    part.skip(100)
    clock[0] = 60.0
    part(50, 100)
    assert capsys.readouterr().err == "training: 150/200 (75 %), 1:00 left\n"
