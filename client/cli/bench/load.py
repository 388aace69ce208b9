"""Load on any server, from this process: closed loops, a stream, and open loops that follow a timetable.

A closed loop sends when the last answer has come. A server that stops for a while is then asked less often, and of the
requests that would have come meanwhile none is counted ("coordinated omission", Gil Tene). An open loop sends by a
timetable that does not know the server and counts from the time at which a request was due, whether or not it could be
sent then: a stop shows in all the requests that it kept waiting.

Standard library only, and nothing of this client: how a server is called is the caller's.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from itertools import count
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from ..latencies import Latencies

Times = Mapping[str, float]
"""The server's own times for one image, in milliseconds by name; empty where it does not tell."""

Send = Callable[[bytes], Times]
"""Sends one image and waits for its answer; raises where there is none. The exception's ``reason``, or its class, is
what failures are counted by."""

Connect = Callable[[], AbstractContextManager[Send]]
"""Opens what one sender sends on. One sender uses it at a time."""

Stream = Callable[[Iterable[bytes]], Iterator[Times | Exception]]
"""Sends images as they are taken, and yields what comes of each, in order; raises when all that is on its way is
lost."""

MOST_SENDERS = 128
"""Requests of an open loop that can be on their way at once, each in a thread of its own: several times the queue of a
server, which refuses what is beyond it."""

LATE_SECONDS = 0.010
"""A request that leaves later than this after it was due counts as late."""

PERCENTILES = (50.0, 90.0, 99.0, 99.9)

_PAUSE_AFTER_FAILURE = 0.1
"""Seconds that a client of a closed loop waits after a failure, as callers do; a refusal takes next to no time."""


@dataclass
class Load:
    """What one load found. Times in seconds."""

    seconds: float
    """Length of what is counted."""

    latencies: Latencies = field(default_factory=Latencies)
    """Of the images that were sent, or due, within that time and answered, whenever that was."""

    errors: Counter[str] = field(default_factory=Counter)
    """Images that were sent, or due, within that time and not answered, by reason; none of them is in ``latencies``."""

    completed: int = 0
    """Answers that came within that time, whenever the image was sent: what throughput is."""

    completed_bytes: int = 0
    """Bytes of their images."""

    answered: int = 0
    """All answers, those of the warm-up and after the end included: what the server has worked for."""

    server_ms: dict[str, float] = field(default_factory=dict)
    """Sums of the server's own times over ``latencies``, in milliseconds, by name."""

    late: int = 0
    """Images of an open loop that left more than ``LATE_SECONDS`` after they were due."""

    crowded: int = 0
    """Those of them for which no sender was free: the server had all of them waiting."""

    latest: float = 0.0
    """Longest time after which an image left."""

    @property
    def offered(self) -> int:
        """Images that were sent, or due, within the time that is counted."""
        return self.latencies.count + self.errors.total()

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.completed / self.seconds if self.seconds else 0.0


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

    def add_answer(self, started: float, times: Times, size: int) -> None:
        """Counts one image of ``size`` bytes whose answer has just come."""
        finished = time.monotonic()
        with self._lock:
            if self._closed:
                return
            self.load.answered += 1
            if self.begin <= finished < self.end:
                self.load.completed += 1
                self.load.completed_bytes += size
            if self.begin <= started < self.end:
                self.load.latencies.add(finished - started)
                for name, milliseconds in times.items():
                    self.load.server_ms[name] = self.load.server_ms.get(name, 0.0) + milliseconds

    def add_failure(self, started: float, reason: str) -> None:
        """Counts one image that was not answered."""
        with self._lock:
            if not self._closed and self.begin <= started < self.end:
                self.load.errors[reason] += 1

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
            if not self._closed:
                self._closed = True
                self.load.seconds = max(min(time.monotonic(), self.end) - self.begin, 0.0)


