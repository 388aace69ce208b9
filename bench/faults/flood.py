"""``python -m bench.faults.flood``: more calls than a server can answer, from a process of its own, which stays on
processors that the server does not use. Prints what came of them as JSON.

One thread sends by a timetable that does not wait for answers, on several connections, without repetitions. With
``--library`` callers of this project's client do, each of whom waits for an answer before it sends again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.faults.callers import HINT_KEY, LibraryCaller, connect, read_answer, read_error
from bench.faults.golden import make_images
from bench.faults.history import OK, Ended, Entry, History, Sent, load
from bench.processes import ROOT
from client.cli.bench.load import make_timetable
from client.cli.latencies import find_percentile
from proto import stroke_pb2 as pb
from server.flags import LineParser, parse_settings, require, setting
from server.process.children import run

METHOD = "/stroke.v1.StrokeService/Predict"

SETTLE_SHARE = 0.25
"""Of the time: what is due before counts for no latency, since a burst that fills the line waits as a burst may."""


@dataclass(frozen=True)
class FloodOptions:
    """What is sent."""

    address: str = setting("", "HOST:PORT of the server")
    rate: float = setting(0.0, "calls a second of an open loop", least=0, most=100_000)
    clients: int = setting(0, "calls at any time of a closed loop", least=0, most=10_000)
    library: bool = setting(False, "with --clients: this project's client, which waits when it is refused")
    connections: int = setting(4, "connections that they share", least=1, most=1000)
    seconds: float = setting(5.0, "for how long", least=0.1, most=3600)
    deadline: float = setting(2.0, "of each call, in seconds", least=0.001, most=600)
    seed: int = setting(0, "which timetable", least=0, most=2**32 - 1)
    images: Path = setting(Path("samples"), "folder of images")
    history: Path | None = setting(None, "file for the history of all calls")

    def __post_init__(self) -> None:
        require(bool(self.rate) != bool(self.clients), "rate", "or --clients: one of the two")
        require(not (self.library and self.rate), "library", "goes with --clients")


@dataclass(frozen=True)
class Flood:
    """What came of it. Times in seconds."""

    offered: int
    seconds: float
    ends: dict[str, int]
    """Calls by status and reason."""

    rate: float
    """Good answers a second."""

    answer_p50: float
    answer_p99: float
    """Of good answers, from when they were due, without those of the first quarter."""

    refusal_p50: float
    refusal_p99: float
    refusal_most: float
    """Of refusals with RESOURCE_EXHAUSTED, from when they were sent."""

    without_hint: int
    """Refusals that do not say why, or when to come again."""

    late: float
    """How late a call left at most: above some milliseconds the sender was too slow."""

    busy: float
    """Share of a processor that the sender took; near 1 it measures itself."""


class Sender:
    """Sends, and takes what comes back."""

    def __init__(self, options: FloodOptions) -> None:
        self._options = options
        self._channels = [connect(options.address) for _ in range(options.connections)]
        self._calls = [channel.unary_unary(METHOD) for channel in self._channels]
        images = make_images(ROOT / options.images)
        digests = [hashlib.sha256(image).hexdigest() for image in images]
        self._messages = [
            (digest, pb.PredictRequest(image=image, image_sha256=digest).SerializeToString())
            for image, digest in zip(images, digests, strict=True)
        ]
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._open = 0
        self.history = History()
        self.ends: list[tuple[float, float, Ended, bool]] = []
        """When each was due and sent, how it ended, and whether a refusal says why and when to come again."""

    def warm_up(self) -> None:
        """Has an answer on each connection."""
        for call in self._calls:
            call(self._messages[0][1], timeout=30)

    def send(self, number: int, due: float) -> None:
        """Sends one, and returns at once."""
        name, options = f"flood-{number}", self._options
        digest, message = self._messages[number % len(self._messages)]
        sent = time.monotonic()
        self.history.add(Sent(name, f"flood.{number % options.connections}", digest, options.deadline, sent))
        # Two messages one after the other are one (Protocol Buffers, encoding): so only the id is made anew.
        data = message + pb.PredictRequest(id=name).SerializeToString()
        with self._lock:
            self._open += 1
        future = self._calls[number % options.connections].future(data, timeout=options.deadline)
        future.add_done_callback(lambda future: self._take(name, due, sent, future))

    def wait(self, most_open: int, seconds: float = 60.0) -> None:
        """Waits until no more than so many are on their way."""
        with self._ended:
            self._ended.wait_for(lambda: self._open <= most_open, seconds)

    def close(self) -> None:
        """Ends the connections."""
        for channel in self._channels:
            channel.close()

    def _take(self, name: str, due: float, sent: float, future: Any) -> None:
        error = future.exception()
        if error is None:
            ended, is_told = read_answer(name, pb.PredictResponse.FromString(future.result())), True
        else:
            ended = read_error(name, error)
            is_told = bool(ended.reason) and HINT_KEY in dict(error.trailing_metadata() or ())
        self.history.add(ended)
        with self._ended:
            self.ends.append((due, sent, ended, is_told))
            self._open -= 1
            self._ended.notify_all()


def flood(options: FloodOptions) -> tuple[Flood, History]:
    """Sends everything, and waits for its ends."""
    sender = Sender(options)
    sender.warm_up()
    began, cpu, late = time.monotonic(), time.process_time(), 0.0
    if options.rate:
        for number, due in enumerate(make_timetable(options.rate, options.seconds, seed=options.seed)):
            time.sleep(max(0.0, began + due - time.monotonic()))
            late = max(late, time.monotonic() - began - due)
            sender.send(number, began + due)
        seconds = options.seconds
    else:
        number = 0
        while time.monotonic() < began + options.seconds:
            sender.send(number, time.monotonic())
            number += 1
            sender.wait(options.clients - 1)
        seconds = time.monotonic() - began
    busy = (time.process_time() - cpu) / seconds
    sender.wait(0)
    sender.close()
    return summarise(sender.ends, began, seconds, late=late, busy=busy), sender.history


def crowd(options: FloodOptions) -> tuple[Flood, History]:
    """As ``flood``, with callers of this project's client, who say of a refusal all that it says."""
    history = History()
    callers = [LibraryCaller(f"flood.{number}", history, options.address) for number in range(options.connections)]
    images = make_images(ROOT / options.images)
    for caller in callers:
        caller.call(images[0], 30)
    ends: list[tuple[float, float, Ended, bool]] = []
    began, cpu = time.monotonic(), time.process_time()

    def run(first: int) -> None:
        for number in itertools.count(first):
            sent = time.monotonic()
            if sent > began + options.seconds:
                return
            ended = callers[first % len(callers)].call(images[number % len(images)], options.deadline)
            ends.append((sent, sent, ended, bool(ended.reason)))

    with ThreadPoolExecutor(options.clients) as pool:
        list(pool.map(run, range(options.clients)))
    busy = (time.process_time() - cpu) / (time.monotonic() - began)
    for caller in callers:
        caller.close()
    return summarise(ends, began, options.seconds, late=0.0, busy=busy), history


