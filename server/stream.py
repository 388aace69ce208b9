"""Reading one stream of requests ahead of its answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from server.errors import StrokeError
from server.scheduling import give_way
from server.workers import Job

HOLD_SECONDS = 0.05
"""How long finished answers wait for the rest of their message: one message costs less than several."""

Request = TypeVar("Request")
Response = TypeVar("Response")


class RequestReader(Generic[Request, Response]):
    """Takes messages from a gRPC iterator in a thread of its own, and gives the answers in the same order.

    Needed because waiting for the next message must not hold back the answer to the one before: some callers send the
    next image only when they have read the last answer.
    """

    def __init__(
        self, requests: Iterator[Request], window: int, submit: Callable[[Request], Sequence[Job[Response]]]
    ) -> None:
        """Args:
        requests: blocks until a message arrives; raises when the call has ended.
        window: messages that may be unanswered before no more are taken, at least 1; the rest waits in the network.
        submit: starts the work on the images of one message, of which there is at least one. A StrokeError from it
            ends the stream after the answers before it.
        """
        self._requests = requests
        self._submit = submit
        # Two plain queues, one of them of permits: a bounded one costs several times as much, and for every message.
        self._answers: SimpleQueue[Sequence[Job[Response]] | None] = SimpleQueue()
        self._places: SimpleQueue[bool] = SimpleQueue()
        for _ in range(window):
            self._places.put(True)
        self._error: StrokeError | None = None
        threading.Thread(target=self._read, name="stream-reader", daemon=True).start()

    def _read(self) -> None:
        give_way()
        try:
            while self._places.get():
                self._answers.put(self._submit(next(self._requests)))
        except StopIteration:
            pass
        except StrokeError as error:
            self._error = error
        except Exception:
            # The iterator raises when the caller has gone or the call was ended here; then nobody reads the answers.
            pass
        finally:
            self._answers.put(None)

    def read_answers(self, poll_seconds: float) -> Iterator[Sequence[Response]]:
        """Yields answers in order, those of one message together unless some of them take long; none of them, whenever
        nothing has arrived for ``poll_seconds``.

        Raises:
            StrokeError: what ``submit`` raised, after the answers to the requests before.
        """
        while True:
            try:
                jobs = self._answers.get(timeout=poll_seconds)
            except Empty:
                yield ()
                continue
            if jobs is None:
                break
            while jobs:
                wait_for_all(jobs, HOLD_SECONDS)
                jobs[0].wait()
                answers = [job.take_result() for job in takewhile(Job.is_done, jobs)]
                jobs = jobs[len(answers) :]  # no job is kept while the caller takes its time: it holds its image
                if not jobs:
                    self._places.put(True)
                yield answers
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Lets the thread end.

        Does not wait for the thread: it may sit in ``requests`` until the call itself has ended. Work that waits is not
        taken back: it ends by itself, since nobody wants it any more.
        """
        self._places.put(False)


def wait_for_all(jobs: Sequence[Job[Response]], seconds: float) -> None:
    """Returns when all is done, or after ``seconds``."""
    until = time.monotonic() + seconds
    # The last first: as a rule it is done last, and whoever waits for each wakes up for each.
    all(job.wait(max(0.0, until - time.monotonic())) for job in reversed(jobs))


class StallWatch:
    """Ends a stream whose caller does not read: gRPC's send would wait for ever, and with it the stream's place."""

    def __init__(self, limit_seconds: float, end_stream: Callable[[], None]) -> None:
        """Args:
        limit_seconds: how long one answer may wait to be taken.
        end_stream: called once, from another thread.
        """
        self._limit = limit_seconds
        self._end_stream = end_stream
        self._sending_since: float | None = None
        self._done = threading.Event()
        threading.Thread(target=self._watch, name="stream-watch", daemon=True).start()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Around the handing over of one answer."""
        self._sending_since = time.monotonic()
        try:
            yield
        finally:
            self._sending_since = None

    def close(self) -> None:
        """Ends the watch."""
        self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(self._limit / 4):
            since = self._sending_since
            if since is not None and time.monotonic() - since > self._limit:
                self._end_stream()
                return
