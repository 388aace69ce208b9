"""What is printed never decides over what is done: full, gone and closed outputs, and narrow encodings."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proto import stroke_pb2 as pb
from server.process import console
from server.process.console import GuardedStream, complain, escape, say, write_all
from tests.fakes import ROOT, encode, make_slice
from tests.host_faults import open_stub, run_badly, stop, wait_until_serving

F_SETPIPE_SZ = 1031
"""Of Linux's <fcntl.h>; the module fcntl has it from Python 3.10 on, on Linux alone."""


def make_stalled_pipe() -> tuple[int, int]:
    """A pipe of one page that nobody reads, and that is full."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    while True:
        try:
            os.write(writing, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    return reading, writing


@pytest.mark.parametrize(
    "redirections",
    [">/dev/full", ">&-", "2>/dev/full", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"],
)
def test_server_serves_whatever_its_outputs_are(tiny_models: Path, tmp_path: Path, redirections: str) -> None:
    """It answers, and SIGTERM ends it with exit code 0."""
    with (
        run_badly(tiny_models, tmp_path / "s", shell=redirections) as process,
        open_stub(tmp_path / "s") as (
            stub,
            health,
        ),
    ):
        wait_until_serving(health)

        assert stub.Predict(pb.PredictRequest(image=encode(make_slice())), timeout=20).label

        assert stop(process) == 0


def test_server_serves_a_reader_that_has_gone(tiny_models: Path, tmp_path: Path) -> None:
    """Both outputs are pipes without an end to read from."""
    reading, writing = os.pipe()
    os.close(reading)
    with (
        run_badly(tiny_models, tmp_path / "s", stdout=writing, stderr=writing) as process,
        open_stub(tmp_path / "s") as (stub, health),
    ):
        os.close(writing)
        wait_until_serving(health)

        assert stub.Predict(pb.PredictRequest(image=encode(make_slice())), timeout=20).label

        assert stop(process) == 0


def test_server_serves_a_reader_that_stalls(tiny_models: Path, tmp_path: Path) -> None:
    """The banner finds a full pipe."""
    reading, writing = make_stalled_pipe()
    with (
        run_badly(tiny_models, tmp_path / "s", stdout=writing, stderr=writing) as process,
        open_stub(tmp_path / "s") as (stub, health),
    ):
        os.close(writing)
        wait_until_serving(health)

        assert stub.Predict(pb.PredictRequest(image=encode(make_slice())), timeout=20).label

        assert stop(process) == 0
    os.close(reading)


def test_banner_comes_out_in_any_encoding(tiny_models: Path, tmp_path: Path) -> None:
    """Characters that it does not have are escaped."""
    environment = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    with (
        run_badly(tiny_models, tmp_path / "s", stdout=subprocess.PIPE, env=environment) as process,
        open_stub(tmp_path / "s") as (_, health),
    ):
        assert process.stdout is not None
        with process.stdout:
            line = process.stdout.readline()
            wait_until_serving(health)

            assert line.startswith(b"serving tiny 1 (sha256 ")
            assert line.endswith(f" on unix:{tmp_path}/s\n".encode())
            assert stop(process) == 0


@pytest.mark.parametrize("arguments", [("--help",), ("tune", "--help"), ("--port", "x")])
@pytest.mark.parametrize("redirections", [">/dev/full 2>/dev/full", ">&- 2>&-"])
def test_exit_code_is_that_of_the_program(arguments: tuple[str, ...], redirections: str) -> None:
    """And not 120, Python's own for what it could not write at its end."""
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "server", *arguments]

    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == (2 if "x" in arguments else 0)


def closed() -> io.TextIOWrapper:
    stream = io.TextIOWrapper(io.BytesIO())
    stream.close()
    return stream


def gone() -> GuardedStream:
    reading, writing = os.pipe()
    os.close(reading)
    return GuardedStream(writing, "utf-8")


def full() -> GuardedStream:
    return GuardedStream(os.open("/dev/full", os.O_WRONLY), "utf-8")


@pytest.mark.parametrize("make", [lambda: None, closed, gone, full, lambda: GuardedStream(999, "utf-8")])
def test_nothing_that_is_printed_raises(make: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be printed is False."""
    stream = make()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)

    assert not say("text…")
    assert not complain("text…")


def test_patience_ends() -> None:
    """A full pipe is waited for no longer than told; what comes later is written when there is room."""
    reading, writing = make_stalled_pipe()
    started = time.monotonic()

    assert not write_all(writing, b"line\n", 0.2)

    assert 0.15 < time.monotonic() - started < 5
    os.read(reading, 4096)
    assert write_all(writing, b"line\n", 0.2)
    os.close(reading)
    os.close(writing)


def test_error_is_one_line_of_bounded_length(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever somebody has typed."""
    complain("server: error: a\nb\x1b[31mc\u202e" + "x" * 9999)

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(r"server: error: a\nb\x1b[31mc\u202exxx")
    assert len(line) < 1.1 * console.MOST_ERROR_CHARACTERS


def test_printable_text_is_not_escaped() -> None:
    """Umlauts and dots are no control characters."""
    assert escape("Größe 512 µm …") == "Größe 512 µm …"
    assert escape("\udcff") == r"\udcff"


def test_guarded_stream_writes_whole_lines(tmp_path: Path) -> None:
    """In the encoding of the stream that it replaces, the rest when it is flushed."""
    with (tmp_path / "out").open("wb") as file:
        stream = GuardedStream(file.fileno(), "ascii")
        print("a", "…", file=stream)
        print("half", end="", file=stream)
        assert (tmp_path / "out").read_bytes() == b"a \\u2026\n"
        stream.flush()

    assert (tmp_path / "out").read_bytes() == b"a \\u2026\nhalf"
