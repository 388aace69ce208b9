"""Load that is held on a server while something is done to it: an open loop, whose arrivals do not wait for answers."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.faults.callers import Caller, close_all
from bench.faults.history import OK, Ended
from client.cli.latencies import find_percentile

POLL_SECONDS = 0.005


Span = tuple[float, float]
"""From when until when, in seconds of ``time.monotonic``."""


@dataclass(frozen=True)
class Call:
    """One call of a load. Times are seconds of ``time.monotonic``."""

    due: float
    """When it should have been sent, whether or not it could be."""

    ended: Ended

    @property
    def seconds(self) -> float:
        """From when it was due to its end."""
        return self.ended.at - self.due


class HeldLoad:
    """Sends images at a rate until it is stopped; use it in a ``with`` statement.

    Attributes:
        calls: those that have ended.
    """

    def __init__(
        self,
        callers: Sequence[Caller],
        images: Sequence[bytes],
        *,
        rate: float,
        deadline: float,
        seed: int,
        senders: int = 12,
    ) -> None:
        """Sends nothing yet.

        Args:
            callers: who call in turn; they are closed at the end.
            images: what they send, in turn.
            rate: calls a second, at times that are independent of each other, as those of many users.
            deadline: seconds of each call.
            seed: which arrivals.
            senders: calls that can be on their way at once; what is due beyond that is late, and counted as such.
        """
        self._callers, self._images = list(callers), list(images)
        self._rate, self._deadline = rate, deadline
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._number = 0
        self._due = 0.0
        self.in_flight = 0
        self.calls: list[Call] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(senders)]

    def __enter__(self) -> HeldLoad:
        self._due = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Sends no more, and waits for the ends of what was sent. May be called twice."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(3 * self._deadline + 30)
        close_all(self._callers)
        self._callers = []

    def wait_answers(self, number: int, seconds: float = 60.0) -> bool:
        """Waits for so many more good answers; returns False when they do not come in time."""
        wanted = self.count_answers() + number
        return wait_until(lambda: self.count_answers() >= wanted, seconds)

    def wait_in_flight(self, seconds: float = 10.0) -> bool:
        """Waits until a call is on its way; returns False when none is in time."""
        return wait_until(lambda: self.in_flight > 0, seconds)

    def count_answers(self) -> int:
        """Good answers so far."""
        return sum(call.ended.status == OK for call in list(self.calls))

    def count_failures(self) -> Counter[str]:
        """What was not answered, by status and reason."""
        return count_failures([call.ended for call in list(self.calls)])

    def find_latency(self, percent: float, *spans: Span) -> float:
        """A percentile of the seconds of those that were answered and due in some spans of time, without any in all of
        it; 0 of none."""
        found = [
            call.seconds
            for call in list(self.calls)
            if call.ended.status == OK and (not spans or any(since <= call.due < until for since, until in spans))
        ]
        return find_percentile(sorted(found), percent) if found else 0.0

    def _take(self) -> tuple[float, Caller, bytes]:
        with self._lock:
            number, self._number = self._number, self._number + 1
            self._due += self._random.expovariate(self._rate)
            return self._due, self._callers[number % len(self._callers)], self._images[number % len(self._images)]

    def _run(self) -> None:
        while not self._stopping.is_set():
            due, caller, image = self._take()
            if self._stopping.wait(max(0.0, due - time.monotonic())):
                return
            with self._lock:
                self.in_flight += 1
            ended = caller.call(image, self._deadline)
            with self._lock:
                self.in_flight -= 1
                self.calls.append(Call(due, ended))


def count_failures(ends: Sequence[Ended]) -> Counter[str]:
    """What was not answered, by status and reason."""
    return Counter(f"{one.status} {one.reason}".strip() for one in ends if one.status != OK)


def wait_until(is_so: Callable[[], object], seconds: float) -> bool:
    """Polls until something is so; returns False when it is not in time."""
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def measure_rate(callers: Sequence[Caller], images: Sequence[bytes], seconds: float) -> float:
    """Answers a second where each caller sends again as soon as it is answered: what saturation is."""
    counts = [0] * len(callers)
    end = time.monotonic() + seconds

    def run(index: int) -> None:
        while time.monotonic() < end:
            ended = callers[index].call(images[(counts[index] + index) % len(images)], 30.0)
            counts[index] += ended.status == OK

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(callers))]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - started)
