"""Load on a server, from this process: closed loops, a stream, and open loops that follow a timetable.

A closed loop sends when the last answer has come. A server that stops for a while is then asked less often, and of the
requests that would have come meanwhile none is counted ("coordinated omission", Gil Tene). An open loop sends by a
timetable that does not know the server and counts from the time at which a request was due, whether or not it could be
sent then: a stop shows in all the requests that it kept waiting.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ..._errors import StrokeClientError
from ..._types import Prediction
from .histogram import LatencyHistogram

if TYPE_CHECKING:
    from ..._client import StrokeClient

MOST_SENDERS = 128
"""Requests of an open loop that can be on their way at once, each in a thread of its own: several times the queue of a
server, which refuses what is beyond it."""

LATE_SECONDS = 0.010
"""A request that leaves later than this after it was due counts as late."""

_PAUSE_AFTER_FAILURE = 0.1
"""Seconds that a client of a closed loop waits after a failure, as callers do; a refusal takes next to no time."""

ARRIVALS = ("poisson", "fixed")


@dataclass
class Load:
    """What one load found. Times in seconds."""

    seconds: float
    """Length of what is counted."""

    latencies: LatencyHistogram = field(default_factory=LatencyHistogram)
    """Of the images that were sent, or due, within that time and answered."""

    errors: Counter[str] = field(default_factory=Counter)
    """Images that were sent, or due, within that time and not answered, by reason; none of them is in ``latencies``."""

    completed: int = 0
    """Answers that came within that time, whenever the image was sent: what throughput is."""

    completed_bytes: int = 0
    """Bytes of their images."""

    server_ms: dict[str, float] = field(default_factory=lambda: {"decode": 0.0, "queue": 0.0, "inference": 0.0})
    """Sums of the server's own times over ``latencies``, in milliseconds."""

    late: int = 0
    """Images of an open loop that left more than ``LATE_SECONDS`` after they were due."""

    crowded: int = 0
    """Those of them for which no sender was free: the server had ``MOST_SENDERS`` of them waiting."""

    latest: float = 0.0
    """Longest time after which an image left."""


class Recorder:
    """Collects what comes back, from several threads.

    Args:
        begin: time from which on is counted, of ``time.monotonic``.
        end: time at which counting ends.
    """

    def __init__(self, begin: float, end: float) -> None:
        self.load = Load(end - begin)
        self.begin = begin
        self.end = end
        self._lock = threading.Lock()
        self._closed = False

    def add(self, started: float, outcome: Prediction | StrokeClientError, size: int) -> None:
        """Counts one image of ``size`` bytes whose answer or failure has just come."""
        finished = time.monotonic()
        with self._lock:
            if self._closed:
                return
            counted = self.begin <= started < self.end
            if isinstance(outcome, StrokeClientError):
                if counted:
                    self.load.errors[outcome.reason] += 1
                return
            if self.begin <= finished < self.end:
                self.load.completed += 1
                self.load.completed_bytes += size
            if counted:
                self.load.latencies.record(finished - started)
                for name, milliseconds in self.load.server_ms.items():
                    self.load.server_ms[name] = milliseconds + getattr(outcome.timings, f"{name}_ms")

    def add_departure(self, due: float, *, crowded: bool) -> None:
        """Notes when an image of an open loop leaves."""
        delay = time.monotonic() - due
        with self._lock:
            if not self._closed and self.begin <= due < self.end:
                self.load.latest = max(self.load.latest, delay)
                if delay > LATE_SECONDS:
                    self.load.late += 1
                    self.load.crowded += crowded

    def close(self) -> None:
        """Ends counting, now if that is earlier than planned; what is cut off is neither answered nor failed."""
        with self._lock:
            self._closed = True
            self.load.seconds = max(min(time.monotonic(), self.end) - self.begin, 0.0)


