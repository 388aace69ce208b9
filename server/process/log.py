"""The log on standard error: a call that logs never waits for whoever reads it, and never fails with it.

A line goes into a queue that is bounded in lines and bytes, and one daemon thread writes what is in it. Where the
reader of a pipe stalls, that thread alone stands still; what finds the queue full is dropped and counted, and the count
is written as soon as there is room again. A write to a full pipe never returns, so the thread is not waited for longer
than a moment at the end. What a line looks like is in ``server.process.log_lines``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections import deque
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from server.process.console import PIPE_BYTES, GuardedStream, redirect_complaints, wait_for_room
from server.process.log_budget import LogBudget
from server.process.log_lines import FORMATTERS, MOST_MESSAGE_CHARACTERS, SHOW_TEXT, LineFormat, LineFormatter

MOST_LINES = 10_000
MOST_BYTES = 4 * 1024 * 1024
"""What may wait to be written: some seconds of a busy server, while a disk has its own."""

STOP_SECONDS = 0.5


class LineWriter:
    """Writes lines to a descriptor from a thread of its own.

    Attributes:
        dropped: lines that were not written, ever.
    """

    def __init__(self, descriptor: int, line_format: LineFormat | None = None) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._format = line_format or LineFormatter()
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        # Re-entrant, and held for a few instructions only: a signal handler that logs may interrupt a line of its own
        # thread. For the same reason the thread is woken by a SimpleQueue, and not by a Condition.
        self._lock = threading.RLock()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._is_idle = False
        self._stopping = False
        self._told = 0
        self._is_torn = False
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Takes a line without its end; it neither blocks nor raises. The line is dropped where there is no room."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._lock:
            if len(self._lines) >= MOST_LINES or self._bytes + len(data) > MOST_BYTES:
                self.dropped += 1
                return
            self._lines.append(data)
            self._bytes += len(data)
            if not self._is_idle:
                return
            self._is_idle = False
        self._wake.put(None)

    def stop(self, timeout: float) -> bool:
        """Ends the thread when it has written the rest; returns whether it did within ``timeout`` seconds."""
        with self._lock:
            self._stopping = True
            self._is_idle = False
        self._wake.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():  # the thread is inside a write: its descriptor cannot be closed below it
            return False
        os.close(self._descriptor)
        return True

    def _write_all(self) -> None:
        while True:
            batch, count = self._take_batch()
            if batch:
                if not self._write(batch):
                    with self._lock:
                        self.dropped += count
            elif self._stopping:
                return
            else:
                self._wake.get()

    def _take_batch(self) -> tuple[bytes, int]:
        """The next lines, as many as a pipe takes in one piece, and their number; nothing when there are none."""
        with self._lock:
            batch: list[bytes] = []
            size = 0
            while self._lines and (not batch or size + len(self._lines[0]) <= PIPE_BYTES):
                size += len(self._lines[0])
                batch.append(self._lines.popleft())
            self._bytes -= size
            self._is_idle = not batch and not self._stopping
            dropped = self.dropped
        if batch and dropped > self._told:
            told = self._format.say("WARNING", __name__, f"{dropped - self._told} lines dropped")
            if self._write(told.encode() + b"\n"):
                self._told = dropped
        return b"".join(batch), len(batch)

    def _write(self, data: bytes) -> bool:
        """Writes lines, if it takes for ever; returns False when that fails: the disk is full, the reader has gone."""
        rest = memoryview(b"\n" + data if self._is_torn else data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
                self._is_torn = bool(rest)
            except BlockingIOError:  # somebody who shares the pipe has made it non-blocking
                wait_for_room(self._descriptor, 1.0)
            except OSError:
                return False
        return True


class QueueHandler(logging.Handler):
    """Makes lines of records and hands them to a writer. Without the lock of its base class: nothing here needs it."""

    def __init__(self, writer: LineWriter, line_format: LineFormat) -> None:
        super().__init__()
        self._writer = writer
        self._format = line_format
        self.budget = LogBudget(lambda text: writer.put(line_format.say("WARNING", __name__, text)))

    def createLock(self) -> None:  # noqa: N802
        """None."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """See ``logging.Handler``."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises: what cannot be formatted is a fault of ours, and no reason to lose an answer."""
        try:
            if not self.budget.admits(record):
                return
            line = self._format.format(record)
        except Exception as error:
            what = repr(record.msg)[:MOST_MESSAGE_CHARACTERS]
            line = self._format.say("ERROR", __name__, f"{type(error).__name__} in a log line: {what}")
        self._writer.put(line)


