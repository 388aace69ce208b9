"""Servers that keep an audit log: every image has its line, a kill costs a moment, a full disk no answer."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest

from client import PredictionFailure, StrokeClient, StrokeClientError
from client.cli.main import main as ask
from proto import stroke_pb2 as pb
from server.audit.verify import verify
from server.config import ServerConfig
from server.lifecycle.app import Application
from tests.audit_logs import find_faults, list_events, list_files, read_log
from tests.fakes import ROOT, encode, make_slice, run_server, sha256_hex, wait_until

IMAGE = encode(make_slice(200))
TORN = IMAGE[: len(IMAGE) // 2]


@contextmanager
def serving(models: Path, folder: Path, **settings: object) -> Iterator[StrokeClient]:
    """A server in this process, its log in ``folder / "audit"``, and a client."""
    address = f"unix:{folder / 'socket'}"
    config = ServerConfig(models=models, host=address, audit=folder / "audit", **settings)  # type: ignore[arg-type]
    application = Application(config)
    thread = threading.Thread(target=application.run)
    thread.start()
    try:
        with StrokeClient(address) as client:
            client.wait_until_ready()
            yield client
    finally:
        application.stop()
        thread.join()


def test_every_image_has_a_line(tiny_models: Path, tmp_path: Path) -> None:
    """Alone or in a stream, judged or refused; what was refused after it was hashed can be found by its hash."""
    with serving(tiny_models, tmp_path, audit_hash="plain") as client:
        prediction = client.predict(IMAGE, request_id="judged")
        with pytest.raises(StrokeClientError):
            client.predict(TORN, request_id="torn")
        streamed = list(client.predict_many([IMAGE, TORN]))
        client.list_models()

    lines = [line for line in read_log(tmp_path / "audit") if line["event"] == "image"]
    assert [isinstance(result, PredictionFailure) for result in streamed] == [False, True]
    assert [line["image_sha256"] for line in lines[:2]] == [sha256_hex(IMAGE), sha256_hex(TORN)]
    assert sorted(line["image_sha256"] for line in lines[2:]) == sorted([sha256_hex(IMAGE), sha256_hex(TORN)])
    assert [(line["id"], line["code"]) for line in lines[:2]] == [("judged", "OK"), ("torn", "INVALID_ARGUMENT")]
    assert lines[0]["positive_probability"] == prediction.positive_probability
    assert lines[0]["label"] == prediction.label
    assert list_events(tmp_path / "audit")[-1] == "stop"
    assert find_faults(tmp_path / "audit") == []


def test_kill_under_load_costs_a_moment_and_the_next_server_goes_on(tiny_models: Path, tmp_path: Path) -> None:
    """What was written is there, nothing looks like tampering, and the chain goes on; also after SIGHUP."""
    path, moved = tmp_path / "audit", tmp_path / "moved"
    flags = ("--audit", str(path), "--audit-max-bytes", "20000")
    with run_server(tiny_models, *flags) as server:
        answered: list[str] = []

        def call() -> None:
            with server.stub() as stub, suppress(grpc.RpcError):
                while True:
                    answered.append(stub.Predict(pb.PredictRequest(image=IMAGE)).id)

        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answered) > 100)
        before = set(answered)
        wait_until(lambda: before <= list_ids(path))
        server.process.kill()
        for thread in threads:
            thread.join()

    report = verify(path)
    assert (report.faults, report.state) == ([], "killed")
    assert report.files == len(list_files(path)) > 3
    assert before <= list_ids(path)

    with run_server(tiny_models, *flags) as server, server.stub() as stub:
        stub.Predict(pb.PredictRequest(image=IMAGE, id="after"))
        wait_until(lambda: "after" in list_ids(path))
        report = verify(path)
        path.rename(moved)
        server.process.send_signal(signal.SIGHUP)
        wait_until(path.exists)
        assert server.stop() == 0

    assert (report.faults, report.state, report.recoveries) == ([], "running", 1)
    assert json.loads(path.read_bytes())["prev"] == json.loads(moved.read_bytes().splitlines()[-1])["hash"]


def list_ids(path: Path) -> set[str]:
    """The ids in all whole lines."""
    data = b""
    for file in list_files(path):
        with suppress(FileNotFoundError):  # a server rotates meanwhile
            data += file.read_bytes()
    return set(re.findall(r'"id":"([^"]*)"[^\n]*\n', data.decode("ascii")))


def ask_health(address: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """The exit status and the alarms of ``python -m client health``."""
    code = ask(["health", "--server", address, "--json"])
    return code, json.loads(capsys.readouterr().out)["alarms"]


@pytest.mark.parametrize("is_required", [False, True])
def test_full_disk_stops_inference_only_where_the_log_is_required(
    tiny_models: Path, tmp_path: Path, is_required: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Health serves, with an alarm; refusals say why and that they pass. With room again it goes on by itself."""
    path = tmp_path / "audit"
    flags = ("--audit", str(path), *(["--audit-required"] if is_required else []))
    request = pb.PredictRequest(image=IMAGE)
    with run_server(tiny_models, *flags) as server, server.stub() as stub:
        stub.Predict(request)
        wait_until(lambda: "image" in list_events(path))
        pid, size = server.process.pid, resource.RLIMIT_FSIZE
        resource.prlimit(pid, size, (1, resource.RLIM_INFINITY))
        stub.Predict(request)  # has its line later
        wait_until(lambda: any("audit log cannot be written: File too large" in line for line in server.log))
        assert ask_health(server.address, capsys) == (0, ["audit"])
        if is_required:
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(request)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
            metadata = dict(caught.value.trailing_metadata())  # type: ignore[attr-defined]
            assert metadata == {"stroke-reason": "AUDIT_UNAVAILABLE", "grpc-retry-pushback-ms": "1000"}
            (answer,) = stub.PredictStream(iter([request]))
            assert (answer.error.reason, answer.error.retry_after_ms) == ("AUDIT_UNAVAILABLE", 1000)
        else:
            stub.Predict(request)
        resource.prlimit(pid, size, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait_until(lambda: any("audit log: written again; 0 images have no line" in line for line in server.log))
        assert ask_health(server.address, capsys) == (0, [])
        stub.Predict(request)
        assert server.stop() == 0

    report = verify(path)
    assert (report.faults, report.images, report.lost) == ([], 3 if is_required else 4, 0)


def test_log_that_cannot_be_opened_ends_the_start(
    tiny_models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With one line that says why; settings that do not fit together likewise."""
    from server.cli import main

    assert main(["--models", str(tiny_models), "--audit", str(tmp_path / "nowhere" / "audit")]) == 1
    assert capfd.readouterr().err.count("No such file or directory") == 1
    with pytest.raises(SystemExit):
        main(["--audit-required"])
    assert "--audit-required needs --audit FILE" in capfd.readouterr().err


def test_server_without_an_audit_log_loads_nothing_of_it() -> None:
    """It starts as fast, and is as small, as before there was one."""
    code = "import sys, server.lifecycle.app; print([name for name in sys.modules if name.startswith('server.audit')])"

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"
