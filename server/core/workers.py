"""Who does the work: at most so many at a time, the others wait in lines that are bounded.

Nobody who hands work over waits here: the outcome is called back. A thread takes the next piece as soon as it is
through with one, so no processor waits for a thread to wake up.

There is one line of single callers, which is bounded here, and one for each source of many images (a stream), which
bounds what it hands over itself. Single callers and sources are served round robin, and so are sources: a long
line of one kind or of one caller does not hold up the others. Urgent single pieces go before the others, of which every
fourth one is served nevertheless.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from server.errors import BudgetExceededError, OverloadedError

Result = TypeVar("Result")

USUAL_SECONDS = 0.02
"""What a piece of work is taken to last before any has been done."""

SHORTEST_HINT_SECONDS = 0.02


URGENT_TURNS = 3
"""Urgent pieces that are served one after another while others wait."""


class Job(Generic[Result]):
    """A piece of work that waits in a line, and then its outcome."""

    def __init__(self, work: Callable[[], Result], on_done: Callable[[Job[Result]], None]) -> None:
        """Makes a job that waits.

        Args:
            work: takes no arguments.
            on_done: called once with this job, in the thread that did the work; must neither block nor raise.
        """
        self._work: Callable[[], Result] | None = work
        self._on_done = on_done
        self._result: Result
        self._error: BaseException | None = None

    def run(self) -> None:
        """Does the work. Never raises."""
        assert self._work is not None
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error
        self._work = None  # it holds the image

    def finish(self) -> None:
        """Tells that the work is done."""
        self._on_done(self)

    def take_result(self) -> Result:
        """Returns or raises what the work did; once only."""
        if self._error is not None:
            error, self._error = self._error, None  # no cycle of error, frames and this, which would keep the image
            try:
                raise error
            finally:
                del error
        return self._result


class WorkerPool:
    """Runs work in its threads, at most ``workers`` pieces at the same time. Safe to call from many threads."""

    def __init__(self, workers: int, queue: int) -> None:
        """Starts the threads, which end with the process.

        Args:
            workers: pieces of work at the same time, at least 1.
            queue: single pieces that may wait, at least 0.
        """
        self._lock = threading.Lock()
        self._workers = self._free = workers
        self._queue = queue
        self._singles: deque[Job[Any]] = deque()
        self._urgent: deque[Job[Any]] = deque()
        self._urgent_turns = 0
        self._sources: OrderedDict[Hashable, deque[Job[Any]]] = OrderedDict()
        self._from_sources = 0
        self._singles_turn = True
        self._seconds = USUAL_SECONDS
        self._handed_over: SimpleQueue[Job[Any]] = SimpleQueue()
        for number in range(workers):
            threading.Thread(target=self._work_off, name=f"worker-{number}", daemon=True).start()

    @property
    def in_flight(self) -> int:
        """Pieces that are in work or wait."""
        return self._workers - self._free + self.waiting

    @property
    def waiting(self) -> int:
        """Pieces that wait."""
        return self._waiting_singles + self._from_sources

    @property
    def _waiting_singles(self) -> int:
        return len(self._singles) + len(self._urgent)

    @property
    def free(self) -> int:
        """Threads that have no work."""
        return self._free

    def submit(
        self,
        work: Callable[[], Result],
        on_done: Callable[[Job[Result]], None],
        *,
        source: Hashable = None,
        urgent: bool = False,
    ) -> Job[Result]:
        """Lets a thread do ``work`` as soon as one can.

        Args:
            work: takes no arguments.
            on_done: called in that thread with the job, whose result can then be taken.
            source: whose line it waits in, and who bounds that line; None: that of the single callers.
            urgent: of a single piece, that it goes before others.

        Raises:
            OverloadedError: reason QUEUE_FULL, for a single piece.
        """
        job = Job(work, on_done)
        with self._lock:
            if self._free:
                self._free -= 1
            elif source is not None:
                self._sources.setdefault(source, deque()).append(job)
                self._from_sources += 1
                return job
            elif self._waiting_singles < self._queue:
                (self._urgent if urgent else self._singles).append(job)
                return job
            else:
                raise self._full()
        self._handed_over.put(job)
        return job

    def check_room(self) -> None:
        """Says what ``submit`` would say of a single piece now.

        Raises:
            OverloadedError: reason QUEUE_FULL.
        """
        if not self._free and self._waiting_singles >= self._queue:
            raise self._full()

    def withdraw(self, job: Job[Any], source: Hashable = None) -> bool:
        """Takes a job back that has not been started; ``on_done`` is then never called. False: it was started."""
        with self._lock:
            if source is None:
                line = self._urgent if job in self._urgent else self._singles
            else:
                line = self._sources.get(source, deque())
            try:
                line.remove(job)
            except ValueError:
                return False
            if source is not None:
                self._from_sources -= 1
                if not line:
                    del self._sources[source]
            return True

    def _full(self) -> OverloadedError:
        # When half of the line has been worked off there is room again, and those who come then do not come in vain.
        wait = self._seconds * (1 + self._waiting_singles / 2) / self._workers
        return OverloadedError(
            "QUEUE_FULL",
            "The server has as many images waiting as it accepts: try again in a moment.",
            retry_after=max(SHORTEST_HINT_SECONDS, wait),
        )

    def note_duration(self, seconds: float) -> None:
        """Learns how long a piece of work lasts, for the hints to those who are refused."""
        self._seconds += (seconds - self._seconds) / 8

    def _take_next(self) -> Job[Any] | None:
        """What comes next for whoever has finished a piece; None, and there is room, when nothing waits."""
        with self._lock:
            if self._waiting_singles and (self._singles_turn or not self._sources):
                self._singles_turn = False
                return self._take_single()
            if self._sources:
                self._singles_turn = True
                source, line = self._sources.popitem(last=False)
                job = line.popleft()
                self._from_sources -= 1
                if line:
                    self._sources[source] = line  # behind all others
                return job
            self._free += 1
            return None

    def _take_single(self) -> Job[Any]:
        if self._urgent and (self._urgent_turns < URGENT_TURNS or not self._singles):
            self._urgent_turns += 1
            return self._urgent.popleft()
        self._urgent_turns = 0
        return self._singles.popleft()

    def _work_off(self) -> None:
        while True:
            job: Job[Any] | None = self._handed_over.get()
            while job is not None:
                job.run()
                following = self._take_next()
                job.finish()
                job = following


def waited_too_long() -> BudgetExceededError:
    return BudgetExceededError("DEADLINE_IN_QUEUE", "The deadline passed while the image was waiting.")