class LoadRun:
    """One load on one server, in threads of its own.

    Args:
        client: sends; closed by the caller.
        images: encoded images, sent in turns.
        model: name of the model that judges; empty: the server's default.
        version: its version; empty: the server's default.
        warmup: seconds of the same load before anything is counted.
        seconds: seconds that are counted.
        patience: seconds after which an image of an open loop that could not even be sent counts as failed, with the
            reason ``NOT_SENT``; so an overload ends soon after its timetable.
    """

    def __init__(
        self,
        client: StrokeClient,
        images: Sequence[bytes],
        *,
        model: str = "",
        version: str = "",
        warmup: float,
        seconds: float,
        patience: float,
    ) -> None:
        begin = time.monotonic() + warmup
        self.recorder = Recorder(begin, begin + seconds)
        self._started = begin - warmup
        self._client = client
        self._images = images
        self._model = model
        self._version = version
        self._patience = patience
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()

    def start_closed(self, clients: int) -> None:
        """Starts clients that send one image after the other."""
        for number in range(clients):
            self._start(self._run_client, 17 * number)

    def start_stream(self, in_flight: int) -> None:
        """Starts one ``predict_many`` with so many images on their way."""
        self._start(self._run_stream, in_flight)

    def start_open(self, timetable: Sequence[float]) -> None:
        """Starts a timetable: seconds from the start, ascending."""
        self._start(self._run_timetable, timetable)

    def wait(self, seconds: float) -> bool:
        """Returns True when the load has ended, False after ``seconds``."""
        end = time.monotonic() + seconds
        for thread in self._threads:  # the timetable, which comes first, adds its senders while it lasts
            thread.join(max(end - time.monotonic(), 0))
            if thread.is_alive():
                return False
        return True

    def stop(self) -> None:
        """Ends the load at once; what has not come back is not counted."""
        self._stopping.set()
        self.recorder.close()

    def _start(self, run: Callable[..., None], argument: object) -> None:
        thread = threading.Thread(target=run, args=(argument,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _goes_on(self) -> bool:
        return not self._stopping.is_set() and time.monotonic() < self.recorder.end

    def _run_client(self, first: int) -> None:
        for index in count(first):
            if not self._goes_on():
                return
            if not self._send(index, time.monotonic()):
                self._stopping.wait(_PAUSE_AFTER_FAILURE)

    def _send(self, index: int, started: float) -> bool:
        """Sends one image and counts what comes back, as if it had been sent at ``started``."""
        image = self._images[index % len(self._images)]
        outcome: Prediction | StrokeClientError
        try:
            outcome = self._client.predict(image, model=self._model, version=self._version)
        except StrokeClientError as error:
            outcome = error
        self.recorder.add(started, outcome, len(image))
        return isinstance(outcome, Prediction)

    def _run_stream(self, in_flight: int) -> None:
        sent: deque[tuple[float, int]] = deque()
        index = 0

        def feed() -> Generator[bytes, None, None]:
            nonlocal index
            while self._goes_on():
                image = self._images[index % len(self._images)]
                index += 1
                sent.append((time.monotonic(), len(image)))
                yield image

        while self._goes_on():
            try:
                results = self._client.predict_many(
                    feed(), model=self._model, version=self._version, in_flight=in_flight
                )
                with closing(results):
                    for result in results:
                        outcome = result if isinstance(result, Prediction) else result.error
                        self.recorder.add(sent[0][0], outcome, sent[0][1])
                        sent.popleft()
            except StrokeClientError as error:  # of all that were on their way
                for started, size in sent:
                    self.recorder.add(started, error, size)
                sent.clear()
                self._stopping.wait(_PAUSE_AFTER_FAILURE)

    def _run_timetable(self, timetable: Sequence[float]) -> None:
        waiting: SimpleQueue[tuple[int, float, bool] | None] = SimpleQueue()
        senders = 0
        for index, seconds in enumerate(timetable):
            due = self._started + seconds
            if self._stopping.wait(max(due - time.monotonic(), 0)):
                break
            with self._lock:
                free = self._idle > waiting.qsize()
            if not free and senders < MOST_SENDERS:
                self._start(self._run_sender, waiting)
                senders += 1
                free = True
            waiting.put((index, due, not free))
        self._stopping.wait(max(self.recorder.end - time.monotonic(), 0))
        for _ in range(senders):
            waiting.put(None)

    def _run_sender(self, waiting: SimpleQueue[tuple[int, float, bool] | None]) -> None:
        while True:
            with self._lock:
                self._idle += 1
            item = waiting.get()
            with self._lock:
                self._idle -= 1
            if item is None or self._stopping.is_set():
                return
            index, due, crowded = item
            if time.monotonic() - due > self._patience:
                self.recorder.add(due, StrokeClientError("it could not be sent in time", "NOT_SENT"), 0)
                continue
            self.recorder.add_departure(due, crowded=crowded)
            self._send(index, due)


def make_timetable(rate: float, seconds: float, arrivals: str, seed: int) -> list[float]:
    """Returns when images are due, in seconds from the start, ascending: exactly ``rate * seconds`` of them.

    Args:
        rate: images per second.
        seconds: length of the timetable.
        arrivals: ``poisson``: independent of each other, as those of many callers; ``fixed``: evenly spaced.
        seed: which Poisson timetable.
    """
    number = round(rate * seconds)
    if arrivals == "fixed":
        return [index / rate for index in range(number)]
    # Given their number, the arrivals of a Poisson process are independent and uniform (Ross, Introduction to
    # Probability Models, theorem 5.2); so even a short run offers the rate that it says.
    source = random.Random(seed)
    return sorted(source.uniform(0, seconds) for _ in range(number))
