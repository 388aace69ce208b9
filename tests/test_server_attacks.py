"""What callers can do to a server, on purpose or not, does not stop it for others: real processes on both sides."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from client import StrokeClient
from proto import stroke_pb2 as pb
from proto import stroke_pb2_grpc
from tests.fakes import ServerProcess, encode, make_slice, read_resident_bytes, run_server, wait_until

pytestmark = pytest.mark.timed

IMAGE = encode(make_slice())
MIB = 1024 * 1024
TIMEOUT = 60
SERVICE = "/stroke.v1.StrokeService"
PATIENCE = 8
"""Seconds in which a server must answer beside anything else: those who hold it up do so for 10 s or more. Here
callers, server and other tests share the processors; how soon it answers with nothing beside, bench/faults judges."""


@contextmanager
def connect(server: ServerProcess, **options: object) -> Iterator[grpc.Channel]:
    """A connection of its own, and what is on the wire."""
    settings = {"use_local_subchannel_pool": 1, "max_send_message_length": -1, "enable_retries": 0, **options}
    with grpc.insecure_channel(server.address, options=[(f"grpc.{k}", v) for k, v in settings.items()]) as channel:
        yield channel


class Witness:
    """Somebody who asks for health and sends an image again and again, and how long the answers take."""

    def __init__(self, server: ServerProcess) -> None:
        self.seconds: dict[str, list[float]] = {"health": [], "predict": []}
        self.failures: list[grpc.RpcError] = []
        self.most_memory = 0
        self._server = server
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(name,)) for name in self.seconds]
        self._threads.append(threading.Thread(target=self._watch_memory))

    def __enter__(self) -> Witness:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: all(self.seconds.values()))
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, name: str) -> None:
        with connect(self._server) as channel:
            health, stroke = health_pb2_grpc.HealthStub(channel), stroke_pb2_grpc.StrokeServiceStub(channel)
            while not self._stopped.wait(0.02):
                started = time.monotonic()
                try:
                    if name == "health":
                        assert health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT).status == 1
                    else:
                        stroke.Predict(pb.PredictRequest(image=IMAGE), timeout=TIMEOUT)
                except grpc.RpcError as error:
                    self.failures.append(error)
                self.seconds[name].append(time.monotonic() - started)

    def _watch_memory(self) -> None:
        while not self._stopped.wait(0.01):
            self.most_memory = max(self.most_memory, read_resident_bytes(self._server.process.pid))

    def check(self, patience: float = PATIENCE) -> None:
        """Everything was answered, and in time."""
        assert not self.failures
        assert max(self.seconds["health"]) < patience
        assert max(self.seconds["predict"]) < patience


def count_outcomes(futures: Sequence[grpc.Future]) -> Counter[str]:
    """How often each reason came: "OK" for an answer, "none" for an error of gRPC's own."""
    outcomes: Counter[str] = Counter()
    for future in futures:
        error = future.exception()
        outcomes["OK" if error is None else dict(error.trailing_metadata() or ()).get("stroke-reason", "none")] += 1
    return outcomes


def run_together(work: Callable[[int], object], number: int) -> None:
    """Calls ``work`` in so many threads."""
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]


def test_health_watches_come_and_go(tiny_models: Path) -> None:
    """20,000 of them on 4 connections, half of them for names of their own, leave nothing behind."""
    with run_server(tiny_models) as server:

        def watch(index: int) -> None:
            with connect(server) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                for number in range(5000):
                    name = f"{index}-{number}" * 60 if number % 2 else ""
                    call = health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT)
                    next(call)
                    call.cancel()

        with Witness(server) as witness:
            before = read_resident_bytes(server.process.pid)
            run_together(watch, 4)
        witness.check()
        assert witness.most_memory - before < 20 * MIB
        assert server.stop() == 0


def test_short_lived_balanced_clients(tiny_models: Path) -> None:
    """500 clients of a pair, each with its health watches, four at a time."""
    with run_server(tiny_models) as first, run_server(tiny_models) as second:
        target = f"{first.address},{second.address}"

        def predict(index: int) -> None:
            for _ in range(125):
                with StrokeClient(target, timeout=TIMEOUT) as client:
                    assert client.predict(IMAGE).label

        with Witness(first) as one, Witness(second) as other:
            before = read_resident_bytes(first.process.pid)
            run_together(predict, 4)
        one.check()
        other.check()
        assert one.most_memory - before < 20 * MIB
        assert (first.stop(), second.stop()) == (0, 0)