def summarise(
    ends: Sequence[tuple[float, float, Ended, bool]], began: float, seconds: float, *, late: float, busy: float
) -> Flood:
    """Figures of what came back; answers after the end do not count for the rate."""
    end, settled = began + seconds, began + SETTLE_SHARE * seconds
    answers = sorted(ended.at - due for due, _, ended, _ in ends if ended.status == OK and due >= settled)
    refusals = sorted(ended.at - sent for _, sent, ended, _ in ends if ended.status == "RESOURCE_EXHAUSTED")

    def find(values: Sequence[float], percent: float) -> float:
        return find_percentile(values, percent) if values else 0.0

    return Flood(
        offered=len(ends),
        seconds=seconds,
        ends=dict(Counter(f"{ended.status} {ended.reason}".strip() for _, _, ended, _ in ends)),
        rate=sum(ended.status == OK and ended.at <= end for _, _, ended, _ in ends) / seconds,
        answer_p50=find(answers, 50),
        answer_p99=find(answers, 99),
        refusal_p50=find(refusals, 50),
        refusal_p99=find(refusals, 99),
        refusal_most=refusals[-1] if refusals else 0.0,
        without_hint=sum(ended.status == "RESOURCE_EXHAUSTED" and not is_told for _, _, ended, is_told in ends),
        late=late,
        busy=busy,
    )


def spawn(processors: str, history: Path, **options: object) -> tuple[Flood, list[Entry]]:
    """Floods from another process on some processors (taskset(1)); returns what came of it, and its history."""
    words = [
        word
        for name, value in options.items()
        for word in ((f"--{name}",) if value is True else (f"--{name}", str(value)))
    ]
    command = [
        "taskset",
        "-c",
        processors,
        sys.executable,
        "-m",
        "bench.faults.flood",
        *words,
        "--history",
        str(history),
    ]
    result = run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if result.returncode:
        raise RuntimeError(f"the flood failed: {result.stderr[-1000:]}")
    with history.open(encoding="utf-8") as lines:
        return Flood(**json.loads(result.stdout)), load(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Floods a server, and prints what came of it."""
    parser = LineParser("python -m bench.faults.flood", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, FloodOptions, argv)
    found, history = crowd(options) if options.library else flood(options)
    if options.history is not None:
        history.save(options.history)
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
