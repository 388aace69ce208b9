"""The audit log of a server: takes outcomes from any thread, and writes them from one of its own.

Who notes an outcome appends it to a queue, and no more: lines are made, hashed and written by the thread, in batches,
and secured by fsync every second. When that fails (disk full, share gone), outcomes wait, up to a bound, and what is
lost beyond it is counted and told by the chain itself once it goes on.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from proto import __version__
from server.audit.chain import Position, seal
from server.audit.chain_file import ChainFile, day_of_time
from server.audit.content import Content, describe_time
from server.audit.family import make_salt, sync_folder, take_lock
from server.audit.retention import describe_removal, list_expired
from server.core.outcomes import Outcome
from server.errors import UnavailableError

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""Outcomes that wait to be written, some seconds of a busy server. The last half is for images that were judged."""

BATCH = 500
GATHER_SECONDS = 0.1
"""How long the thread lets outcomes gather: waking it for each would cost more than writing it."""

SYNC_SECONDS = 1.0
RETRY_SECONDS = 1.0
STUCK_SECONDS = 5.0
"""A disk, or a share, that has taken nothing for so long is as good as full."""

CLOSE_SECONDS = 5.0
"""How long the end waits for a disk that does not answer."""


@dataclass(frozen=True)
class AuditOptions:
    """How a log is kept."""

    path: Path
    is_required: bool = False
    with_peer: bool = True
    is_salted: bool = True
    most_bytes: int = 64 * 1024 * 1024
    """Of a file; then it is rotated."""

    keep_months: int = 0
    """0: for ever."""


