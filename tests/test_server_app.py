"""The life of a server process: start, refuse to start, serve, drain."""

from __future__ import annotations

import itertools
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from client import HealthStatus, StrokeClient
from proto import stroke_pb2 as pb
from proto import stroke_pb2_grpc
from server.config import ServerConfig
from server.lifecycle.app import Application
from server.models import registry
from server.models.manifest import MODEL_FILE
from tests.fakes import (
    ServerProcess,
    build_tiny_model,
    encode,
    make_slice,
    rewrite_manifest,
    run_module,
    run_server,
    sha256_hex,
    wait_until,
    write_model,
)

TIMEOUT = 60
LARGE = encode(np.tile(make_slice(side=96), (35, 35)))
"""Slow to decode, but of 0.3 MB: however many are sent at once, all of them fit into the memory for messages."""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_banner_says_what_is_served_where(tiny_server: ServerProcess) -> None:
    """One line on standard output, with the real port."""
    words = tiny_server.banner.split()

    assert words[:3] == ["serving", "tiny", "1"]
    assert words[-1].startswith("127.0.0.1:")
    assert int(words[-1].rpartition(":")[2]) > 0
    assert "(sha256 " in tiny_server.banner


def test_second_server_on_the_same_port_fails_with_one_line(tiny_server: ServerProcess, tiny_models: Path) -> None:
    """It does not share the port silently."""
    port = tiny_server.address.rpartition(":")[2]

    result = run_module("server", "--models", str(tiny_models), "--port", port, "--log-level", "error")

    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("server: error: cannot listen on 127.0.0.1:")


def test_port_held_by_another_program_fails(tiny_models: Path) -> None:
    """Any listener counts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        result = run_module("server", "--models", str(tiny_models), "--port", str(listener.getsockname()[1]))

    assert result.returncode == 1
    assert "cannot listen" in result.stderr


def remove(folder: Path) -> None:
    (folder / MODEL_FILE).unlink()


def truncate(folder: Path) -> None:
    data = (folder / MODEL_FILE).read_bytes()
    (folder / MODEL_FILE).write_bytes(data[: len(data) // 2])


def flip_weight_bit(folder: Path) -> None:
    data = bytearray((folder / MODEL_FILE).read_bytes())
    data[data.index(np.float32(0.05).tobytes())] ^= 1
    (folder / MODEL_FILE).write_bytes(data)


def drop_spec(folder: Path) -> None:
    data = build_tiny_model(with_spec=False)
    record = {"sha256": sha256_hex(data), "size": len(data)}
    rewrite_manifest(folder, lambda document: document["files"][MODEL_FILE].update(record))
    (folder / MODEL_FILE).write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove, "MODEL_FILE_MISSING"),
        (truncate, "MODEL_FILE_TRUNCATED"),
        (flip_weight_bit, "MODEL_FILE_ALTERED"),
        (drop_spec, "MODEL_SPEC_MISSING"),
    ],
)
def test_unusable_model_ends_the_start(tmp_path: Path, damage: object, reason: str) -> None:
    """Non-zero exit, and one line with the file, the reason and what to do."""
    folder = write_model(tmp_path)
    damage(folder)  # type: ignore[operator]

    result = run_module("server", "--models", str(tmp_path), "--port", "0", "--log-level", "error")

    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert str(folder / MODEL_FILE) in line
    assert reason in line
    assert "python -m converter" in line


def test_no_models_at_all_says_how_to_make_one(tmp_path: Path) -> None:
    """The first thing that goes wrong for a new user."""
    result = run_module("server", "--models", str(tmp_path / "nothing"), "--port", "0")

    assert result.returncode == 1
    assert "python -m converter" in result.stderr


def test_health_is_not_serving_until_the_model_is_verified(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load balancer sends nothing to a server that is still loading; a call that comes anyway is UNAVAILABLE."""
    loading, go_on = threading.Event(), threading.Event()
    load_model = registry.load_model

    def slow_load(*args: object, **options: object) -> object:
        loading.set()
        assert go_on.wait(TIMEOUT)
        return load_model(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(registry, "load_model", slow_load)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    application = Application(ServerConfig(models=tiny_models, port=port))
    with ThreadPoolExecutor() as pool, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        exit_code = pool.submit(application.run)
        assert loading.wait(TIMEOUT)
        health = health_pb2_grpc.HealthStub(channel)

        def statuses() -> set[int]:
            return {
                health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT, wait_for_ready=True).status
                for name in ("", "stroke.v1.StrokeService")
            }

        assert statuses() == {NOT_SERVING}
        with pytest.raises(grpc.RpcError) as refusal:
            stroke_pb2_grpc.StrokeServiceStub(channel).Predict(pb.PredictRequest(image=b"x"), timeout=TIMEOUT)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        go_on.set()
        wait_until(lambda: statuses() == {SERVING})
        application.stop()
        assert exit_code.result(TIMEOUT) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_loses_no_request_in_flight(tiny_models: Path, number: int) -> None:
    """All that was accepted is answered, and the exit code is 0."""
    # However slow the machine is: neither the end of the drain nor a deadline may come first.
    with run_server(tiny_models, "--workers", "1", "--drain-seconds", "600") as server, server.stub() as stub:
        calls = [stub.Predict.future(pb.PredictRequest(image=LARGE, id=str(i)), timeout=300) for i in range(16)]
        calls[0].result()
        stub.GetModel(pb.GetModelRequest(), timeout=TIMEOUT)  # on the same connection: what was sent before is there
        assert not all(call.done() for call in calls)

        assert server.stop(number) == 0

        assert [call.result().id for call in calls] == [str(i) for i in range(16)]


