"""Who does the work, in which order, and what happens to the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

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
