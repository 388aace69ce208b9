"""A real server process under a small supervisor, which starts it again when it dies, as systemd does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bench.processes import ROOT, find_ports
from server.process.children import start

RESTART_SECONDS = 0.1
"""Between an end and the next start: RestartSec= of systemd, by default."""

START_SECONDS = 60.0
VAIN_STARTS = 5
STOP_SECONDS = 45.0


@dataclass(frozen=True)
class Life:
    """A process from its start to its end. Times are seconds of ``time.monotonic``."""

    started: float
    ready: float | None
    """When it said that it serves; None: it never did."""

    ended: float
    code: int
    """As ``subprocess`` has it: negative for a signal."""


class Server:
    """``python -m server`` on one port; use it in a ``with`` statement.

    Attributes:
        address: HOST:PORT.
        log: the file that its standard error goes to.
        lives: of the processes that have ended.
        ready_at: when the one that runs said that it serves, in seconds of ``time.monotonic``; 0: it has not.
        banner: what the last one said when it began to serve.
    """

    def __init__(
        self,
        folder: Path,
        flags: Sequence[str],
        *,
        wrap: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        stderr: int | None = None,
        restarts: bool = True,
    ) -> None:
        """Starts it, and returns before it is ready.

        Args:
            folder: for its files; it has its log there.
            flags: of the server, without ``--port``.
            wrap: what stands before its command, such as ``taskset``; must end in the same process.
            environment: more variables.
            stderr: a descriptor in place of ``log``.
            restarts: start it again when it ends.
        """
        port = find_ports(1)[0]
        self.address = f"127.0.0.1:{port}"
        self.log = folder / f"server-{port}.log"
        self._command = [sys.executable, "-m", "server", "--port", str(port), *flags]
        self._wrap = wrap
        # As where it is installed: modules are compiled once, and no settings come from the shell of the bench.
        names = {name for name in os.environ if name.startswith("STROKE_")} | {"PYTHONDONTWRITEBYTECODE"}
        self._environment = {k: v for k, v in os.environ.items() if k not in names} | dict(environment or {})
        self._stderr = stderr
        self._restarts = restarts
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._started, self.ready_at = 0.0, 0.0
        self._is_closing = False
        self.lives: list[Life] = []
        self.banner: list[str] = []
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the process that runs.

        Raises:
            RuntimeError: none does.
        """
        with self._changed:
            if self._process is None:
                raise RuntimeError("the server does not run")
            return self._process.pid

    def wait_ready(self, lives: int = 0, seconds: float = START_SECONDS) -> bool:
        """Waits until a process serves, of those after so many that have ended. Returns False when none does in time,
        none is started again, or some in a row have ended by themselves before they served."""

        def is_ready() -> bool:
            return bool(self.ready_at and len(self.lives) >= lives)

        def is_vain() -> bool:
            last = self.lives[lives:][-VAIN_STARTS:]
            return len(last) == VAIN_STARTS and all(life.ready is None and life.code > 0 for life in last)

        with self._changed:
            self._changed.wait_for(lambda: is_ready() or is_vain() or not self._thread.is_alive(), seconds)
            return is_ready()

    def wait_ended(self, lives: int, seconds: float = STOP_SECONDS) -> bool:
        """Waits until so many processes have ended; returns False when they do not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.lives) >= lives, seconds)

    def send(self, number: int) -> None:
        """Signals the process, if one runs."""
        with suppress(ProcessLookupError, RuntimeError):
            os.kill(self.pid, number)

    def replace(self, number: int) -> bool:
        """Ends the process by a signal and waits for the next one; returns whether that serves."""
        count = len(self.lives) + 1
        self.send(number)
        return self.wait_ended(count) and self.wait_ready(count)

    def close(self) -> None:
        """Ends it for good: by SIGTERM, and by SIGKILL what does not obey."""
        with self._changed:
            self._is_closing = True
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        self._thread.join(STOP_SECONDS)
        self.send(signal.SIGKILL)
        self._thread.join(STOP_SECONDS)

    def read_log(self) -> str:
        """What it has written on standard error so far."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def _supervise(self) -> None:
        while True:
            with self.log.open("ab") as log:
                self._live(log)
            with self._changed:
                self._changed.notify_all()
                if self._is_closing or not self._restarts:
                    return
            time.sleep(RESTART_SECONDS)
            with self._changed:
                if self._is_closing:
                    return

    def _live(self, log: IO[bytes]) -> None:
        process = start(
            self._command,
            wrap=self._wrap,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log if self._stderr is None else self._stderr,
            text=True,
        )
        assert process.stdout is not None
        with self._changed:
            self._process, self._started = process, time.monotonic()
            if self._is_closing:
                process.terminate()
        with process.stdout:
            if process.stdout.readline():
                with self._changed:
                    self.ready_at = time.monotonic()
                    self.banner.clear()
                    self._changed.notify_all()
                self.banner.extend(process.stdout)
            code = process.wait()
        with self._changed:
            self.lives.append(Life(self._started, self.ready_at or None, time.monotonic(), code))
            self._process, self.ready_at = None, 0.0


def measure_gaps(server: Server) -> list[float]:
    """Seconds from each end of a process to when the next one served; the one that runs now does."""
    begins = [life.ready for life in server.lives[1:]] + [server.ready_at]
    return [begin - life.ended for life, begin in zip(server.lives, begins, strict=True) if begin is not None]
