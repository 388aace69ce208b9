"""The log: no call waits for its reader, nothing in a message can forge a line, and what is lost is counted."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from proto import stroke_pb2 as pb
from server.process import log
from server.process.console import complain
from server.process.log import LineWriter, count_dropped_lines, start_log, stop_log
from server.process.log_lines import LineFormatter
from tests.fakes import encode, make_slice, wait_until
from tests.host_faults import SERVING, open_stub, run_badly, stop, wait_until_serving

logger = logging.getLogger("server.test")


@contextmanager
def logging_to(descriptor: int, level: str = "info", log_format: str = "text") -> Iterator[None]:
    """Has this process's log go to a descriptor."""
    kept = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        start_log(level, log_format)
        yield
    finally:
        stop_log()
        os.dup2(kept, 2)
        os.close(kept)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A file that the log goes to."""
    with (tmp_path / "log").open("wb") as opened, logging_to(opened.fileno()):
        yield tmp_path / "log"


def read(path: Path) -> list[str]:
    """Ends the log, and returns its lines."""
    assert stop_log(10)
    return path.read_text().splitlines()


def make_pipe() -> tuple[int, int]:
    """A pipe of one page."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, 1031, 4096)  # F_SETPIPE_SZ
    return reading, writing


@pytest.mark.parametrize("is_full", [False, True])
def test_stalled_reader_stops_nothing(tiny_models: Path, tmp_path: Path, is_full: bool) -> None:
    """Thousands of calls are answered, health too, and SIGTERM ends the server with exit code 0."""
    reading, writing = make_pipe()
    if is_full:
        os.write(writing, b"x" * 4096)
    request = pb.PredictRequest(image=encode(make_slice()))
    with run_badly(tiny_models, tmp_path / "s", stderr=writing) as process, open_stub(tmp_path / "s") as (stub, health):
        os.close(writing)
        wait_until_serving(health)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: stub.Predict(request, timeout=30), range(2000)))
        with pytest.raises(grpc.RpcError):
            stub.Predict(pb.PredictRequest(image=b"no image"), timeout=30)

        assert len(answers) == 2000
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == SERVING
        assert stop(process) == 0
    os.close(reading)


def test_lines_are_written_in_order(file: Path) -> None:
    """Time, level, name, message."""
    for number in range(5000):
        logger.info("line %d of %s", number, "many")
    logger.debug("below the level")

    lines = read(file)

    assert [line.split(" server.test ")[1] for line in lines] == [f"line {n} of many" for n in range(5000)]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO server\.test line 0", lines[0])


