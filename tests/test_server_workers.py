"""Who does the work, in which order, and what happens to the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from server.core.lines import FairLine
from server.core.workers import Job, WorkerPool
from server.errors import OverloadedError
from tests.fakes import wait_until

TIMEOUT = 30


class Outcomes:
    """Collects what jobs came to, in the order in which they were done."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def __call__(self, job: Job[Any]) -> None:
        self.done.append(job.take_result())

    def wait_for(self, number: int) -> list[Any]:
        wait_until(lambda: len(self.done) >= number)
        return self.done


class BusyWorker:
    """A pool whose only worker is busy until ``go_on`` is set."""

    def __init__(self, queue: int) -> None:
        self.pool = WorkerPool(1, queue)
        self.go_on, self.outcomes = threading.Event(), Outcomes()
        self.submit("first", self.go_on.wait)

    def submit(self, name: str, before: Callable[[], object] = lambda: None, **how: Any) -> Job[str]:
        """Hands over a piece that comes to its name; ``how`` is what ``WorkerPool.submit`` takes."""

        def work() -> str:
            before()
            return name

        return self.pool.submit(work, self.outcomes, **how)


def test_no_more_than_the_workers_are_at_work() -> None:
    """Each piece holds a decoded image in memory."""
    pool, go_on, outcomes = WorkerPool(2, 10), threading.Event(), Outcomes()
    at_work: list[int] = []

    def work() -> int:
        at_work.append(1)
        assert go_on.wait(TIMEOUT)
        return at_work.pop()

    for _ in range(5):
        pool.submit(work, outcomes)
    wait_until(lambda: len(at_work) == 2)

    assert (pool.in_flight, pool.waiting, pool.free) == (5, 3, 0)
    go_on.set()
    assert outcomes.wait_for(5) == [1] * 5
    wait_until(lambda: (pool.in_flight, pool.waiting, pool.free) == (0, 0, 2))


def test_line_is_served_in_order() -> None:
    """Who comes first is judged first."""
    worker = BusyWorker(queue=3)
    for name in ("second", "third", "fourth"):
        worker.submit(name)

    worker.go_on.set()

    assert worker.outcomes.wait_for(4) == ["first", "second", "third", "fourth"]


def test_full_line_is_refused_with_a_hint() -> None:
    """The hint grows with the line and with what a piece takes; what is refused leaves nothing behind."""
    worker = BusyWorker(queue=1)
    worker.submit("second")

    with pytest.raises(OverloadedError) as refusal:
        worker.submit("third")
    with pytest.raises(OverloadedError):
        worker.pool.check_room()
    for _ in range(50):
        worker.pool.note_duration(1.0)
    with pytest.raises(OverloadedError) as later:
        worker.submit("third")

    assert refusal.value.reason == "QUEUE_FULL"
    assert refusal.value.retry_after is not None
    assert later.value.retry_after is not None
    assert 0 < refusal.value.retry_after < 0.5 < later.value.retry_after < 5
    worker.go_on.set()
    assert worker.outcomes.wait_for(2) == ["first", "second"]


def test_withdrawn_work_is_never_done() -> None:
    """Whose caller has gone; what has been started cannot be taken back."""
    worker = BusyWorker(queue=2)
    single, of_source = worker.submit("single"), worker.submit("of source", source="a")
    wait_until(lambda: worker.pool.in_flight == 3)

    assert worker.pool.withdraw(single)
    assert not worker.pool.withdraw(single)
    assert worker.pool.withdraw(of_source)
    assert worker.pool.in_flight == 1
    worker.go_on.set()
    worker.outcomes.wait_for(1)
    worker.submit("last")
    assert worker.outcomes.wait_for(2) == ["first", "last"]


def learn(pool: WorkerPool, seconds: float) -> None:
    """Teaches a pool how long a piece lasts."""
    for _ in range(100):
        pool.note_duration(seconds)


def refused(worker: BusyWorker, **how: Any) -> str:
    """Why a piece is refused; empty when it may wait. What the check before its message says is the same."""
    refusals: list[OverloadedError] = []
    for way in (partial(worker.submit, "piece", **how), partial(worker.pool.check_room, **how)):
        try:
            way()
        except OverloadedError as refusal:
            refusals.append(refusal)
    assert all(refusal.reason == "QUEUE_FULL" and refusal.retry_after for refusal in refusals)
    assert len(refusals) in (0, 2)
    return refusals[0].message if refusals else ""


def is_refused(worker: BusyWorker, **how: Any) -> bool:
    """Whether one more piece is refused."""
    try:
        worker.submit("piece", **how)
    except OverloadedError:
        return True
    return False


