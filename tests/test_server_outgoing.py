"""The server calls nobody: no telemetry, no name looked up, neither while it loads a model nor when it is called."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from proto import stroke_pb2 as pb
from tests.fakes import encode, make_slice, run_server
from tests.scraping import find_free_port, scrape

WATCHER = """
import socket, sys
from ipaddress import ip_address

def watch(event, arguments, file=open({path!r}, "w", buffering=1)):
    if event == "socket.bind":
        print(event, file=file)
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg", "urllib.Request", "ftplib.connect"):
        print("outgoing", event, arguments, file=file)
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"):
        try:
            ip_address(arguments[0])
        except ValueError:
            print("outgoing", event, arguments, file=file)

sys.addaudithook(watch)
"""

OPTIONS = ("-D", "-f", "-qq", "--seccomp-bpf", "-e", "trace=%network", "-o")
"""Of strace; -D: it is a child, so that signals reach the server."""


def use_server(models: Path, *program: str, **environment: str) -> None:
    """A server's life: start, model, first calls, metrics, reload, stop."""
    port, image = find_free_port(), encode(make_slice())
    options = {"program": program} if program else {}
    with tempfile.TemporaryDirectory() as own:  # of other servers' sockets it would look whether they live
        environment |= {"XDG_RUNTIME_DIR": own}
        with run_server(models, "--metrics-port", str(port), **options, **environment) as server:  # type: ignore[arg-type]
            with server.stub() as stub:
                stub.Predict(pb.PredictRequest(image=image), timeout=60)
                list(stub.PredictStream(iter([pb.PredictRequest(image=image)]), timeout=60))
                scrape(port)
            assert server.stop() == 0


def can_trace(tmp_path: Path) -> bool:
    strace = shutil.which("strace")
    command = [strace or "", *OPTIONS, str(tmp_path / "probe"), "true"]
    return strace is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_no_system_call_leads_out(tiny_models: Path, tmp_path: Path) -> None:
    """Of Python, gRPC and the model's runtime alike: nothing connects, nothing is sent to an address."""
    if not can_trace(tmp_path):
        pytest.skip("strace is not here, or may not trace: system calls of the libraries are not looked at")
    trace = tmp_path / "trace"
    use_server(tiny_models, "strace", *OPTIONS, str(trace), sys.executable, "-m", "server")

    calls = trace.read_text("utf-8", "replace").splitlines()
    assert any(" bind(" in call for call in calls)
    assert any(" accept4(" in call for call in calls)
    assert [call for call in calls if " connect(" in call] == []
    assert [call for call in calls if " send" in call and "sa_family" in call] == []
    assert [call for call in calls if " socket(" in call and "SOCK_DGRAM" in call and "AF_INET" in call] == []


def test_nothing_of_python_leads_out(tiny_models: Path, tmp_path: Path) -> None:
    """The same by Python's audit events, which are there on every machine."""
    (tmp_path / "sitecustomize.py").write_text(WATCHER.format(path=str(tmp_path / "events")))
    use_server(tiny_models, PYTHONPATH=str(tmp_path))

    events = (tmp_path / "events").read_text().splitlines()
    assert "socket.bind" in events
    assert [event for event in events if event.startswith("outgoing")] == []