def test_many_calls_on_one_connection_are_answered_or_refused(tiny_models: Path) -> None:
    """At 200 at once each gets an answer, as many as half of the line takes, or QUEUE_FULL with the time to come again;
    none is reset."""
    with run_server(tiny_models) as server, connect(server) as channel:
        stub = stroke_pb2_grpc.StrokeServiceStub(channel)
        stub.Predict(pb.PredictRequest(image=IMAGE), timeout=TIMEOUT)
        futures = [stub.Predict.future(pb.PredictRequest(image=IMAGE), timeout=TIMEOUT) for _ in range(200)]
        outcomes = count_outcomes(futures)
        hints = [
            int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"])
            for future in futures
            if (error := future.exception())
        ]

    assert outcomes["OK"] >= 100
    assert set(outcomes) <= {"OK", "QUEUE_FULL"}
    assert all(0 < hint < 10_000 for hint in hints)


def make_batch(image: bytes, size: int, images: int = 32) -> pb.PredictBatchesRequest:
    """A message of images of a size in bytes altogether, made longer by what stands behind their end."""
    padded = image + bytes(max(0, size // images - len(image)))
    return pb.PredictBatchesRequest(requests=[pb.PredictRequest(image=padded)] * images)


@contextmanager
def greedy_streams(server: ServerProcess, number: int, message: pb.PredictBatchesRequest) -> Iterator[None]:
    """Streams that send all they can and take no answer."""
    over = threading.Event()

    def send() -> Iterator[pb.PredictBatchesRequest]:
        while not over.is_set():
            yield message

    with ExitStack() as stack:
        calls = []
        for _ in range(number):
            stub = stroke_pb2_grpc.StrokeServiceStub(stack.enter_context(connect(server)))
            calls.append(stub.PredictBatches(send(), timeout=TIMEOUT))
        yield
        over.set()
        for call in calls:
            call.cancel()


def test_memory_has_a_bound_and_comes_back(tiny_models: Path) -> None:
    """16 streams of 15 MiB messages whose answers nobody reads, and 100 images of 16 MiB from 4 connections."""
    noise = random.Random(0).randbytes(16 * MIB - 1024)
    with run_server(tiny_models) as server:
        with connect(server) as channel:
            stroke_pb2_grpc.StrokeServiceStub(channel).Predict(pb.PredictRequest(image=IMAGE), timeout=TIMEOUT)
        idle = read_resident_bytes(server.process.pid)
        with Witness(server) as witness, ExitStack() as stack:
            stack.enter_context(greedy_streams(server, 16, make_batch(IMAGE, 15 * MIB)))
            channels = [stack.enter_context(connect(server)) for _ in range(4)]
            futures = [
                stroke_pb2_grpc.StrokeServiceStub(channels[number % 4]).Predict.future(
                    pb.PredictRequest(image=noise), timeout=TIMEOUT
                )
                for number in range(100)
            ]
            outcomes = count_outcomes(futures)
        assert witness.most_memory < 400e6
        assert set(outcomes) <= {"IMAGE_TOO_LARGE", "MEMORY_SHORT", "QUEUE_FULL"}
        wait_until(lambda: read_resident_bytes(server.process.pid) < idle + 20e6, timeout=15)
        assert server.stop() == 0


def test_compressed_bombs_do_not_unfold(tiny_models: Path) -> None:
    """20 messages of 48 MiB in 50 kB each; an honest compressed one is judged."""
    bomb = pb.PredictRequest(image=bytes(48 * MIB))
    with run_server(tiny_models) as server, connect(server) as channel:
        stub = stroke_pb2_grpc.StrokeServiceStub(channel)
        answer = stub.Predict(pb.PredictRequest(image=IMAGE), timeout=TIMEOUT, compression=grpc.Compression.Gzip)
        assert answer.label
        idle = read_resident_bytes(server.process.pid)
        with Witness(server) as witness:
            for _ in range(4):
                futures = [
                    stub.Predict.future(bomb, timeout=TIMEOUT, compression=grpc.Compression.Gzip) for _ in range(5)
                ]
                assert count_outcomes(futures) == {"MESSAGE_TOO_LARGE": 5}
        assert witness.most_memory < 400e6
        wait_until(lambda: read_resident_bytes(server.process.pid) < idle + 20e6, timeout=15)


def test_greedy_streams_leave_their_share_to_a_polite_one(tiny_models: Path) -> None:
    """40 small images beside two streams of images that take 20 times as long."""
    large = encode(np.random.RandomState(0).randint(0, 60, (1200, 1200)).astype(np.uint8))
    with (
        run_server(tiny_models) as server,
        greedy_streams(server, 2, make_batch(large, 15 * MIB, images=12)),
        StrokeClient(server.address, timeout=TIMEOUT) as client,
    ):
        client.predict(IMAGE)
        started = time.monotonic()
        results = list(client.predict_many([IMAGE] * 40))

        took = time.monotonic() - started
        # Of the greedy ones, whose images are dark.
        wait_until(lambda: sum("label=normal" in line for line in server.log) > 40)
    assert [type(result).__name__ for result in results] == ["Prediction"] * 40
    assert took < 20


def test_rubbish_does_not_keep_stream_places(tiny_models: Path) -> None:
    """One who holds all of them and sends a byte now and then makes way for somebody with images."""
    over = threading.Event()

    def send_rubbish() -> Iterator[pb.PredictRequest]:
        yield pb.PredictRequest(image=b"x")
        while not over.wait(1):
            yield pb.PredictRequest(image=b"x")

    with run_server(tiny_models, "--streams", "4") as server, connect(server) as channel, connect(server) as other:
        stub = stroke_pb2_grpc.StrokeServiceStub(channel)
        rubbish = [stub.PredictStream(send_rubbish(), timeout=TIMEOUT) for _ in range(4)]
        for call in rubbish:
            next(call)
        polite = stroke_pb2_grpc.StrokeServiceStub(other)
        outcomes: list[str] = []

        def is_answered() -> bool:
            call = polite.PredictStream(iter([pb.PredictRequest(image=IMAGE)]), timeout=TIMEOUT)
            try:
                outcomes.extend(answer.response.label for answer in call)
            except grpc.RpcError as error:
                outcomes.append(dict(error.trailing_metadata())["stroke-reason"])
            return outcomes[-1] == "stroke"

        wait_until(is_answered, timeout=20)
        over.set()
    assert set(outcomes) == {"TOO_MANY_STREAMS", "stroke"}


def test_garbage_leaves_no_tracebacks_in_the_log(tiny_models: Path) -> None:
    """A log cannot be grown from outside: a line a call of the service, none of a health check."""
    with run_server(tiny_models) as server, connect(server) as channel:
        wait_until(lambda: any(" loaded " in line for line in server.log))  # it is read beside
        before = len(server.log)
        for method in ("Check", "Watch"):
            call = channel.unary_stream(f"/grpc.health.v1.Health/{method}")
            for _ in range(50):
                with pytest.raises(grpc.RpcError) as refusal:
                    list(call(b"\xff" * 3, timeout=TIMEOUT))
                assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert len(server.log) == before
        cut_off = channel.stream_unary(f"{SERVICE}/Predict")
        for _ in range(50):
            cut_off.future(iter(()), timeout=TIMEOUT).cancel()
        with pytest.raises(grpc.RpcError):
            channel.unary_unary(f"{SERVICE}/Predict")(bytes(40 * MIB), timeout=TIMEOUT)
        stroke_pb2_grpc.StrokeServiceStub(channel).Predict(pb.PredictRequest(image=IMAGE, id="last"), timeout=TIMEOUT)
        wait_until(lambda: any("id=last " in line for line in server.log))
        assert not any("Traceback" in line or "Error" in line for line in server.log)
        assert len(server.log) <= before + 52


def test_id_cannot_forge_fields_of_the_log(tiny_models: Path) -> None:
    """It stands in quotes where it could be taken for more; an id that was made here is the one in the answer."""
    with run_server(tiny_models) as server, connect(server) as channel:
        stub = stroke_pb2_grpc.StrokeServiceStub(channel)
        forged = 'x code=OK" reason=NONE'
        with pytest.raises(grpc.RpcError):
            stub.Predict(pb.PredictRequest(image=b"x", id=forged), timeout=TIMEOUT)
        made = stub.Predict(pb.PredictRequest(image=IMAGE), timeout=TIMEOUT).id
        wait_until(lambda: any(f"id={made} " in line for line in server.log))

    (line,) = [line for line in server.log if "reason=NONE" in line]
    assert r'id="x code=OK\" reason=NONE" code=INVALID_ARGUMENT' in line