def test_signal_finishes_what_a_stream_has_sent(tiny_models: Path) -> None:
    """What was taken from a stream is answered; then the stream ends as UNAVAILABLE, to be sent on elsewhere."""
    outbox: queue.Queue[pb.PredictRequest | None] = queue.Queue()
    with run_server(tiny_models) as server, server.stub() as stub:
        answers = stub.PredictStream(iter(outbox.get, None), timeout=TIMEOUT)
        for index in range(3):
            outbox.put(pb.PredictRequest(image=encode(make_slice()), id=str(index)))
        ids = [next(answers).response.id]
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as end:
            ids.extend(answer.response.id for answer in answers)
        outbox.put(None)

        assert server.process.wait(TIMEOUT) == 0
    assert ids == ["0", "1", "2"]
    assert end.value.code() is grpc.StatusCode.UNAVAILABLE


def test_open_health_watch_does_not_hold_up_the_stop(tiny_models: Path) -> None:
    """A watching load balancer sees NOT_SERVING, and the process ends long before its drain time."""
    with run_server(tiny_models, "--drain-seconds", "60") as server, grpc.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
        assert next(watch).status == SERVING
        started = time.monotonic()

        assert server.stop() == 0

        assert time.monotonic() - started < 30
        assert next(watch).status == NOT_SERVING


def test_busy_stream_ends_when_the_server_stops(tiny_models: Path) -> None:
    """A caller who never pauses is told to go elsewhere; what was taken before is answered, in order."""
    image = encode(make_slice())
    stopped = threading.Event()

    def requests() -> Iterator[pb.PredictRequest]:
        for number in itertools.count():
            if stopped.wait(0.005):
                return
            yield pb.PredictRequest(image=image, id=str(number))

    with run_server(tiny_models, "--drain-seconds", "60") as server, server.stub() as stub:
        answers = stub.PredictStream(requests(), timeout=120)
        ids = [next(answers).response.id for _ in range(10)]
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as end:
            ids.extend(answer.response.id for answer in answers)
        stopped.set()
        assert server.process.wait(TIMEOUT) == 0

    assert time.monotonic() - started < 40
    assert ids == [str(number) for number in range(len(ids))]
    assert end.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(end.value.trailing_metadata())["stroke-reason"] == "SERVER_STOPPING"


def test_two_servers_cannot_share_a_name(tiny_models: Path, tiny_server: ServerProcess) -> None:
    """A host name is one address: the second server does not take what the first has left of it."""
    port = tiny_server.address.rpartition(":")[2]

    result = run_module("server", "--models", str(tiny_models), "--host", "localhost", "--port", port)

    assert result.returncode == 1
    assert "cannot listen" in result.stderr


def test_unix_socket_is_served_and_not_taken_over(tiny_models: Path, tmp_path: Path) -> None:
    """The client reaches it by its path; a second server is refused; one that was killed is not in the way."""
    host = f"unix:{tmp_path}/stroke.sock"
    with run_server(tiny_models, "--host", host) as server, StrokeClient(server.address) as client:
        assert server.address == host
        assert client.predict(encode(np.zeros((40, 40), np.uint8))).label == "normal"

        second = run_module("server", "--models", str(tiny_models), "--host", host)

        assert (second.returncode, client.check_health()) == (1, HealthStatus.SERVING)
        assert f"cannot listen on {host}" in second.stderr
        server.process.kill()
        server.process.wait()
    with run_server(tiny_models, "--host", host) as server, StrokeClient(host) as client:
        assert client.check_health() is HealthStatus.SERVING


def test_file_in_place_of_a_socket_is_left_alone(tiny_models: Path, tmp_path: Path) -> None:
    """A wrong path does not cost a file."""
    (tmp_path / "notes").write_text("precious")

    result = run_module("server", "--models", str(tiny_models), "--host", f"unix:{tmp_path}/notes")

    assert result.returncode == 1
    assert "cannot listen" in result.stderr
    assert (tmp_path / "notes").read_text() == "precious"


def test_full_queue_is_resource_exhausted(tiny_models: Path) -> None:
    """More than workers and queue hold is refused at once, and the accepted ones are answered."""
    with run_server(tiny_models, "--workers", "1", "--queue", "1") as server, server.stub() as stub:
        calls = [stub.Predict.future(pb.PredictRequest(image=LARGE), timeout=300) for _ in range(12)]
        errors = [call.exception() for call in calls]

    assert None in errors
    assert {error.code() for error in errors if error} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