class LoadRun:
    """One load on one server, in threads of its own; use it in a ``with`` statement, and start it once.

    Args:
        images: encoded images, sent round robin.
        warmup: seconds of the same load before anything is counted.
        seconds: seconds that are counted.
        patience: seconds after which an image of an open loop that could not even be sent counts as failed, with the
            reason ``NOT_SENT``; so an overload ends soon after its timetable. Infinite: all of them are sent.
    """

    def __init__(self, images: Sequence[bytes], *, warmup: float, seconds: float, patience: float) -> None:
        self._images = images
        self._warmup = warmup
        self._seconds = seconds
        self._patience = patience
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._connections = ExitStack()
        self._free = 0
        self._lock = threading.Lock()
        self._set_clock()

    def __enter__(self) -> LoadRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._connections.close()

    @property
    def load(self) -> Load:
        """What was found so far; it changes until ``stop``."""
        return self._recorder.load

    @property
    def seconds_left(self) -> float:
        """Seconds until counting ends; negative while the last answers are waited for."""
        return self._recorder.end - time.monotonic()

    def start_closed(self, connect: Connect, clients: int) -> None:
        """Starts clients that send one image after the other; the clock starts when all are connected."""
        sends = [self._connections.enter_context(connect()) for _ in range(clients)]
        self._set_clock()
        for number, send in enumerate(sends):
            self._start(self._run_client, send, 17 * number)

    def start_stream(self, stream: Stream) -> None:
        """Starts one stream; it decides how many images are on their way."""
        self._set_clock()
        self._start(self._run_stream, stream)

    def start_open(self, connect: Connect, timetable: Sequence[float], senders: int = MOST_SENDERS) -> None:
        """Starts a timetable; the clock starts when all senders are connected.

        Args:
            connect: opens what one sender sends on.
            timetable: seconds from the start, that of the warm-up, ascending; see ``make_timetable``.
            senders: images that can be on their way at once.
        """
        sends = [self._connections.enter_context(connect()) for _ in range(min(senders, len(timetable)))]
        waiting: SimpleQueue[tuple[int, float, bool] | None] = SimpleQueue()
        self._free = len(sends)
        self._set_clock()
        for send in sends:
            self._start(self._run_sender, send, waiting)
        self._start(self._run_timetable, timetable, len(sends), waiting)

    def wait(self, seconds: float) -> bool:
        """Returns True when the load has ended, False after ``seconds``."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))
            if thread.is_alive():
                return False
        return True

    def stop(self) -> None:
        """Ends the load at once; what has not come back is not counted. May be called twice."""
        self._stopping.set()
        self._recorder.close()

    def _set_clock(self) -> None:
        self._started = time.monotonic()
        begin = self._started + self._warmup
        self._recorder = Recorder(begin, begin + self._seconds)

    def _start(self, run: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _goes_on(self) -> bool:
        return not self._stopping.is_set() and time.monotonic() < self._recorder.end

    def _run_client(self, send: Send, first: int) -> None:
        for index in count(first):
            if not self._goes_on():
                return
            if not self._send(send, index, time.monotonic()):
                self._stopping.wait(_PAUSE_AFTER_FAILURE)

    def _send(self, send: Send, index: int, started: float) -> bool:
        """Sends one image and counts what comes back, as if it had been sent at ``started``."""
        image = self._images[index % len(self._images)]
        try:
            times = send(image)
        except Exception as error:  # a refusal is a result: it is counted, and the load goes on
            self._recorder.add_failure(started, _name_reason(error))
            return False
        self._recorder.add_answer(started, times, len(image))
        return True

    def _run_stream(self, stream: Stream) -> None:
        sent: deque[tuple[float, int]] = deque()
        indices = count()

        def feed() -> Iterator[bytes]:
            while self._goes_on():
                image = self._images[next(indices) % len(self._images)]
                sent.append((time.monotonic(), len(image)))
                yield image

        while self._goes_on():
            try:
                for outcome in stream(feed()):
                    started, size = sent.popleft()
                    if isinstance(outcome, Exception):
                        self._recorder.add_failure(started, _name_reason(outcome))
                    else:
                        self._recorder.add_answer(started, outcome, size)
            except Exception as error:  # of all that were on their way
                for started, _ in sent:
                    self._recorder.add_failure(started, _name_reason(error))
                sent.clear()
                self._stopping.wait(_PAUSE_AFTER_FAILURE)

    def _run_timetable(
        self, timetable: Sequence[float], senders: int, waiting: SimpleQueue[tuple[int, float, bool] | None]
    ) -> None:
        for index, seconds in enumerate(timetable):
            due = self._started + seconds
            if self._stopping.wait(max(due - time.monotonic(), 0)):
                break
            with self._lock:
                crowded = self._free <= waiting.qsize()
            waiting.put((index, due, crowded))
        self._stopping.wait(max(self._recorder.end - time.monotonic(), 0))
        for _ in range(senders):
            waiting.put(None)

    def _run_sender(self, send: Send, waiting: SimpleQueue[tuple[int, float, bool] | None]) -> None:
        while (item := waiting.get()) is not None and not self._stopping.is_set():
            index, due, crowded = item
            if time.monotonic() - due > self._patience:
                self._recorder.add_failure(due, "NOT_SENT")
                continue
            with self._lock:
                self._free -= 1
            self._recorder.add_departure(due, crowded=crowded)
            self._send(send, index, due)
            with self._lock:
                self._free += 1


def make_timetable(
    rate: float, seconds: float, *, warmup: float = 0.0, arrivals: str = "poisson", seed: int = 0
) -> list[float]:
    """Returns when images are due, in seconds from the start, ascending: exactly ``rate`` times ``seconds`` of them
    within the time that is counted.

    Args:
        rate: images per second.
        seconds: length of what is counted.
        warmup: seconds before it, with a timetable of their own at the same rate.
        arrivals: ``poisson``: independent of each other, as those of many callers; ``fixed``: evenly spaced.
        seed: which Poisson timetable.
    """

    def list_arrivals(length: float) -> list[float]:
        number = round(rate * length)
        if arrivals == "fixed":
            return [index / rate for index in range(number)]
        # Given their number, the arrivals of a Poisson process are independent and uniform (Ross, Introduction to
        # Probability Models, theorem 5.2); so even a short run offers the rate that it says.
        source = random.Random(seed)
        return sorted(source.uniform(0, length) for _ in range(number))

    return [*list_arrivals(warmup), *(warmup + due for due in list_arrivals(seconds))]


def describe_load(load: Load, *, is_open: bool) -> dict[str, Any]:
    """Returns the figures of a load as JSON has them: times in milliseconds, None what there is none of."""
    latencies = load.latencies
    answered = latencies.count
    percentiles = latencies.find_percentiles(PERCENTILES)
    return {
        "seconds": round(load.seconds, 3),
        "answered": answered,
        "failed": load.errors.total(),
        "errors": dict(load.errors.most_common()),
        "offered_per_s": round(load.offered / load.seconds if load.seconds else 0.0, 3) if is_open else None,
        "images_per_s": round(load.rate, 3),
        "bytes_per_s": round(load.completed_bytes / load.seconds) if load.seconds else 0,
        "latency_ms": {
            "min": _to_ms(latencies.minimum),
            "mean": _to_ms(latencies.mean),
            **{f"p{percent:g}": _to_ms(value) for percent, value in zip(PERCENTILES, percentiles, strict=True)},
            "max": _to_ms(latencies.maximum),
        }
        if answered
        else None,
        "server_ms": {name: round(total / answered, 3) for name, total in load.server_ms.items()} if answered else None,
        "late": {"images": load.late, "no_sender_free": load.crowded, "max_ms": _to_ms(load.latest)}
        if is_open
        else None,
    }


def _to_ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _name_reason(error: Exception) -> str:
    return getattr(error, "reason", "") or type(error).__name__
