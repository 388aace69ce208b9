"""Files that say who may call: read at the start, and again when they have changed, without anybody waiting for a disk.

A new file that cannot be used changes nothing: what was read before holds on, one line of the log says so, and
``is_current`` is False until the file is right again.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from server.machine.bounded_file import open_regular, read_open
from server.machine.folders import check_private

logger = logging.getLogger(__name__)

MOST_BYTES = 4 * 1024 * 1024
"""Of a file: some 30,000 clients."""

Content = TypeVar("Content")
Stamp = tuple[int, ...]


class AccessFileError(Exception):
    """A file that says who may call cannot be used; the text is one line, and names the file."""


class WatchedFile(Generic[Content]):
    """What a file says, as it was when it was last right. To be read from any thread.

    Attributes:
        path: the file.
        content: what it says.
        is_current: False when what lies there now could not be used, and what was read before holds on.
    """

    def __init__(self, path: Path, parse: Callable[[str], Content], *, is_confidential: bool = False) -> None:
        """Reads the file.

        Args:
            path: the file; it belongs to this user or root, and nobody else may write to it.
            parse: makes the content of the text; raises ValueError with a text that names the line.
            is_confidential: others who may read it are warned of.

        Raises:
            AccessFileError: it cannot be used.
        """
        self.path = path
        self._parse = parse
        self._is_confidential = is_confidential
        self._lock = threading.Lock()
        self._seen: Stamp | None = None
        self.content = self._read()
        self.is_current = True

    def check(self, *, anyway: bool = False) -> None:
        """Reads the file again if it has changed, or ``anyway``. Never raises. Not for the event loop."""
        with self._lock:
            if not anyway and self._stamp() == self._seen:
                return
            try:
                self.content = self._read()
            except AccessFileError as error:
                self.is_current = False
                logger.error("not taken, what was read before holds on: %s", error)
            else:
                self.is_current = True
                logger.info("read again: %s", self.path)

    def _stamp(self) -> Stamp | None:
        """What tells cheaply whether the file has changed; None: there is none."""
        try:
            return make_stamp(os.stat(self.path))
        except (OSError, ValueError):
            return None

    def _read(self) -> Content:
        self._seen = self._stamp()
        try:
            descriptor = open_regular(self.path)
            try:
                status = os.fstat(descriptor)
                self._seen = make_stamp(status)
                check_private(descriptor)
                data = read_open(descriptor, MOST_BYTES)
            finally:
                os.close(descriptor)
            if self._is_confidential and status.st_mode & stat.S_IROTH:
                logger.warning("everybody on this machine may read %s (chmod o-r)", self.path)
            return self._parse(read_text(data))
        except OSError as error:
            raise AccessFileError(f"{self.path}: {error.strerror or error}") from None
        except ValueError as error:
            raise AccessFileError(f"{self.path}: {error}") from None


def make_stamp(status: os.stat_result) -> Stamp:
    """Also changes with the mode: a file that was refused for it is looked at again."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_text(data: bytes) -> str:
    """The text of a file.

    Raises:
        ValueError: there is none. A file that is being written is empty for a moment, and must not lock everybody out.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not a text in UTF-8") from None
    if not text.strip():
        raise ValueError("it is empty; one that lets nobody in holds a comment")
    return text


def list_lines(text: str) -> list[tuple[int, str]]:
    """The lines that say something, with their numbers; ``#`` at the beginning or after a space begins a comment."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        said = "" if line.startswith("#") else line.split(" #")[0].split("\t#")[0].strip()
        if said:
            found.append((number, said))
    return found
