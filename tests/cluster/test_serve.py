"""The server on Ray Serve, asked by our client as it is."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from client import InvalidImageError, ModelNotFoundError, PredictionFailure, StrokeClient
from proto import stroke_pb2, stroke_pb2_grpc
from tests.cluster.archives import WINDOWED, make_archive
from tests.fakes import encode, make_slice, run_server, write_model
from tests.tracing import ROOT


def find_port() -> int:
    """One that is free now."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the tiny model."""
    root = tmp_path_factory.mktemp("models")
    write_model(root, WINDOWED)
    return root


@pytest.fixture(scope="module")
def served(models: Path) -> Iterator[str]:
    """The address of Ray's proxy, with one replica behind it; ended by SIGTERM, with exit code 0."""
    port = find_port()
    command = [sys.executable, "-m", "cluster", "serve", "--insecure", "--port", str(port)]
    command += ["--http-port", str(find_port()), "--most-replicas", "1", "--models", str(models), "--cache", "off"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any(line.startswith("serving tiny 1 on port") for line in lines), process.communicate()
        yield f"127.0.0.1:{port}"
        process.terminate()
        assert process.wait(timeout=120) == 0, process.communicate()
    finally:
        process.kill()
        process.communicate()


def run_client(address: str, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    """The client's command line: its exit code, and what it prints as JSON."""
    command = [sys.executable, "-m", "client", *arguments, "--server", address]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.stdout, result.stderr
    return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]


def drop_own(answers: list[dict[str, object]]) -> list[dict[str, object]]:
    """Without what differs from call to call."""
    return [{key: value for key, value in one.items() if key not in ("timings_ms", "request_id")} for one in answers]


def test_answers_are_those_of_the_server(served: str, models: Path, tmp_path: Path) -> None:
    """Of the command line, for a folder (a stream) and for one image (a single call), refusals included."""
    archive = make_archive(tmp_path)
    (archive / "empty.jpg").unlink()
    with run_server(models, "--cache", "off") as server:
        for arguments in (
            ("--json", "--recursive", "--each", str(archive)),
            ("--json", str(archive / "p1" / "0001.png")),
            ("--json", str(archive / "cut.png")),
            ("models", "--json"),
        ):
            ours, theirs = run_client(server.address, *arguments), run_client(served, *arguments)
            assert theirs[0] == ours[0]
            if arguments[0] != "models":
                assert drop_own(theirs[1]) == drop_own(ours[1])
    assert theirs[1][0]["digest"] == ours[1][0]["digest"]


def test_health_is_answered(served: str) -> None:
    """By the client's command."""
    assert run_client(served, "health", "--json")[0] == 0


def test_refusals_have_their_reasons(served: str) -> None:
    """Single calls: code, sentence and reason."""
    with StrokeClient(served) as client:
        with pytest.raises(InvalidImageError) as refused:
            client.predict(b"no image")
        with pytest.raises(ModelNotFoundError) as unknown:
            client.predict(encode(make_slice()), model="other")

    assert (refused.value.reason, unknown.value.reason) == ("IMAGE_UNDECODABLE", "MODEL_NOT_FOUND")


def test_streams_go_on_after_a_refusal(served: str) -> None:
    """In order, many of them on their way."""
    images = [encode(make_slice(level=50 + number)) for number in range(40)]
    images[7] = b"no image"

    with StrokeClient(served) as client:
        results = list(client.predict_many(images))
        alone = [client.predict(image).scores for image in images[:3]]

    assert [number for number, one in enumerate(results) if isinstance(one, PredictionFailure)] == [7]
    assert [one.scores for one in results[:3] if not isinstance(one, PredictionFailure)] == alone


def test_both_stream_methods_are_served(served: str) -> None:
    """As they are on the wire."""
    request = stroke_pb2.PredictRequest(image=encode(make_slice()), id="one")
    with grpc.insecure_channel(served) as channel:
        stub = stroke_pb2_grpc.StrokeServiceStub(channel)
        single = list(stub.PredictStream(iter([request] * 3), timeout=120))
        batch = stroke_pb2.PredictBatchesRequest(requests=[request, request])
        batches = list(stub.PredictBatches(iter([batch, batch]), timeout=120))

    assert [one.response.id for one in single] == ["one"] * 3
    assert sum(len(one.responses) for one in batches) == 4


def test_a_stream_that_ends_with_an_error_says_what(served: str) -> None:
    """Its code and sentence; the reason beside them is what Ray does not send."""
    with grpc.insecure_channel(served) as channel:
        call = stroke_pb2_grpc.StrokeServiceStub(channel).PredictBatches(
            iter([stroke_pb2.PredictBatchesRequest()]), timeout=120
        )
        with pytest.raises(grpc.RpcError) as ended:
            list(call)

    assert ended.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "1 to 32 images" in ended.value.details()


def test_plain_text_on_all_addresses_must_be_meant() -> None:
    """As of the server."""
    result = subprocess.run([sys.executable, "-m", "cluster", "serve"], cwd=ROOT, capture_output=True, text=True)

    assert result.returncode == 2
    assert "--insecure is missing" in result.stderr
