"""Who does the work: at most so many at a time, the others wait in a line that is bounded.

A caller for whom there is room does the work itself: no other thread has to wake up for a request that comes alone.
Once there is a line, threads of the pool work it off, each taking the next piece as soon as it is through with one: no
processor waits for a thread to wake up (measured at 8 callers: idle for 2 to 5 % of the time instead of 8 to 14 %).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

from server.errors import BudgetExceededError, OverloadedError

Result = TypeVar("Result")


class Job(Generic[Result]):
    """A piece of work that waits in the line, and then its outcome."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._result: Result
        self._error: BaseException | None = None
        self._running = threading.Lock()
        self._running.acquire()

    def run(self) -> None:
        """Does the work. Never raises."""
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error
        self._running.release()

    def wait(self, timeout: float = -1) -> bool:
        """True once the work is done; False after ``timeout`` seconds, of which -1 means for ever."""
        return self._running.acquire(timeout=timeout)

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
    """Runs work, at most ``workers`` pieces at the same time. Safe to call from many threads."""

    def __init__(self, workers: int, queue: int) -> None:
        """Args:
        workers: pieces of work at the same time, at least 1.
        queue: pieces that may wait, at least 0.
        """
        self._lock = threading.Lock()
        self._free = workers
        self._most = workers + queue
        self._in_flight = 0
        self._line: deque[Job[object]] = deque()
        self._handed_over: SimpleQueue[Job[object]] = SimpleQueue()
        for number in range(workers):
            threading.Thread(target=self._work_off, name=f"worker-{number}", daemon=True).start()

    @property
    def in_flight(self) -> int:
        """Pieces that are in work or wait."""
        return self._in_flight

    def run(self, work: Callable[[], Result], timeout: float) -> Result:
        """Returns or raises what ``work`` does, in this or another thread.

        Args:
            work: takes no arguments.
            timeout: how long it may wait, in seconds; what has been started is finished.

        Raises:
            OverloadedError: reason QUEUE_FULL.
            BudgetExceededError: reason DEADLINE_IN_QUEUE.
        """
        job: Job[Result] | None = None
        with self._lock:
            if self._in_flight >= self._most:
                raise OverloadedError(
                    "QUEUE_FULL", "The server has as many images waiting as it accepts: try again in a moment."
                )
            self._in_flight += 1
            if self._free:
                self._free -= 1
            else:
                job = Job(work)
                self._line.append(job)  # type: ignore[arg-type]
        try:
            if job is not None:
                return self._wait(job, timeout)
            try:
                return work()
            finally:
                following = self._take_next()
                if following is not None:
                    self._handed_over.put(following)
        finally:
            with self._lock:
                self._in_flight -= 1

    def _wait(self, job: Job[Result], timeout: float) -> Result:
        if not job.wait(timeout):
            with self._lock:
                if job in self._line:
                    self._line.remove(job)  # type: ignore[arg-type]
                    raise BudgetExceededError("DEADLINE_IN_QUEUE", "The deadline passed while the image was waiting.")
            job.wait()
        return job.take_result()

    def _take_next(self) -> Job[object] | None:
        """The next in the line for whoever has finished a piece; None, and there is room, when nobody waits."""
        with self._lock:
            if self._line:
                return self._line.popleft()
            self._free += 1
            return None

    def _work_off(self) -> None:
        while True:
            job: Job[object] | None = self._handed_over.get()
            while job is not None:
                job.run()
                job = self._take_next()
