"""Connections that have reached their age: what is owed on them is answered, what comes next goes elsewhere."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from client import Prediction, RetryConfig, StrokeClient
from proto import stroke_pb2
from server.config import ServerConfig
from server.lifecycle.ports import make_grpc_server
from tests.client_kinds import KINDS
from tests.fakes import encode, make_slice, run_server, write_model
from tests.studies import STUDY_SPEC, make_series

pytestmark = pytest.mark.timed

AGE_SECONDS = 1.0
ONCE = RetryConfig(max_attempts=1)
IMAGE = encode(make_slice())


async def call_for(seconds: float, *, grace: float = 300.0) -> tuple[bytes, str, str]:
    """The answer to a call that takes so long, and the addresses that it and the next one came from."""
    server = make_grpc_server(ServerConfig(connection_age=AGE_SECONDS, connection_grace=grace))
    peers: list[str] = []

    async def work(messages: object, context: Any) -> bytes:
        peers.append(context.peer())
        if len(peers) == 1:
            await asyncio.sleep(seconds)
        return b"done"

    handlers = {"Work": grpc.stream_unary_rpc_method_handler(work)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_retries", 0)]) as channel:
            call = channel.unary_unary("/test/Work")
            answer = await call(b"", timeout=20)
            await call(b"", timeout=20)
    finally:
        await server.stop(None)
    return (answer, *peers)


def test_call_outlives_its_connection_age() -> None:
    """Its answer comes on the old connection, which takes no new call: the next one is made on another."""
    answer, before, after = asyncio.run(call_for(1.5 * AGE_SECONDS))

    assert answer == b"done"
    assert before != after


def test_call_that_outlives_the_grace_is_cut_off() -> None:
    """After the age, as much again for streams, and the grace: UNAVAILABLE, which the client repeats."""
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as end:
        asyncio.run(call_for(15, grace=0.2))

    assert end.value.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - started > 2 * AGE_SECONDS


def test_no_call_fails_by_age(tiny_models: Path) -> None:
    """Of callers that repeat nothing, neither: what meets an old connection was read by nobody, and gRPC sends it on
    another."""
    with (
        run_server(tiny_models, "--connection-age", "1", "--connection-grace", "1") as server,
        server.stub() as stub,
    ):
        end = time.monotonic() + 3 * AGE_SECONDS
        while time.monotonic() < end:
            assert stub.Predict(stroke_pb2.PredictRequest(image=IMAGE), timeout=10).label


@pytest.mark.parametrize("kind", KINDS)
def test_run_outlives_its_streams(tiny_models: Path, kind: str) -> None:
    """Images go on on another stream: none is lost, none comes twice, and where nothing is repeated either."""
    with run_server(tiny_models, "--connection-age", "1", "--connection-grace", "0.2") as server:
        end = time.monotonic() + 3 * AGE_SECONDS
        results = KINDS[kind](server.address, retry=ONCE).predict_many(
            iter(lambda: IMAGE if time.monotonic() < end else None, None), in_flight=8
        )

        assert all(isinstance(result, Prediction) for result in results)
        assert [result.index for result in results] == list(range(len(results)))


def test_old_stream_says_so(tiny_models: Path) -> None:
    """UNAVAILABLE with a reason and a hint, after the answers to what was taken; other clients open a new one."""
    with run_server(tiny_models, "--connection-age", "1") as server, server.stub() as stub:
        end = time.monotonic() + 10

        def requests() -> Any:
            while time.monotonic() < end:
                yield stroke_pb2.PredictRequest(image=IMAGE)

        answers = stub.PredictStream(requests())
        with pytest.raises(grpc.RpcError) as refusal:
            list(answers)
        trailing = dict(refusal.value.trailing_metadata())

    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    assert trailing["stroke-reason"] == "CONNECTION_OLD"
    assert trailing["grpc-retry-pushback-ms"] == "1"


def test_study_is_not_ended_by_its_age(tmp_path: Path) -> None:
    """Half a study is worth nothing: it goes on as calls do."""
    write_model(tmp_path, STUDY_SPEC)
    with run_server(tmp_path, "--connection-age", "1") as server, StrokeClient(server.address, retry=ONCE) as client:

        def slices() -> Any:
            for slice_ in make_series(8):
                yield slice_
                time.sleep(AGE_SECONDS / 4)

        study = client.predict_study(slices())

    assert study.label
    assert len(study.slices) == 8


@pytest.mark.parametrize("value", ["0.5", "0.0001", "-1", "nan", "inf", "86401"])
def test_age_that_makes_no_sense_is_refused(value: str) -> None:
    """0 is never; below a second there would be little else than connecting."""
    with pytest.raises(ValueError, match="connection-age"):
        ServerConfig(connection_age=float(value))


def test_connections_may_live_for_ever() -> None:
    assert ServerConfig(connection_age=0).most_connection_seconds == float("inf")
