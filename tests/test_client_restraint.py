"""A client that is refused comes back in its turn: it neither floods a server that is busy nor gives up on a burst."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count

import pytest

from client import OverloadedError, StrokeClientError
from client._channel import Restraint
from client._config import RetryConfig
from client._retry import Retry

REFUSAL = OverloadedError("full", "QUEUE_FULL", "RESOURCE_EXHAUSTED", retry_after=0.01)


def refuse_tries(restraint: Restraint, number: int) -> None:
    """So many tries, one after the other, are refused."""
    for _ in range(number):
        restraint.begin()
        restraint.end(is_answered=False, is_refused=True)


def count_turns(restraint: Restraint, now: float) -> int:
    """How many refused calls may be made again at once."""
    return next(number for number in range(1000) if restraint.hold(now))


def test_some_repetitions_are_free_and_the_rest_is_earned() -> None:
    """By answers and by time; never more than there were at first."""
    restraint = Restraint()
    refuse_tries(restraint, 100)
    assert count_turns(restraint, 100.0) == 10

    for _ in range(30):
        restraint.begin()
        restraint.end(is_answered=True, is_refused=False)
    assert count_turns(restraint, 100.0) == 3
    assert count_turns(restraint, 104.0) == 2
    assert count_turns(restraint, 10_000.0) == 10


def test_burst_is_worked_off_without_earning() -> None:
    """Once half of the calls that were on their way are through, there is room for those that were refused."""
    restraint = Restraint()
    for _ in range(100):
        restraint.begin()
    for _ in range(60):
        restraint.end(is_answered=False, is_refused=True)
    assert count_turns(restraint, 0.0) == 10
    for _ in range(20):
        restraint.end(is_answered=False, is_refused=False)

    assert [restraint.hold(0.0) for _ in range(20)] == [0.0] * 20
    restraint.begin()
    assert restraint.hold(0.0)


def test_call_whose_turn_does_not_come_is_refused() -> None:
    """When its time is over, with what the server said. What is no refusal has no turn to wait for."""
    restraint = Restraint()
    restraint.hold(0.0)
    refuse_tries(restraint, 10)
    count_turns(restraint, 0.0)
    retry = Retry(RetryConfig(), 0.0, 10.0, restraint=restraint)
    assert retry.judge(REFUSAL, 0.0) is not None

    assert retry.hold(0.5)
    assert retry.hold(9.99) is None
    assert retry.failure is REFUSAL
    assert retry.judge(StrokeClientError("gone", "GONE", "UNAVAILABLE"), 1.0) is not None
    assert retry.hold(1.0) == 0.0


class Simulation:
    """Calls of one client to a server with one worker and a line, by the clock of the simulation."""

    def __init__(self, places: int, seconds: float) -> None:
        self._places, self._seconds = places, seconds
        self._restraint = Restraint()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = count()
        self._waiting = 0
        self._free_at = 0.0
        self.tries = self.answered = self.refused = 0

    def at(self, moment: float, event: Callable[[float], None]) -> None:
        """Plans an event."""
        heappush(self._events, (moment, next(self._number), event))

    def run(self) -> None:
        """Until nothing is planned any more."""
        while self._events:
            moment, _, event = heappop(self._events)
            event(moment)

    def call(self, moment: float, timeout: float) -> None:
        """Plans a call."""
        retry = Retry(RetryConfig(), moment, timeout, restraint=self._restraint)
        self.at(moment, partial(self._send, retry))

    def _send(self, retry: Retry, now: float) -> None:
        self.tries += 1
        self._restraint.begin()
        if self._waiting < self._places:
            self._waiting += 1
            self._free_at = max(self._free_at, now) + self._seconds
            self.at(self._free_at, self._answer)
            return
        self._restraint.end(is_answered=False, is_refused=True)
        pause = retry.judge(OverloadedError("full", "QUEUE_FULL", "RESOURCE_EXHAUSTED", retry_after=0.1), now)
        if pause is None:
            self.refused += 1
        else:
            self.at(now + pause, partial(self._hold, retry))

    def _hold(self, retry: Retry, now: float) -> None:
        pause = retry.hold(now)
        if pause is None:
            self.refused += 1
        elif pause:
            self.at(now + pause, partial(self._hold, retry))
        else:
            self._send(retry, now)

    def _answer(self, now: float) -> None:
        self._waiting -= 1
        self.answered += 1
        self._restraint.end(is_answered=True, is_refused=False)


@pytest.mark.parametrize("times", [3, 10])
def test_sustained_overload_is_not_made_worse(times: int) -> None:
    """However much is asked for, the server gets at most a tenth more than that, and has enough to do."""
    simulation, seen = Simulation(places=20, seconds=0.005), list[int]()
    calls = times * 200 * 4
    for number in range(calls):
        simulation.call(number / (times * 200), timeout=2)
    simulation.at(4, lambda now: seen.extend((simulation.tries, simulation.answered)))
    simulation.run()

    tries, answered = seen  # afterwards there is room for those that still wait
    assert tries <= 1.1 * calls
    assert answered >= 0.95 * 200 * 4
    assert simulation.answered + simulation.refused == calls


def test_all_of_a_burst_is_answered() -> None:
    """Ten times as many calls at once as the server takes: what is refused comes back as the line empties."""
    simulation = Simulation(places=20, seconds=0.005)
    for _ in range(200):
        simulation.call(0.0, timeout=10)
    simulation.run()

    assert (simulation.answered, simulation.refused) == (200, 0)
