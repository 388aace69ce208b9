"""The client's command line as a process, also in a real pseudo-terminal, and what is on its screen in the end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.client_fakes import wait_for
from tests.tracing import ROOT, traced

POSITIVE = b"stroke image"
"""What the fake server takes for an image of a stroke."""

INTERRUPTIBLE = (
    "-c",
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('client', run_name='__main__', alter_sys=True)",
)
"""Instead of ``-m client``: a shell that runs the tests in the background has its children ignore Ctrl-C, which a
terminal does not."""

_TOKEN = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|.", re.DOTALL)


def run_client(*arguments: str | bytes, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Runs ``python -m client`` to its end."""
    options.setdefault("env", {**os.environ, "PYTHONPATH": str(ROOT)})
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "client", *arguments], capture_output=True, timeout=60, **options
    )


@dataclass
class Session:
    """A client whose standard output and error are one terminal."""

    process: subprocess.Popen[bytes]
    master: int
    raw: bytearray = field(default_factory=bytearray)
    """What it has written so far."""

    def resize(self, columns: int) -> None:
        set_columns(self.master, columns)

    def wait_for_text(self, text: str) -> None:
        wait_for(lambda: text.encode() in self.raw)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)


@contextmanager
def open_session(*arguments: str, columns: int, cwd: Path, **environment: str) -> Iterator[Session]:
    """Runs ``python -m client`` in a terminal of ``columns`` columns; waits for its end when the block ends."""
    master, slave = pty.openpty()
    set_columns(slave, columns)
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    settings = {**inherited, "PYTHONPATH": str(ROOT), "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(
        [sys.executable, *INTERRUPTIBLE, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=cwd,
        env={**settings, **traced(), **environment},
    ) as process:
        os.close(slave)
        session = Session(process, master)
        reader = threading.Thread(target=_read_all, args=(session,))
        reader.start()
        try:
            yield session
            process.wait(60)
        finally:
            process.kill()
            reader.join()
            os.close(master)


def set_columns(descriptor: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def _read_all(session: Session) -> None:
    try:
        while chunk := os.read(session.master, 65536):
            session.raw += chunk
    except OSError:  # how Linux reports the end of a pseudo-terminal
        pass


def render_screen(raw: bytes) -> list[str]:
    """Returns the lines that stay on an endless screen that is wide enough, without colours."""
    lines, column = [""], 0
    for token in _TOKEN.findall(raw.decode()):
        if token == "\r":
            column = 0
        elif token == "\n":
            lines.append("")
        elif token == "\x1b[2K":
            lines[-1] = " " * column
        elif not token.startswith("\x1b"):
            lines[-1] = lines[-1][:column] + token + lines[-1][column + 1 :]
            column += 1
    return lines[:-1] if not lines[-1] else lines


def list_drawn(raw: bytes) -> list[str]:
    """Returns every stretch that was ever on one line, without colours: results and all states of the progress bar."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", raw.decode())
    return [part for part in re.split(r"\r\n|\r|\x1b\[2K", text) if part]