class LogStream(GuardedStream):
    """Stands for ``sys.stderr``: what a library prints there becomes lines of the log."""

    def __init__(self, descriptor: int, writer: LineWriter, line_format: LineFormat) -> None:
        super().__init__(descriptor, "utf-8")
        self._writer = writer
        self._format = line_format

    def try_write(self, text: str, patience: float = 0.0) -> bool:
        """Hands the text to the writer."""
        self._writer.put(self._format.quote(text))
        return True


class Log:
    """What ``start_log`` has changed in this process, to be put back."""

    def __init__(self, level: str, log_format: str) -> None:
        line_format = FORMATTERS[log_format](shows_texts=level == "debug")
        self.writer = LineWriter(os.dup(2), line_format)
        self._handler = QueueHandler(self.writer, line_format)
        root = logging.getLogger()
        self._level = root.level
        self._stderr = sys.stderr
        self._hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)
        self._raise_exceptions = logging.raiseExceptions
        root.addHandler(self._handler)
        root.setLevel(level.upper())
        logging.raiseExceptions = False  # prints on standard error
        logging.captureWarnings(True)
        sys.stderr = LogStream(2, self.writer, line_format)
        sys.excepthook = log_exception
        threading.excepthook = log_thread_exception
        sys.unraisablehook = log_unraisable
        redirect_complaints(lambda text: self.writer.put(line_format.complain(text)))

    @property
    def suppressed(self) -> int:
        """Lines that were counted instead of written."""
        return self._handler.budget.suppressed

    def stop(self, timeout: float) -> bool:
        """Puts everything back; returns whether all lines were written within ``timeout`` seconds."""
        redirect_complaints(None)
        if isinstance(sys.stderr, LogStream):
            sys.stderr.flush()
            sys.stderr = self._stderr
        sys.excepthook, threading.excepthook, sys.unraisablehook = self._hooks
        logging.captureWarnings(False)
        logging.raiseExceptions = self._raise_exceptions
        root = logging.getLogger()
        root.removeHandler(self._handler)
        if not root.handlers:  # without any, logging itself prints on standard error
            root.addHandler(logging.NullHandler())
        root.setLevel(self._level)
        self._handler.budget.tell()
        return self.writer.stop(timeout)


_logs: list[Log] = []
"""The log that is kept at present, if any."""


def start_log(level: str, log_format: str = "text") -> None:
    """Begins to log on standard error, and has everything that this process prints there go the same way.

    Args:
        level: the least that is written: ``debug``, ``info``, ``warning`` or ``error``.
        log_format: one of ``server.process.log_lines.FORMATS``.
    """
    stop_log()
    _logs.append(Log(level, log_format))
    logging.getLogger("PIL").setLevel(logging.WARNING)  # below that it logs what is in EXIF tags: names, dates


def stop_log(timeout: float = STOP_SECONDS) -> bool:
    """Writes what is left, for at most ``timeout`` seconds. Returns whether all of it was written."""
    with contextlib.suppress(IndexError):
        return _logs.pop().stop(timeout)
    return True


def count_dropped_lines() -> int:
    """How many lines of the log were lost because nobody read it, or the disk was full."""
    return _logs[-1].writer.dropped if _logs else 0


def count_suppressed_lines() -> int:
    """How many lines of the log were counted instead of written, because there were too many of their kind."""
    return _logs[-1].suppressed if _logs else 0


def log_exception(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Stands for ``sys.excepthook``."""
    logging.getLogger("server").critical("unhandled error", exc_info=(kind, error, traceback), extra=SHOW_TEXT)


def log_thread_exception(arguments: Any) -> None:
    """Stands for ``threading.excepthook``."""
    name = arguments.thread.name if arguments.thread else "unknown"
    info = (arguments.exc_type, arguments.exc_value or arguments.exc_type(), arguments.exc_traceback)
    logging.getLogger("server").error("unhandled error in thread %s", name, exc_info=info)


def log_unraisable(arguments: Any) -> None:
    """Stands for ``sys.unraisablehook``: an error where none can be raised, as when an object is dropped."""
    info = (arguments.exc_type, arguments.exc_value or arguments.exc_type(), arguments.exc_traceback)
    logging.getLogger("server").error("ignored: %s", arguments.err_msg or "an error in a finalizer", exc_info=info)
