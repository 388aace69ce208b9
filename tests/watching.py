"""A watch on a folder for tests: in a process, or in a thread of the test's own."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch

from client.cli.connection import read_connection
from client.cli.main import build_parser
from client.cli.signals import StopSignals
from client.cli.watch import folder as _folder
from client.cli.watch.arrivals import Arrivals
from tests.client_fakes import wait_for
from tests.command_lines import INTERRUPTIBLE
from tests.fakes import ROOT, encode, make_slice


def make_png(seed: int = 0) -> bytes:
    """A small slice; another for each seed."""
    return encode(make_slice(seed=seed, side=32))


class Watching:
    """A running ``python -m client --watch``."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def watching(folder: Path, target: str, *flags: str, ready: bool = True) -> Iterator[Watching]:
    """Runs a watch on ``folder`` until the block ends; its output goes to one file."""
    log = folder.parent / "log.txt"
    command = [sys.executable, *INTERRUPTIBLE, "--watch", str(folder), "--server", target, "--settle", "0.1", *flags]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, text=True) as process:
        try:
            running = Watching(process, log)
            if ready:
                wait_for(lambda: "Ctrl-C ends" in running.log)
            yield running
        finally:
            process.kill()


class Crash(BaseException):
    """Ends a watch as kill -9 would: nothing after it is done."""


class WatchingHere(Watching):
    """A watch in a thread of this process, for what needs no process of its own: it starts at once."""

    def __init__(self, signals: StopSignals, output: io.StringIO) -> None:
        self._signals = signals
        self._output = output
        self.looks: list[float] = []
        """When it looked at the folder."""

        self.status: int | None = None
        """What it ended with; None while it runs, and after a crash."""

        self.thread = threading.Thread()

    @property
    def log(self) -> str:
        return self._output.getvalue()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stops it as a signal does, whichever it is; returns what a process would exit with, after a crash -1."""
        self._signals.stop()
        self.thread.join(60)
        assert not self.thread.is_alive()
        return -1 if self.status is None else self.status

    def let_pass(self, seconds: float = 0.2, looks: int = 4) -> None:
        """Waits until it has looked again, so many times from so many seconds on, and dealt with all but the last."""
        later = time.monotonic() + seconds
        wait_for(lambda: sum(look > later for look in self.looks) >= looks)


@contextmanager
def watching_here(folder: Path, target: str, *flags: str) -> Iterator[WatchingHere]:
    """Runs a watch on ``folder`` until the block ends, with short pauses."""
    parser = build_parser()
    arguments = parser.parse_args(["--watch", str(folder), "--server", target, "--settle", "0.05", *flags])
    connection = read_connection(parser, arguments)
    signals, output = StopSignals(), io.StringIO()
    running = WatchingHere(signals, output)
    poll = Arrivals.poll

    def look(watch: Arrivals) -> list[str]:
        running.looks.append(time.monotonic())
        return poll(watch)

    with (
        patch.multiple(_folder, POLL_SECONDS=0.02, _FIRST_PAUSE=0.05),
        patch.object(Arrivals, "poll", look),
        redirect_stdout(output),
        redirect_stderr(output),
    ):

        def run() -> None:
            with suppress(Crash):
                running.status = _folder.run_watch(arguments, connection, signals)

        running.thread = threading.Thread(target=run)
        running.thread.start()
        try:
            wait_for(lambda: "Ctrl-C ends" in running.log or "--quiet" in flags or not running.thread.is_alive())
            yield running
        finally:
            running.stop()


def read_result(path: Path) -> dict:
    """The record that was written beside an image."""
    return json.loads(path.read_text())


def wait_for_files(*paths: Path) -> None:
    """Waits until all of them are there."""
    wait_for(lambda: all(path.exists() for path in paths))
