"""The folders of the user whom this process runs as: where they are, and whether nobody else can have put anything in.

A container that was given any number for a user has neither HOME nor an entry in the list of users, and everything that
expands ``~`` raises. Nothing that a home is good for is worth an end: what would be kept there is not kept.

What is read from a cache is served. So it counts only where the folder, and what lies in it, belong to this user or to
root and can be written by no one else; who is this user can replace the server itself, and is not guarded against.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.machine.bounded_file import open_regular, read_open

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
ALIGNMENT = 64
"""Bytes of a cache line and of the widest register."""


class NotPrivateError(OSError):
    """Others may write there; ``strerror`` is a text for people."""


def find_home(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Returns the home; None where there is none. A relative one would be another folder after each ``cd``."""
    if (home := environment.get("HOME")) is None:
        try:
            import pwd

            home = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError):  # another system; a number without a user
            return None
    return Path(home) if os.path.isabs(home) else None


def find_cache(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Returns the folder for caches of this user (XDG base directories); None where there is none."""
    if os.path.isabs(environment.get("XDG_CACHE_HOME", "")):  # the standard: a relative one is not looked at
        return Path(environment["XDG_CACHE_HOME"])
    home = find_home(environment)
    return home and home / ".cache"


def find_runtime_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder for sockets of this user, which need not exist: below the one that the system has made for it
    at its login (XDG base directories), otherwise below the temporary one."""
    given = (environment.get(name, "") for name in ("XDG_RUNTIME_DIR", "TMPDIR"))
    return Path(next(filter(os.path.isabs, given), "/tmp")) / f"strokeserve-{os.geteuid()}"


@contextmanager
def open_folder(path: Path | str, parent: int | None = None) -> Iterator[int]:
    """Opens a private folder as a descriptor, relative to which its entries are read.

    Args:
        path: the folder; a link is followed only without ``parent``.
        parent: descriptor of the folder that it lies in.

    Raises:
        NotPrivateError: others may write there.
        OSError: it cannot be opened.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if parent is not None else 0)
    try:
        descriptor = os.open(path, flags, dir_fd=parent)
    except ValueError:  # a null byte
        raise OSError(errno.EINVAL, "its path is not a possible one") from None
    try:
        check_private(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def check_private(descriptor: int) -> None:
    """Checks who can write what is open.

    Raises:
        NotPrivateError: somebody else can.
    """
    status = os.fstat(descriptor)
    if status.st_uid not in (os.geteuid(), 0):
        raise NotPrivateError(errno.EPERM, f"it belongs to another user (uid {status.st_uid})")
    if status.st_mode & OTHERS_WRITE:
        raise NotPrivateError(errno.EPERM, f"others may write to it (mode {stat.S_IMODE(status.st_mode):o})")


def read_private(name: str, most: int, folder: int) -> bytes:
    """The bytes of a private file of a folder.

    Raises:
        OSError: it cannot be read, is no regular file, is larger than ``most`` or not private.
    """
    descriptor = open_regular(name, folder=folder)
    try:
        check_private(descriptor)
        return read_open(descriptor, most)
    finally:
        os.close(descriptor)


def read_private_array(name: str, most: int, folder: int) -> NDArray[np.uint8]:
    """``read_private`` into memory that is aligned for arithmetic.

    Read, not mapped: what is mapped changes when the file does, after every check, and ends the process when the file
    is cut short.
    """
    descriptor = open_regular(name, folder=folder)
    with open(descriptor, "rb", buffering=0) as file:
        check_private(descriptor)
        size = os.fstat(descriptor).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")
        room = np.empty(size + ALIGNMENT, np.uint8)
        start = -room.ctypes.data % ALIGNMENT
        array = room[start : start + size]
        position = 0
        while position < size:
            count = file.readinto(array[position:].data)
            if not count:
                raise OSError(errno.EIO, "it has become shorter")
            position += count
    return array
