"""A server that is told to stop does so in time, whatever it or its callers are doing at that moment."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from proto import stroke_pb2 as pb
from proto import stroke_pb2_grpc
from tests.fakes import ROOT, encode, make_slice, run_server, wait_until

pytestmark = pytest.mark.timed

IMAGE = encode(make_slice())
TIMEOUT = 90

SLOW_SERVER = """
import os, sys, time
from server import cli
from server.core import detector
from server.models import registry

def sleep(*arguments, **options):
    print("sleeping", file=sys.stderr, flush=True)
    time.sleep(600)

if sys.argv[1] == "load":
    registry.load_model = sleep
else:
    detector.load_pixels = sleep
os._exit(cli.main(sys.argv[2:]))
"""


@contextmanager
def run_slow_server(what: str, models: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """A server that sleeps where it would load a model or decode an image."""
    command = [sys.executable, "-c", SLOW_SERVER, what, "--models", str(models), "--port", "0", *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it ended without {text!r}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_the_model_loads_is_obeyed_at_once(tiny_models: Path, number: int) -> None:
    """Without a line that says that it serves."""
    with run_slow_server("load", tiny_models) as process:
        wait_for_line(process, "sleeping")
        started = time.monotonic()
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 0
        assert time.monotonic() - started < 20
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_worker_that_does_not_end_does_not_hold_up_the_exit(tiny_models: Path) -> None:
    """The process is gone at most a second after the drain's end."""
    with run_slow_server("decode", tiny_models, "--drain-seconds", "2", "--workers", "1") as process:
        assert process.stdout is not None
        banner = process.stdout.readline().strip()
        with grpc.insecure_channel(banner.rsplit(" ", 1)[1]) as channel:
            stub = stroke_pb2_grpc.StrokeServiceStub(channel)
            calls = [stub.Predict.future(pb.PredictRequest(image=IMAGE), timeout=TIMEOUT) for _ in range(4)]
            wait_for_line(process, "sleeping")
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
            assert 1.5 < time.monotonic() - started < 20
            assert {call.exception().code() for call in calls} <= {
                grpc.StatusCode.CANCELLED,
                grpc.StatusCode.UNAVAILABLE,
            }


def test_second_signal_stops_at_once(tiny_models: Path) -> None:
    """An impatient operator does not wait for the drain, nor for a worker."""
    with run_slow_server("decode", tiny_models, "--drain-seconds", "600", "--workers", "1") as process:
        assert process.stdout is not None
        banner = process.stdout.readline().strip()
        with grpc.insecure_channel(banner.rsplit(" ", 1)[1]) as channel:
            stub = stroke_pb2_grpc.StrokeServiceStub(channel)
            calls = [stub.Predict.future(pb.PredictRequest(image=IMAGE), timeout=10 * TIMEOUT) for _ in range(4)]
            wait_for_line(process, "sleeping")
            process.send_signal(signal.SIGTERM)
            wait_for_line(process, "stopping")

            process.send_signal(signal.SIGTERM)

            assert process.wait(TIMEOUT) == 0
            assert {call.exception().code() for call in calls} <= {
                grpc.StatusCode.CANCELLED,
                grpc.StatusCode.UNAVAILABLE,
            }


def test_hangup_without_a_terminal_reads_files_again(tiny_models: Path) -> None:
    """And cuts off nothing."""
    with run_server(tiny_models) as server, server.stub() as stub:
        stub.Predict(pb.PredictRequest(image=IMAGE), timeout=TIMEOUT)

        server.process.send_signal(signal.SIGHUP)

        wait_until(lambda: any("reading files again" in line for line in server.log))
        stub.Predict(pb.PredictRequest(image=IMAGE), timeout=TIMEOUT)


def test_closed_terminal_drains(tiny_models: Path) -> None:
    """It sends the same signal."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "--models", str(tiny_models), "--port", "0"],
        cwd=ROOT,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
    )
    os.close(terminal)
    with process:
        assert process.stdout is not None
        assert "serving" in process.stdout.readline()

        os.close(controller)

        assert process.wait(TIMEOUT) == 0
        assert process.stderr is not None
        assert "stopped" in process.stderr.read()


def make_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def make_field(name: str, value: str) -> bytes:
    """A header field that is not indexed (RFC 7541, 6.2.2)."""
    return b"".join((b"\x00", *(bytes([len(text)]) + text.encode() for text in (name, value))))


def open_stuck_watch(address: str) -> socket.socket:
    """A health watch on a connection that takes no data (a window of 0), but answers pings."""
    host, port = re.fullmatch(r"(.*):(\d+)", address).groups()  # type: ignore[union-attr]
    connection = socket.create_connection((host, int(port)))
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/grpc.health.v1.Health/Watch",
        ":authority": "server",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    connection.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + make_frame(4, 0, 0, struct.pack(">HI", 4, 0))  # SETTINGS: INITIAL_WINDOW_SIZE 0
        + make_frame(1, 4, 1, b"".join(make_field(*field) for field in fields.items()))  # HEADERS
        + make_frame(0, 1, 1, bytes(5))  # DATA: an empty message, and no more
    )
    return connection


def answer_pings(connection: socket.socket, process: subprocess.Popen[str], seconds: float) -> set[int]:
    """Until the process ends or the time is over; returns the kinds of frames that came."""
    until, data, kinds = time.monotonic() + seconds, b"", set()
    while process.poll() is None and time.monotonic() < until:
        if select.select([connection], [], [], 0.05)[0]:
            piece = connection.recv(65536)
            if not piece:
                break
            data += piece
        while len(data) >= 9 and len(data) >= 9 + (length := int.from_bytes(data[:3], "big")):
            kind, flags, payload = data[3], data[4], data[9 : 9 + length]
            kinds.add(kind)
            if kind in (4, 6) and not flags & 1:  # SETTINGS and PING are acknowledged
                connection.sendall(make_frame(kind, 1, 0, payload if kind == 6 else b""))
            data = data[9 + length :]
    return kinds


def test_watch_whose_caller_takes_nothing_does_not_hold_up_the_exit(tiny_models: Path) -> None:
    """Though its connection is alive and answers pings."""
    with run_server(tiny_models, "--drain-seconds", "200") as server, open_stuck_watch(server.address) as connection:
        kinds = answer_pings(connection, server.process, 0.5)
        assert 1 in kinds, "the watch is open: its headers came"
        assert 0 not in kinds, "no data came"
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        answer_pings(connection, server.process, TIMEOUT)

        assert server.process.wait(TIMEOUT) == 0
        assert time.monotonic() - started < 100
