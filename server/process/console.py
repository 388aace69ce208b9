"""What a program says on standard output and standard error, and that no such line decides over what it does.

A supervisor may give a program a full disk, a pipe whose reader has gone or does not read, no descriptor at all, or an
encoding without the character in question. A server that serves goes on serving, and a model that was installed stays
installed. So nothing here raises but ``KeyboardInterrupt``.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

PATIENCE_SECONDS = 1.0
"""How long a line of a program that has other things to do waits for a reader that does not read."""

MOST_ERROR_CHARACTERS = 2000
"""An error may hold what somebody has typed or put into a variable."""

PIPE_BYTES = min(select.PIPE_BUF, 4096)
"""So much can be written to a pipe at once where the system says that it can be written to at all (POSIX)."""

OPEN_WAYS = {0: os.O_RDONLY, 1: os.O_WRONLY, 2: os.O_WRONLY}

_redirected: list[Callable[[str], None]] = []
"""Where errors go instead while a log is kept: it alone then writes on standard error."""


class GuardedStream(io.TextIOBase):
    """A text stream on a descriptor that keeps nothing back: so there is nothing to fail when the interpreter ends.

    Characters that the encoding does not have are escaped. A write that fails is forgotten.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._line = ""
        # For the unfinished line only, never during a write. Re-entrant: a signal handler may print.
        self._lock = threading.RLock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Name of the encoding."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        """How characters are treated that the encoding does not have."""
        return "backslashreplace"

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Writes whole lines; the rest waits for more, or for ``flush``."""
        with self._lock:
            lines, end, self._line = (self._line + text).rpartition("\n")
        if end:
            self.try_write(lines + end)
        return len(text)

    def flush(self) -> None:
        """Writes what has no end of line yet."""
        with self._lock:
            rest, self._line = self._line, ""
        if rest:
            self.try_write(rest)

    def try_write(self, text: str, patience: float = math.inf) -> bool:
        """Writes at once. Returns whether all of it was taken within ``patience`` seconds."""
        return write_all(self._descriptor, text.encode(self._encoding, "backslashreplace"), patience)


def guard_streams() -> None:
    """Makes every ``print`` of this process harmless, also those of libraries. The first thing that a program does.

    Descriptors that were closed are opened on nothing. Otherwise the next file or connection would get the number of
    standard error, and with it what a library writes there.
    """
    for descriptor, way in OPEN_WAYS.items():
        try:
            os.fstat(descriptor)
        except OSError:
            with contextlib.suppress(OSError):  # opens the lowest free number, which is this one
                os.open(os.devnull, way)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        # A test, or a program that calls this one, may have put something else there: that is left alone.
        if stream is None or (stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper)):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            setattr(sys, name, GuardedStream(descriptor, stream.encoding if stream is not None else "utf-8"))


def say(text: str, patience: float = math.inf) -> bool:
    """Prints on standard output, as ``print`` does. Returns whether it was taken.

    Args:
        text: one or more lines.
        patience: seconds to wait for a reader. A result waits for ever, as in any program whose output is piped to a
            pager; what is said beside the work does not.
    """
    return print_on(sys.stdout, text, patience)


def complain(text: str, patience: float = PATIENCE_SECONDS) -> bool:
    """Prints one line on standard error. Returns whether it was taken. Line ends and control characters are escaped."""
    line = escape(text if len(text) <= MOST_ERROR_CHARACTERS else f"{text[:MOST_ERROR_CHARACTERS]}…")
    if _redirected:
        _redirected[-1](line)
        return True
    return print_on(sys.stderr, line, patience)


def redirect_complaints(write: Callable[[str], None] | None) -> None:
    """Has ``complain`` call ``write`` from now on; None: as before."""
    _redirected[:] = [write] if write else []


def print_on(stream: TextIO | None, text: str, patience: float) -> bool:
    """Prints lines on any stream; returns whether it took them."""
    text += "\n"
    try:
        if isinstance(stream, GuardedStream):
            stream.flush()
            return stream.try_write(text, patience)
        if stream is None:
            return False
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError, LookupError):  # full, gone, closed
        return False
    return True


def write_all(descriptor: int, data: bytes, patience: float = math.inf) -> bool:
    """Writes bytes; returns whether all were taken within ``patience`` seconds. Never raises an OSError.

    Where patience is finite, no write can block: it comes after a question whether there is room, and asks for no more.
    """
    rest = memoryview(data)
    end = time.monotonic() + patience
    while rest:
        try:
            if math.isfinite(patience) and not wait_for_room(descriptor, end - time.monotonic()):
                return False
            rest = rest[os.write(descriptor, rest[:PIPE_BYTES] if math.isfinite(patience) else rest) :]
        except BlockingIOError:  # somebody who shares it has made it non-blocking
            if not wait_for_room(descriptor, min(end - time.monotonic(), 60.0)) and time.monotonic() >= end:
                return False
        except (OSError, ValueError):
            return False
    return True


def wait_for_room(descriptor: int, seconds: float) -> bool:
    """Whether something can be written within some seconds, or fails at once."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(1000 * max(seconds, 0.0)))


def escape(text: str) -> str:
    """The text with what does not print as escapes: ends of lines, control characters, marks of direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@contextlib.contextmanager
def silence_tensorflow() -> Iterator[None]:
    """Keeps TensorFlow's greetings off the terminal while it is imported; shows what was said when that fails.

    Its C++ libraries write some lines before any log level applies, so the descriptor itself is turned aside.
    """
    import tempfile  # costs 30 ms, which a server need not wait for

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            write_all(terminal, said.read(), PATIENCE_SECONDS)
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
    # Keras calls the .h5 file that was asked for "legacy" on every save.
    from absl import logging

    logging.set_verbosity(logging.ERROR)


def has_terminal() -> bool:
    """Whether this process belongs to a terminal that is open."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY))
    except OSError:
        return False
    return True
