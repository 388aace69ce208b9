"""The bounded line in front of the workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.errors import BudgetExceededError, OverloadedError
from server.workers import WorkerPool
from tests.fakes import wait_until


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as pool:
        yield pool


def test_caller_with_room_does_the_work_itself() -> None:
    """No other thread has to wake up."""
    pool = WorkerPool(1, 0)

    assert pool.run(threading.get_ident, 1) == threading.get_ident()
    assert pool.in_flight == 0


def test_no_more_than_the_workers_are_at_work(callers: ThreadPoolExecutor) -> None:
    """However many call; all get their own answer, and all room is there again."""
    pool = WorkerPool(3, 100)
    lock, at_work, most = threading.Lock(), 0, 0

    def work(number: int) -> int:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        threading.Event().wait(0.001)
        with lock:
            at_work -= 1
        return number

    def call(number: int) -> int:
        return pool.run(lambda: work(number), 30)

    assert list(callers.map(call, range(200))) == list(range(200))
    assert most == 3
    assert pool.in_flight == 0
    assert list(callers.map(call, range(30))) == list(range(30))


def test_line_is_served_in_order(callers: ThreadPoolExecutor) -> None:
    """Who came first is first, and errors reach those whose work raised them."""
    pool = WorkerPool(1, 10)
    entered, go_on = threading.Event(), threading.Event()
    done: list[int] = []

    def hold() -> None:
        entered.set()
        assert go_on.wait(60)

    def work(number: int) -> int:
        done.append(number)
        return 1 // (number % 2)

    first = callers.submit(pool.run, hold, 10)
    assert entered.wait(60)
    waiting = []
    for number in range(4):
        waiting.append(callers.submit(pool.run, lambda number=number: work(number), 10))
        wait_until(lambda number=number: pool.in_flight == number + 2)
    go_on.set()

    first.result(10)
    assert [type(future.exception(10)) for future in waiting] == [ZeroDivisionError, type(None)] * 2
    assert done == [0, 1, 2, 3]


def test_full_line_and_deadline_are_refused_and_leave_nothing_behind(callers: ThreadPoolExecutor) -> None:
    """What was not started is not started later."""
    pool = WorkerPool(1, 1)
    entered, go_on = threading.Event(), threading.Event()
    started: list[str] = []

    def hold() -> None:
        entered.set()
        assert go_on.wait(60)

    held = callers.submit(pool.run, hold, 10)
    assert entered.wait(60)
    with pytest.raises(BudgetExceededError):
        pool.run(lambda: started.append("late"), 0.01)
    waiting = callers.submit(pool.run, lambda: started.append("in time"), 10)
    wait_until(lambda: pool.in_flight == 2)
    with pytest.raises(OverloadedError):
        pool.run(lambda: started.append("too many"), 10)
    go_on.set()
    held.result(10)
    waiting.result(10)

    assert started == ["in time"]
    assert pool.in_flight == 0


def test_submitted_work_takes_turns_with_callers(callers: ThreadPoolExecutor) -> None:
    """Neither a long line of callers nor a long stream keeps the other waiting, and each stays in order."""
    pool = WorkerPool(1, 10)
    entered, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    def hold() -> None:
        entered.set()
        assert go_on.wait(60)

    held = pool.submit(hold)
    assert entered.wait(60)
    jobs = [pool.submit(lambda number=number: done.append(f"stream {number}")) for number in range(4)]
    waiting = []
    for number in range(2):
        waiting.append(callers.submit(pool.run, lambda number=number: done.append(f"caller {number}"), 10))
        wait_until(lambda number=number: pool.in_flight == 6 + number)
    go_on.set()

    assert all(job.wait(60) for job in [held, *jobs])
    for future in waiting:
        future.result(10)
    assert done == ["caller 0", "stream 0", "caller 1", "stream 1", "stream 2", "stream 3"]
    assert pool.in_flight == 0


def test_submitted_work_does_not_wait_in_the_line_of_callers() -> None:
    """Its bound is the stream's window: a full line of callers does not refuse it."""
    pool = WorkerPool(1, 0)
    jobs = [pool.submit(lambda number=number: 1 // number) for number in range(3)]

    assert all(job.wait(60) for job in jobs)
    with pytest.raises(ZeroDivisionError):
        jobs[0].take_result()
    assert [job.take_result() for job in jobs[1:]] == [1, 0]