class AuditLog:
    """Writes a line for each image, and for each study, into a chain of files. See ``server.core.outcomes.Recorder``.

    Attributes:
        written: lines about images that were written.
        lost: images without a line, because too many waited.
        refused: images that were refused because the log could not be written.
        failures: times that it began to fail.
        last_sync: when what was written was last known to be on the disk, in seconds since 1970; 0: never.
        is_failing: whether the last attempt to write or to secure has failed.
    """

    def __init__(self, options: AuditOptions) -> None:
        """Opens the log, says in it that a server starts, and starts the thread.

        A full disk does not keep it from starting.

        Raises:
            OSError: it cannot be opened, another server writes it, or it holds something else.
        """
        self._options = options
        self._lock = take_lock(options.path)
        try:
            salt = make_salt(options.path) if options.is_salted else None
            self._file = ChainFile(options.path, options.most_bytes)
        except BaseException:
            os.close(self._lock)
            raise
        self._content = Content(salt, options.with_peer)
        self.written = self.lost = self.refused = self.failures = 0
        self.last_sync = 0.0
        self.is_failing = False
        self._counting = threading.Lock()
        self._waiting: deque[Outcome] = deque()
        self._batch: list[Outcome] = []
        self._told = (0, 0)
        """What of ``lost`` and ``refused`` the chain has been told."""
        self._first: dict[str, object] | None = self._describe_start()
        self._is_secured = True
        self._secured_at = self._tried_at = float("-inf")
        self._busy_since: float | None = None
        self._has_to_expire = True
        self._has_to_reopen = self._is_closing = False
        self._wake = threading.Event()
        self._work()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    @property
    def state(self) -> str:
        """``ok``, or ``failing``: lines cannot be written or secured, or the disk has not answered for seconds."""
        busy_since = self._busy_since
        is_stuck = busy_since is not None and time.monotonic() - busy_since > STUCK_SECONDS
        return "failing" if self.is_failing or is_stuck else "ok"

    def needs_person(self) -> bool:
        """Whether it is failing."""
        return self.state != "ok"

    @property
    def backlog(self) -> int:
        """Outcomes that wait to be written."""
        return len(self._waiting) + len(self._batch)

    def note(self, outcome: Outcome) -> None:
        """See ``Recorder``."""
        if not outcome.is_image and outcome.study is None:
            return
        if outcome.reason == "AUDIT_UNAVAILABLE":  # nothing to be said but how many
            with self._counting:
                self.refused += 1
        elif len(self._waiting) >= (MOST_WAITING if outcome.detection or outcome.study else MOST_WAITING // 2):
            with self._counting:
                self.lost += 1
        else:
            self._waiting.append(outcome)
        if not self._wake.is_set():
            self._wake.set()

    def check_ready(self) -> None:
        """Refuses images that may have no line. Only where the log is required.

        Raises:
            UnavailableError: reason AUDIT_UNAVAILABLE.
        """
        if self.state != "ok" or len(self._waiting) > MOST_WAITING // 2:
            raise UnavailableError(
                "AUDIT_UNAVAILABLE",
                "The server cannot write its audit log and judges nothing without it: tell whoever runs it.",
                retry_after=RETRY_SECONDS,
            )

    def reopen(self) -> None:
        """Goes on in a new file where the file was moved; soon. Never raises."""
        self._has_to_reopen = True
        self._wake.set()

    def close(self) -> None:
        """Writes what waits, says in the log that the server has stopped, and ends."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive() or self.backlog:
            logger.error("audit log: %d lines were not written before the end", self.backlog)
        if not self._thread.is_alive():
            self._file.close()
            os.close(self._lock)

    # What follows belongs to the thread.

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._wake.wait(self._find_patience())
            if not self._is_closing:
                time.sleep(GATHER_SECONDS)
            self._wake.clear()
            is_last = self._is_closing
            self._work(is_last)

    def _find_patience(self) -> float | None:
        """Seconds after which there is something to be done even if nothing comes; None: there is not."""
        if self.is_failing:
            return RETRY_SECONDS
        return None if self._is_secured else max(0.0, self._secured_at + SYNC_SECONDS - time.monotonic())

    def _work(self, is_last: bool = False) -> None:
        """Writes what waits, and secures it when that is due. Never raises."""
        now = time.monotonic()
        if self.is_failing and not is_last and now - self._tried_at < RETRY_SECONDS:
            return
        self._tried_at = self._busy_since = now
        try:
            if self._has_to_reopen:
                self._file.reopen()
                self._has_to_reopen = False
            self._write_all()
            if self._has_to_expire:
                self._expire()
            if is_last:
                self._write_event({"event": "stop"})
            if not self._is_secured and (is_last or self.is_failing or now - self._secured_at >= SYNC_SECONDS):
                self._secure()
        except Exception as error:
            self._fail(error)
        else:
            if self.is_failing:
                self.is_failing = False
                logger.warning("audit log: written again; %d images have no line", self.lost)
        self._busy_since = None

    def _write_all(self) -> None:
        if self._first is not None:
            self._write_event(self._first)
            self._first = None
        while self._batch or self._waiting:
            self._write_batch()
        with self._counting:
            told = (self.lost, self.refused)
        if told != self._told:
            lost, refused = told[0] - self._told[0], told[1] - self._told[1]
            self._write_event({"event": "gap", "lost": lost, "refused": refused})
            self._told = told

    def _write_event(self, event: dict[str, object]) -> None:
        stamp = describe_time(time.time())
        fields = {"time": stamp, **event}
        line, position = seal(self._file.position, fields)
        if not self._file.has_room(len(line), day_of_time(stamp)):
            self._rotate()
        self._append(line, position, day_of_time(stamp))

    def _write_batch(self) -> None:
        while len(self._batch) < BATCH and self._waiting:
            self._batch.append(self._waiting.popleft())
        lag = time.time() - time.monotonic()
        lines, count, position, day = bytearray(), 0, self._file.position, ""
        for outcome in self._batch:
            stamp = describe_time(outcome.ended + lag)
            line, following = seal(position, self._content.describe(outcome, stamp))
            day = day or day_of_time(stamp)
            if not self._file.has_room(len(line), day_of_time(stamp), len(lines)) or day_of_time(stamp) > day:
                break
            lines += line
            position = following
            count += 1
        if count:
            self._append(bytes(lines), position, day)
            self.written += count
            del self._batch[:count]
        else:
            self._rotate()

    def _append(self, lines: bytes, position: Position, day: str) -> None:
        self._is_secured = False
        self._file.append(lines, position, day)

    def _rotate(self) -> None:
        self._file.rotate(describe_time(time.time()))
        self._note_secured()
        self._has_to_expire = True

    def _expire(self) -> None:
        """Removes the files that have been kept long enough, once the log says so."""
        today = day_of_time(describe_time(time.time()))
        expired = list_expired(self._options.path, today, self._options.keep_months)
        if expired:
            self._write_event(describe_removal(expired))
            self._secure()
            for rotated in expired:
                rotated.path.unlink(missing_ok=True)
            sync_folder(self._options.path)
        self._has_to_expire = False

    def _secure(self) -> None:
        self._file.secure(describe_time(time.time()))
        self._note_secured()

    def _note_secured(self) -> None:
        self._is_secured = True
        self._secured_at = time.monotonic()
        self.last_sync = time.time()

    def _fail(self, error: Exception) -> None:
        if not self.is_failing:
            self.failures += 1
            consequence = "images are refused" if self._options.is_required else "images are judged all the same"
            text, fault = (error.strerror, None) if isinstance(error, OSError) else (type(error).__name__, error)
            logger.error("audit log cannot be written: %s; %s", text, consequence, exc_info=fault)
        self.is_failing = True

    def _describe_start(self) -> dict[str, object]:
        fields = self._file.found.describe()
        if fields["event"] == "begin":
            fields["chain"] = secrets.token_hex(8)  # no two chains begin alike
        elif fields["event"] == "recover":
            logger.warning("audit log: the server before did not stop in order; 'audit verify' says what is missing")
        return fields | {"server": __version__}
