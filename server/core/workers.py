"""Who does the work: at most so many at a time, the others wait in lines that are bounded.

Nobody who hands work over waits here: the outcome is called back. A thread takes the next piece as soon as it is
through with one, so no processor waits for a thread to wake up.

There is one line of single pieces, which is bounded here, and one of those of sources of many images (streams), which
bound what they hand over themselves. The two are served in turn, and within each its callers (``FairLine``). Urgent
single pieces go before the others, of which every fourth one is served nevertheless.

A single piece is let in when it is likely to be done within its caller's time, so that a burst waits instead of being
refused. Where more comes for long than can be done, that would only make everybody wait as long as they can bear. So
once somebody had to be refused, no more is let in than is done in a moment, until the line was empty once.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from server.core.lines import FairLine
from server.errors import BudgetExceededError, OverloadedError

Result = TypeVar("Result")

USUAL_SECONDS = 0.02
"""What a piece of work is taken to last before any has been done."""

SHORTEST_HINT_SECONDS = 0.02

LIKELY = 0.8
"""Share of a caller's time within which its piece must be expected to be done: pieces differ."""

OVERLOAD_SECONDS = 0.1
"""Longest expected wait of what is let in during an overload."""

PATIENT_SECONDS = 1.0
"""Somebody with less time who is refused says nothing of the load."""

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
        self._line: FairLine[Job[Any]] | None = None
        self._source: Hashable = None
        self._result: Result
        self._error: BaseException | None = None

    def wait_in(self, line: FairLine[Job[Any]], source: Hashable) -> None:
        """Goes to the end of a line, among the jobs of ``source``."""
        self._line, self._source = line, source
        line.add(source, self)

    def leave(self) -> bool:
        """Leaves its line. False: it is in none."""
        return self._line is not None and self._line.remove(self._source, self)

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
            queue: single pieces that may wait, at least 0. No caller gets more of it than it leaves free for others.
        """
        self._lock = threading.Lock()
        self._workers = self._free = workers
        self._queue = queue
        self._singles: FairLine[Job[Any]] = FairLine()
        self._urgent: FairLine[Job[Any]] = FairLine()
        self._urgent_turns = 0
        self._sources: FairLine[Job[Any]] = FairLine()
        self._singles_turn = True
        self._is_overloaded = False
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
        return self._waiting_singles + len(self._sources)

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
        caller: Hashable = None,
        seconds: float = math.inf,
        urgent: bool = False,
    ) -> Job[Result]:
        """Lets a thread do ``work`` as soon as one can.

        Args:
            work: takes no arguments.
            on_done: called in that thread with the job, whose result can then be taken.
            source: of one piece of many, who takes turns with others and bounds what waits; None: it is a single one.
            caller: of a single piece, who takes turns with others and has a share of the line; None: nobody known.
            seconds: of a single piece, how long its caller waits for it to be done.
            urgent: of a single piece, that it goes before others.

        Raises:
            OverloadedError: reason QUEUE_FULL, for a single piece.
        """
        job = Job(work, on_done)
        with self._lock:
            if self._free:
                self._free -= 1
            elif source is not None:
                job.wait_in(self._sources, source)
                return job
            else:
                self._check_single(caller, seconds, urgent)
                job.wait_in(self._urgent if urgent else self._singles, caller)
                return job
        self._handed_over.put(job)
        return job

    def check_room(self, caller: Hashable = None, seconds: float = math.inf, *, urgent: bool = False) -> None:
        """Says what ``submit`` would say of a single piece now.

        Raises:
            OverloadedError: reason QUEUE_FULL.
        """
        if not self._free:
            with self._lock:
                self._check_single(caller, seconds, urgent)

    def withdraw(self, job: Job[Any]) -> bool:
        """Takes a job back that has not been started; ``on_done`` is then never called. False: it was started."""
        with self._lock:
            return job.leave()

    def _check_single(self, caller: Hashable, seconds: float, urgent: bool) -> None:
        """Raises OverloadedError unless a single piece may wait."""
        waiting = self._waiting_singles
        own = 0 if caller is None else self._singles.count(caller) + self._urgent.count(caller)
        wait = self._expect_wait(caller, urgent)
        if waiting >= self._queue or (own and own >= self._queue - waiting):
            self._is_overloaded = True
            raise self._refuse("The server has as many images waiting as it accepts: try again in a moment.", wait)
        likely = LIKELY * seconds - self._seconds
        if wait > likely:
            self._is_overloaded = self._is_overloaded or seconds >= PATIENT_SECONDS
            raise self._refuse("The images that wait would take longer than the call has time.", wait)
        if self._is_overloaded and wait > OVERLOAD_SECONDS:
            raise self._refuse("More images come than the server can judge: try again in a moment.", wait)

    def _expect_wait(self, caller: Hashable, urgent: bool) -> float:
        """Seconds until a single piece that came now would be taken, where all threads have work."""
        before = self._urgent.count_before(caller)
        if urgent:
            before += min(len(self._singles), before // URGENT_TURNS)
        else:
            ordinary = self._singles.count_before(caller)
            before = ordinary + min(before, URGENT_TURNS * (ordinary + 1))
        before += min(len(self._sources), before + 1)  # singles and sources take turns
        return self._seconds * (before + 1) / self._workers

    def _refuse(self, message: str, wait: float) -> OverloadedError:
        # When half of the line has been worked off there is room again, and those who come then do not come in vain.
        return OverloadedError("QUEUE_FULL", message, retry_after=max(SHORTEST_HINT_SECONDS, wait / 2))

    def note_duration(self, seconds: float) -> None:
        """Learns how long a piece of work lasts, by which it is told who can be done in time."""
        self._seconds += (seconds - self._seconds) / 8

    def _take_next(self) -> Job[Any] | None:
        """What comes next for whoever has finished a piece; None, and there is room, when nothing waits."""
        with self._lock:
            singles = self._waiting_singles
            self._is_overloaded = self._is_overloaded and singles > 0
            if singles and (self._singles_turn or not self._sources):
                self._singles_turn = False
                return self._take_single()
            if self._sources:
                self._singles_turn = True
                return self._sources.take()
            self._free += 1
            return None

    def _take_single(self) -> Job[Any]:
        if self._urgent and (self._urgent_turns < URGENT_TURNS or not self._singles):
            self._urgent_turns += 1
            return self._urgent.take()
        self._urgent_turns = 0
        return self._singles.take()

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
