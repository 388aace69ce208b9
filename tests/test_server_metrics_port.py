"""The port of the metrics: one page, bounded, and what a running server shows on it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from proto import stroke_pb2 as pb
from server.metrics import port as metrics_port
from server.metrics.port import CONNECTIONS, MOST_REQUEST_BYTES, MetricsPort
from tests.fakes import encode, make_slice, run_module, run_server
from tests.scraping import find_free_port, scrape

GET = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"
IMAGE = encode(make_slice())


def serve(use: Callable[[int], Awaitable[None]], render: Callable[[], bytes] = lambda: b"page") -> None:
    """Runs ``use`` with the number of a port that shows a page."""

    async def run() -> None:
        port = MetricsPort(render, "text/plain")
        address = await port.listen("127.0.0.1", 0)
        try:
            await use(int(address.split(":")[2].split("/")[0]))
        finally:
            port.close()

    asyncio.run(run())


async def ask(port: int, request: bytes) -> bytes:
    """All that a request is answered; nothing where the connection was reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (GET, b"200"),
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"405"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 2 * MOST_REQUEST_BYTES + b"\r\n\r\n", b"431"),
    ],
)
def test_only_one_page_is_served(request_bytes: bytes, status: bytes) -> None:
    """By GET; each connection ends with its answer."""

    async def use(port: int) -> None:
        answer = await ask(port, request_bytes)

        assert answer.startswith(b"HTTP/1.1 " + status)
        assert answer.endswith(b"page") == (status == b"200")

    serve(use)


def test_connections_are_few_and_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who send nothing or take nothing get the time of a request; more than a few are closed at once."""
    monkeypatch.setattr(metrics_port, "SECONDS", 0.5)

    async def use(port: int) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
        silent[0][1].write(b"GET /met")
        silent[1][1].write(GET)  # and does not close
        assert await ask(port, GET) == b""
        await asyncio.gather(*(reader.read() for reader, _ in silent[2:]), return_exceptions=True)
        await asyncio.gather(silent[0][0].read(), silent[1][0].read(), return_exceptions=True)

        assert (await ask(port, GET)).endswith(b"page")
        for _, writer in silent:
            writer.close()

    serve(use)


def test_many_readers_cost_no_more_than_one() -> None:
    """A page is given out again for a moment."""
    made: list[int] = []

    async def use(port: int) -> None:
        pages = await asyncio.gather(*(ask(port, GET) for _ in range(CONNECTIONS)))

        assert all(page.startswith(b"HTTP/1.1 200") for page in pages)

    serve(use, lambda: made.append(1) or b"page")  # type: ignore[func-returns-value]
    assert len(made) < CONNECTIONS


def test_page_that_cannot_be_made_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The next one may be made."""
    pages = iter([True])

    def render() -> bytes:
        if next(pages, None):
            raise RuntimeError("no")
        return b"page"

    async def use(port: int) -> None:
        assert await ask(port, GET) == b""
        assert (await ask(port, GET)).endswith(b"page")

    serve(use, render)
    assert "the metrics could not be shown (RuntimeError)" in caplog.text


def test_running_server_shows_what_it_does(tiny_models: Path) -> None:
    """Calls, streams, connections, the model, the process; and nobody else may listen there."""
    port = find_free_port()
    with run_server(tiny_models, "--metrics-port", str(port)) as server, server.stub() as stub:
        stub.Predict(pb.PredictRequest(image=IMAGE), timeout=30)
        with pytest.raises(grpc.RpcError):
            stub.Predict(pb.PredictRequest(image=b"x"), timeout=30)
        list(stub.PredictStream(iter([pb.PredictRequest(image=IMAGE)] * 3), timeout=30))
        call = stub.PredictStream(iter(lambda: pb.PredictRequest(image=IMAGE), None), timeout=30)
        next(call)
        page = scrape(port)
        call.cancel()
        second = run_module("server", "--models", str(tiny_models), "--port", "0", "--metrics-port", str(port))

    assert page.get("stroke_requests_total", method="Predict", code="OK") == 1
    assert 'stroke_images_total{code="INTERNAL",method="PredictBatches",reason="INTERNAL"} 0.0' in page.text
    assert page.get("stroke_images_total", method="PredictStream", code="OK") >= 4
    assert page.get("stroke_images_total", reason="IMAGE_UNDECODABLE") == 1
    assert page.get("stroke_streams_open") == page.get("stroke_requests_in_flight") == 1
    assert page.get("stroke_stream_places_free") == 15
    assert page.get("stroke_connections") == 1
    assert page.get("stroke_serving") == page.get("stroke_model_info", model="tiny", is_default="true") == 1
    assert page.get("stroke_workers") >= page.get("stroke_workers_free") >= 0
    assert page.get("process_resident_memory_bytes") > 1e7
    assert page.get("process_open_fds") > 5
    assert (second.returncode, second.stderr.count("\n")) == (1, 1)
    assert "cannot listen for metrics on 127.0.0.1" in second.stderr


def test_connections_of_socket_files_count_as_well(tmp_path: Path) -> None:
    """Those that were accepted, and neither pairs nor our own."""
    from server.machine.connections import count_connections

    before = count_connections()
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(path)
        listener.listen()
        caller.connect(path)
        accepted, _ = listener.accept()
        pair = socket.socketpair()
        with accepted, pair[0], pair[1]:
            assert count_connections() == before + 1
