"""Folders and object stores, by one name each: a path, or a URI that pyarrow or fsspec knows."""

from __future__ import annotations

import errno
import os
import re
import stat
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cached_property
from typing import Any

from pyarrow import fs

URI = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


class StorageError(Exception):
    """A folder or store that cannot be used; the message is one line that names it."""


class Kind(Enum):
    """What lies in a folder."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    SPECIAL = "pipe, socket or device"


@dataclass(frozen=True)
class Content:
    """A file as it was read."""

    data: bytes
    """At most as much as was asked for."""

    size: int | None
    """Bytes; None, as below, where the store does not say."""

    modified: str | None
    """Time of the last change, ISO 8601 in UTC with microseconds."""


class Storage:
    """A folder or store. Paths are below it, with forward slashes. It can be sent to other processes, which open it
    again.

    Attributes:
        name: as the user has given it.
    """

    def __init__(self, name: str) -> None:
        """Opens nothing yet."""
        self.name = name
        # Other processes have other working directories.
        self._path = None if URI.match(name) else os.path.abspath(name)

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_path": self._path}

    @cached_property
    def _opened(self) -> tuple[fs.FileSystem, str]:
        if self._path is not None:
            return fs.LocalFileSystem(), self._path
        try:
            try:
                return fs.FileSystem.from_uri(self.name)  # type: ignore[no-any-return]
            except (ValueError, NotImplementedError):  # none of pyarrow's own
                import fsspec

                found, path = fsspec.core.url_to_fs(self.name)
                return fs.PyFileSystem(fs.FSSpecHandler(found)), path
        except (ValueError, ImportError, OSError) as error:
            raise StorageError(f"{self.name}: cannot be opened ({tell(error)})") from None

    @property
    def filesystem(self) -> fs.FileSystem:
        """What reads and writes it. Raises StorageError where nothing here knows such a store."""
        return self._opened[0]

    @property
    def is_local(self) -> bool:
        """Whether the operating system reads it."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def locate(self, path: str) -> str:
        """How ``filesystem`` calls what lies at ``path``."""
        root = self._opened[1].rstrip("/")
        return f"{root}/{path}" if path else root or "/"

    def show(self, path: str) -> str:
        """How the user would call what lies at ``path``."""
        return f"{self.name.rstrip('/')}/{path}"

    def list(self, path: str) -> list[tuple[str, Kind]]:
        """Names of what lies in a folder, sorted, each with what it is.

        Raises:
            OSError: it cannot be read.
        """
        if self.is_local:
            with os.scandir(self.locate(path)) as found:
                return sorted(((one.name, tell_kind(one)) for one in found), key=lambda pair: pair[0])
        infos = self.filesystem.get_file_info(fs.FileSelector(self.locate(path)))
        kinds = {fs.FileType.File: Kind.FILE, fs.FileType.Directory: Kind.FOLDER}
        return sorted(((one.base_name, kinds.get(one.type, Kind.SPECIAL)) for one in infos), key=lambda pair: pair[0])

    def read(self, path: str, most_bytes: int) -> Content:
        """Reads a file, or its first ``most_bytes``.

        Raises:
            OSError: it cannot be read.
        """
        place = self.locate(path)
        if not self.is_local:
            info = self.filesystem.get_file_info(place)
            modified = info.mtime.isoformat(timespec="microseconds") if info.mtime else None
            with self.filesystem.open_input_stream(place) as stream:
                return Content(stream.read(most_bytes), info.size, modified)
        # Opening a pipe would wait for somebody who writes.
        with os.fdopen(os.open(place, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "is no file")
            seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
            moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanoseconds // 1000)
            # Python makes room for all that is asked for.
            data = file.read(min(most_bytes, status.st_size + 1))
            return Content(data, status.st_size, moment.isoformat(timespec="microseconds"))

    def write(self, path: str, write: Callable[[Any], None]) -> None:
        """Makes a file that is there as a whole or not at all: under another name first, which begins with a dot.

        Args:
            path: the file, which is replaced where there is one.
            write: writes the content to the stream that it is given.

        Raises:
            OSError: it cannot be written; then nothing is left.
        """
        staged = self.locate(f".{path}.{uuid.uuid4().hex}")
        try:
            with self.filesystem.open_output_stream(staged) as stream:
                write(stream)
            if self.is_local:
                sync(staged)
            self.filesystem.move(staged, self.locate(path))
        except BaseException:
            with suppress(OSError):
                self.filesystem.delete_file(staged)
            raise
        if self.is_local:
            sync(os.path.dirname(staged))

    def put(self, path: str, data: bytes) -> None:
        """Writes a few bytes where they are to be: nothing is left of them where the machine is lost meanwhile. Raises
        OSError."""
        with self.filesystem.open_output_stream(self.locate(path)) as stream:
            stream.write(data)

    def make(self) -> None:
        """Makes the folder, where there is none. Raises OSError."""
        self.filesystem.create_dir(self.locate(""), recursive=True)

    def remove(self, path: str) -> None:
        """Removes a file, where there is one. Raises OSError."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(self.locate(path))


def tell_kind(entry: os.DirEntry[str]) -> Kind:
    """What lies at a path; links are not followed."""
    if entry.is_symlink():
        return Kind.LINK
    if entry.is_dir(follow_symlinks=False):
        return Kind.FOLDER
    return Kind.FILE if entry.is_file(follow_symlinks=False) else Kind.SPECIAL


def sync(path: str) -> None:
    """Brings a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tell(error: Exception) -> str:
    """What an error says, in one line."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (words.strip().splitlines() or [type(error).__name__])[0]