def test_what_a_stalled_reader_loses_is_counted_and_said() -> None:
    """The queue is bounded in lines and bytes; when there is room again, the log says how many are missing."""
    reading, writing = make_pipe()
    with logging_to(writing):
        threads = [threading.Thread(target=lambda: [logger.info("x" * 200) for _ in range(8000)]) for _ in range(3)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - started < 20
        dropped = count_dropped_lines()
        assert dropped > 10_000
        found = b""
        reader = threading.Thread(target=lambda: read_until_told(), daemon=True)

        def read_until_told() -> None:
            nonlocal found
            while b"lines dropped" not in found:
                found += os.read(reading, 65536)

        reader.start()
        reader.join(20)
        assert f"WARNING server.process.log {dropped} lines dropped" in found.decode()
    os.close(reading)
    os.close(writing)


def test_end_waits_for_a_stalled_reader_only_a_moment() -> None:
    """The thread stands in a write that never returns."""
    reading, writing = make_pipe()
    with logging_to(writing):
        for _ in range(1000):
            logger.info("x" * 200)
        started = time.monotonic()

        assert not stop_log(0.3)

        assert 0.2 < time.monotonic() - started < 3
    os.close(reading)  # lets the thread go
    os.close(writing)


def test_queue_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few long lines are as many bytes as many short ones."""
    monkeypatch.setattr(log, "MOST_BYTES", 50_000)
    reading, writing = make_pipe()
    writer = LineWriter(os.dup(writing))
    for _ in range(100):
        writer.put("x" * 4000)

    assert 80 <= writer.dropped < 100
    os.close(reading)
    assert writer.stop(10)
    os.close(writing)


def test_full_disk_costs_lines_and_nothing_else() -> None:
    """They are counted."""
    full = os.open("/dev/full", os.O_WRONLY)
    with logging_to(full):
        for _ in range(10):
            logger.info("nowhere to go")

        wait_until(lambda: count_dropped_lines() == 10)
    os.close(full)


def test_descriptor_that_others_made_non_blocking_is_waited_for() -> None:
    """A supervisor that shares the pipe may do so: EAGAIN loses nothing."""
    reading, writing = make_pipe()
    os.set_blocking(writing, False)
    with logging_to(writing):
        for number in range(200):
            logger.info("%d %s", number, "x" * 100)
        found = b""
        while not found.endswith(b"\n") or b" 199 x" not in found:
            found += os.read(reading, 65536)

        assert found.count(b"\n") == 200
        assert count_dropped_lines() == 0
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    "text",
    [
        "a\n2026-01-01 00:00:00,000 INFO server.lifecycle.app stopped",
        "a\r\x1b[2Kb",
        "a\x85b",
        "a\u2028b",
        "a\u202eb",
        "a\0b",
    ],
)
def test_argument_cannot_begin_a_line(file: Path, text: str) -> None:
    """Nor move the cursor, nor turn the direction of what follows."""
    logger.info("got %s", text)
    logger.info(text)
    logger.info("id=%s code=%s", text, "OK")

    lines = read(file)

    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x code=OK", 'id="x code=OK" code=INTERNAL'),
        ('x" code=OK', r'id="x\" code=OK" code=INTERNAL'),
        ("", 'id="" code=INTERNAL'),
        ("plain-id", "id=plain-id code=INTERNAL"),
        (7, "id=7 code=INTERNAL"),
    ],
)
def test_argument_cannot_begin_a_field(text: object, shown: str) -> None:
    """A value with spaces, quotes or equals signs stands in quotes."""
    record = logging.makeLogRecord({"msg": "id=%s code=%s", "args": (text, "INTERNAL"), "levelname": "INFO"})

    assert LineFormatter().format(record).endswith(shown)


def test_traceback_is_indented(tmp_path: Path) -> None:
    """Its lines are many, and none of them looks like an entry."""
    with (tmp_path / "log").open("wb") as opened, logging_to(opened.fileno(), "debug"):
        try:
            raise ValueError("first\n2026-01-01 00:00:00,000 INFO server.lifecycle.app stopped\x1b[0m")
        except ValueError:
            logger.exception("failed")

        lines = read(tmp_path / "log")

    assert lines[0].endswith("ERROR server.test failed")
    assert all(line.startswith("  | ") for line in lines[1:])
    assert lines[-1] == r"  | 2026-01-01 00:00:00,000 INFO server.lifecycle.app stopped\x1b[0m"


def test_line_is_bounded(file: Path) -> None:
    """Whatever somebody has sent."""
    logger.info("%s", "x" * 100_000)

    assert len(read(file)[0]) < 5000


def test_line_that_cannot_be_made_does_not_raise(file: Path) -> None:
    """A wrong number of arguments, an object that does not print."""

    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("no")

    logger.info("%s %s", "one")
    logger.info("%s", Unprintable())
    logger.info(Unprintable())

    lines = read(file)

    assert [("TypeError" in lines[0]), ("RuntimeError" in lines[1]), ("RuntimeError" in lines[2])] == [True] * 3


def test_everything_on_standard_error_goes_the_same_way(tmp_path: Path) -> None:
    """Threads that die, warnings, prints of libraries, errors where none can be raised, and our own complaints."""

    class Dying:
        def __del__(self) -> None:
            raise ValueError("in a finalizer")

    def die() -> None:
        raise ValueError("in a thread")

    with (tmp_path / "log").open("wb") as opened, logging_to(opened.fileno()):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)  # catch_warnings has put aside what shows them
            warnings.warn("a warning", stacklevel=1)
        thread = threading.Thread(target=die, name="poor")
        thread.start()
        thread.join()
        print("a print", file=sys.stderr)
        dying = Dying()
        del dying
        complain("server: error: a complaint")

        text = "\n".join(read(tmp_path / "log"))

    assert "a warning" in text
    assert "unhandled error in thread poor" in text
    assert "\n  | builtins.ValueError\n" in text  # of the thread
    assert "\n  | a print\n" in text
    assert "in __del__" in text
    assert text.endswith("\nserver: error: a complaint")


def test_end_puts_everything_back(file: Path) -> None:
    """Tests, and programs that use parts of the server, have their own standard error again."""
    stop_log()
    hooks = (sys.stderr, sys.excepthook, threading.excepthook, sys.unraisablehook, logging.raiseExceptions)
    start_log("info")
    assert sys.stderr is not hooks[0]
    stop_log()

    assert hooks == (sys.stderr, sys.excepthook, threading.excepthook, sys.unraisablehook, logging.raiseExceptions)