def test_burst_waits_as_long_as_its_callers_do() -> None:
    """80 callers with 10 s are 8 s of work for one worker: none is refused. One with less time is, at once."""
    worker = BusyWorker(queue=256)
    learn(worker.pool, 0.1)

    for number in range(74):
        worker.submit(str(number), caller=number, seconds=10)

    assert "has time" in refused(worker, caller="hasty", seconds=0.05)
    assert "has time" in refused(worker, caller=0, seconds=5)
    worker.go_on.set()
    worker.outcomes.wait_for(75)


def test_hasty_caller_does_not_end_the_burst() -> None:
    """That somebody has no time says nothing of the load."""
    worker = BusyWorker(queue=256)
    learn(worker.pool, 0.1)
    for number in range(20):
        worker.submit(str(number), caller="a", seconds=10)

    assert refused(worker, caller="a", seconds=0.5)

    assert not refused(worker, caller="a", seconds=10)


def test_overload_keeps_the_line_short_until_it_was_empty() -> None:
    """Whoever waits as long as it can bear hinders others; a short line keeps the workers busy just as well."""
    worker = BusyWorker(queue=256)
    learn(worker.pool, 0.05)
    while not is_refused(worker, caller="a", seconds=4):
        pass
    assert worker.pool.waiting > 50

    assert "More images come" in refused(worker, caller="a", seconds=60)

    worker.go_on.set()
    wait_until(lambda: not worker.pool.in_flight)
    worker.go_on.clear()
    for number in range(20):
        worker.submit(str(number), worker.go_on.wait, caller="a", seconds=60)
    worker.go_on.set()


def test_no_caller_gets_the_whole_line() -> None:
    """As of all places, it gets no more than it leaves free for others."""
    worker = BusyWorker(queue=64)
    learn(worker.pool, 1e-6)

    def count(caller: str) -> int:
        return next(number for number in range(65) if is_refused(worker, caller=caller))

    assert [count(caller) for caller in "abc"] == [32, 16, 8]
    worker.submit("polite", caller="polite")
    worker.go_on.set()


def test_long_line_of_one_caller_does_not_hold_up_the_others() -> None:
    """Single callers take turns, too: one with 64 pieces beside one with one after the other."""
    worker = BusyWorker(queue=256)
    learn(worker.pool, 1.0)
    for number in range(64):
        worker.submit(f"greedy {number}", caller="greedy")

    worker.submit("polite", caller="polite", seconds=5)
    worker.submit("other", caller="other", seconds=5)

    worker.go_on.set()
    order = worker.outcomes.wait_for(67)
    assert order[:5] == ["first", "greedy 0", "polite", "other", "greedy 1"]


def test_caller_who_comes_back_goes_before_the_one_that_was_just_served() -> None:
    """So with one answer at a time it waits for the piece that is in work, and for no other."""
    line: FairLine[str] = FairLine()
    for number in range(3):
        line.add("greedy", f"greedy {number}")

    assert line.take() == "greedy 0"
    line.add("polite", "polite")
    assert [line.take() for _ in range(len(line))] == ["polite", "greedy 1", "greedy 2"]
    assert not line.remove("polite", "polite")


@pytest.mark.parametrize(("own", "before"), [("a", 4), ("b", 3), ("new", 2)])
def test_place_in_line_is_not_underestimated(own: str, before: int) -> None:
    """Of sources with three and one pieces."""
    line: FairLine[str] = FairLine()
    for source in "aaab":
        line.add(source, source)

    assert line.count_before(own) == before


def test_long_line_of_one_source_does_not_hold_up_the_others() -> None:
    """Single callers and sources take turns, and the sources among themselves."""
    worker = BusyWorker(queue=3)
    for number in range(6):
        worker.submit(f"greedy {number}", source="greedy")
    for number in range(2):
        worker.submit(f"polite {number}", source="polite")
        worker.submit(f"single {number}")

    worker.go_on.set()

    order = worker.outcomes.wait_for(11)
    assert max(order.index(f"polite {number}") for number in range(2)) < 9
    assert max(order.index(f"single {number}") for number in range(2)) < 5
    assert [name for name in order if name.startswith("greedy")] == [f"greedy {number}" for number in range(6)]


def test_sources_are_not_bounded_here() -> None:
    """Whoever has many images bounds what it hands over, and is not refused for others' lines."""
    worker = BusyWorker(queue=0)
    for number in range(100):
        worker.submit(str(number), source="stream")

    worker.go_on.set()

    assert worker.outcomes.wait_for(101)[1:] == [str(number) for number in range(100)]


def test_error_of_the_work_is_raised_where_the_result_is_taken() -> None:
    """The worker goes on."""
    jobs: list[Job[Any]] = []
    pool = WorkerPool(1, 0)
    pool.submit(lambda: 1 // 0, jobs.append)
    wait_until(lambda: jobs and not pool.in_flight)

    with pytest.raises(ZeroDivisionError):
        jobs[0].take_result()
    outcomes = Outcomes()
    pool.submit(lambda: "next", outcomes)
    assert outcomes.wait_for(1) == ["next"]
