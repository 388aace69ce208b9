"""predict_study of both clients: when it is made again, when it gives up, and that no study is ever held."""

from __future__ import annotations

import asyncio
import io
import threading
import time
import tracemalloc
from pathlib import Path

import grpc
import pytest

from client import (
    AsyncStrokeClient,
    ClientClosedError,
    DeadlineExceededError,
    OverloadedError,
    RetryConfig,
    ServerError,
    ServerUnavailableError,
    StrokeClient,
)
from tests.client_fakes import FakeServer, RecordingServicer, RefusalError, make_study_response, serve, wait_for
from tests.client_kinds import KINDS, ClientKind, list_new_threads, list_tasks


def refuse_once(servicer: RecordingServicer, code: grpc.StatusCode, reason: str) -> None:
    """Makes the server refuse a study at its second slice, the first time."""
    pending = [RefusalError(code, reason, "Not now.")]

    def take(request):
        if request.id == "000002" and pending:
            raise pending.pop()

    servicer.take_slice = take


@pytest.mark.parametrize(
    ("code", "reason"),
    [(grpc.StatusCode.UNAVAILABLE, "STOPPING"), (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")],
)
def test_study_whose_files_can_be_read_again_is_sent_again(
    server: FakeServer, either: ClientKind, tmp_path: Path, code: grpc.StatusCode, reason: str
) -> None:
    """As a whole, under the same id: paths, a folder, bytes in a list, and an iterator of paths."""
    paths = [tmp_path / "1.png", tmp_path / "2.png"]
    for path in paths:
        path.write_bytes(b"stroke")
    for images in (tmp_path, paths, iter(paths), [b"stroke", b"stroke"], {"000001": paths[0], "000002": b"stroke"}):
        server.servicer.slices.clear()
        refuse_once(server.servicer, code, reason)

        assert either.call("predict_study", images, request_id="case-7").label == "stroke"

        ids = [one.id for one in server.servicer.slices]
        assert ids in (["000001", "000002"] * 2, ["000001", "000001", "000002"])
        assert {one.study_id for one in server.servicer.slices if one.id == "000001"} == {"case-7"}


def test_study_whose_files_cannot_be_read_again_is_not(server: FakeServer, either: ClientKind) -> None:
    """A generator of bytes, an open file: half a study must not be judged as a whole one."""
    for images in ((b"stroke" for _ in range(3)), [io.BytesIO(b"stroke"), b"stroke"], {"000002": io.BytesIO(b"a")}):
        server.servicer.slices.clear()
        refuse_once(server.servicer, grpc.StatusCode.UNAVAILABLE, "STOPPING")

        with pytest.raises(ServerUnavailableError) as caught:
            either.call("predict_study", images)
        assert caught.value.reason == "STOPPING"
        assert len([one for one in server.servicer.slices if one.study_id]) == 1


def test_nothing_is_sent_again_where_nothing_is_to_be_repeated(server: FakeServer) -> None:
    """As the settings of single calls say."""
    for kind in KINDS.values():
        refuse_once(server.servicer, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        with pytest.raises(OverloadedError):
            kind(server.target, retry=RetryConfig(max_attempts=1)).call("predict_study", [b"a", b"b"])


def test_server_from_before_studies_says_so(server: FakeServer, either: ClientKind) -> None:
    """It knows no such call."""

    def refuse(request):
        raise RefusalError(grpc.StatusCode.UNIMPLEMENTED)

    server.servicer.take_slice = refuse
    with pytest.raises(ServerError) as caught:
        either.call("predict_study", [b"stroke"])
    assert caught.value.reason == "CALL_UNKNOWN"


def test_large_study_takes_as_long_as_it_gets_on(server: FakeServer) -> None:
    """``timeout`` is for each step: a study may take many times as long, but a server that stops ends it."""
    server.servicer.keeps_requests = False
    server.servicer.judge_study = lambda requests: make_study_response(requests[:1])
    data = b"normal" + bytes(1_000_000)  # of which gRPC's window holds 16 at most, half a second's
    for kind in KINDS.values():
        server.servicer.take_slice = lambda request: time.sleep(0.03)
        started = time.monotonic()
        kind(server.target, timeout=2.0).call("predict_study", [data] * 80)
        assert time.monotonic() - started > 2

        server.servicer.take_slice = lambda request: request.id == "000003" and server.servicer.released.wait(20)
        with pytest.raises(DeadlineExceededError, match="did not get on with the study for 0"):
            kind(server.target, timeout=0.5).call("predict_study", [data] * 120)


def test_server_that_does_not_answer_ends_by_the_timeout(server: FakeServer) -> None:
    """After the last slice, too."""
    server.servicer.judge_study = lambda requests: server.servicer.released.wait(20)
    for kind in KINDS.values():
        with pytest.raises(DeadlineExceededError):
            kind(server.target, timeout=0.3).call("predict_study", [b"normal"])


def test_server_that_is_away_is_waited_for(either: ClientKind) -> None:
    """No longer than the timeout allows."""
    either.target = "127.0.0.1:1"
    either.options["timeout"] = 0.5
    with pytest.raises(ServerUnavailableError) as caught:
        either.call("predict_study", [b"stroke"])
    assert caught.value.reason == "SERVER_UNREACHABLE"


def test_study_is_never_held(server: FakeServer, either: ClientKind) -> None:
    """300 MB pass through a few: slices are made as they are sent."""
    server.servicer.keeps_requests = False
    server.servicer.judge_study = lambda requests: make_study_response(requests[:1])
    image = bytes(1_000_000)
    made: list[int] = []
    taken: list[int] = []
    ahead: list[int] = []

    def take(request):
        taken.append(1)
        if not request.study_id:
            request.ClearField("image")

    server.servicer.take_slice = take

    def make():
        for number in range(300):
            made.append(number)
            ahead.append(len(made) - len(taken))
            yield b"%06d" % number + image

    tracemalloc.start()
    try:
        either.call("predict_study", make())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(taken) == 300
    assert max(ahead) < 40
    assert peak < 100_000_000


def test_error_of_the_callers_iterable_is_the_callers(server: FakeServer, either: ClientKind) -> None:
    """It is raised as it is; the call ends, and nothing of it is left."""
    before = set(threading.enumerate())

    def fail():
        yield b"stroke"
        raise TimeoutError("of mine")

    with pytest.raises(TimeoutError, match="of mine"):
        either.call("predict_study", fail())
    wait_for(lambda: not list_new_threads(before))


def test_closed_client_ends_its_studies(server: FakeServer) -> None:
    """A call under way, and the next one, say that the client was closed."""
    server.servicer.judge_study = lambda requests: server.servicer.released.wait(20)
    client = StrokeClient(server.target)
    threading.Timer(0.2, client.close).start()
    with pytest.raises(ClientClosedError):
        client.predict_study([b"stroke"])
    with pytest.raises(ClientClosedError):
        client.predict_study([b"stroke"])

    async def run() -> None:
        async with AsyncStrokeClient(server.target) as client:
            task = asyncio.create_task(client.predict_study([b"stroke"]))
            await asyncio.sleep(0.2)
            await client.close()
            with pytest.raises(ClientClosedError):
                await task

    asyncio.run(run())


def test_cancelled_task_ends_its_study(server: FakeServer) -> None:
    """At the server, too, and no task remains."""
    server.servicer.judge_study = lambda requests: server.servicer.released.wait(20)

    async def run() -> None:
        async with AsyncStrokeClient(server.target) as client:
            task = asyncio.create_task(client.predict_study([b"stroke"]))
            while not server.servicer.slices:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await list_tasks() == []

    asyncio.run(run())


def test_restart_in_the_middle_is_got_over(tmp_path: Path) -> None:
    """The server goes, another comes on its port, and the study is judged there."""
    for number in range(20):
        (tmp_path / f"{number}.png").write_bytes(b"stroke")
    for kind in KINDS.values():
        first = RecordingServicer()
        with serve(first) as server:
            first.take_slice = lambda request, servicer=first: servicer.released.wait(20)
            answers: list[object] = []
            caller = threading.Thread(
                target=lambda kind=kind, server=server, answers=answers: answers.append(
                    kind(server.target, timeout=20).call("predict_study", tmp_path)
                )
            )
            caller.start()
            wait_for(lambda first=first: first.slices)
            port = server.port
        with serve(port=port):
            caller.join(60)
        assert [answer.label for answer in answers] == ["stroke"]  # type: ignore[attr-defined]
