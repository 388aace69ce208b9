"""Files read with a bound: nothing that lies where a file should lie can hold up the start or fill the memory.

A FIFO in the place of a model would block its reader for ever, a link to ``/dev/zero`` would never end, and neither
would obey a signal. So a file is opened without waiting, must be a regular one, and is read no further than its bound.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: Path | str, *, folder: int | None = None) -> int:
    """Opens a regular file for reading, without ever waiting, and returns its descriptor.

    Args:
        path: the file; symbolic links are followed, unless it is relative to ``folder``.
        folder: descriptor of the folder that it lies in; None: ``path`` says it all.

    Raises:
        OSError: it cannot be opened or is no regular file; ``strerror`` is a text for people.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    if folder is not None:
        flags |= os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, dir_fd=folder)
    except ValueError:  # a null byte, or half a surrogate pair
        raise OSError(errno.EINVAL, "its path is not a possible one", str(path)) from None
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"it is {KINDS.get(kind, 'something else')}, not a regular file", str(path))
    return descriptor


def read_open(descriptor: int, most: int) -> bytes:
    """Reads an open regular file from its beginning.

    Raises:
        OSError: it has more than ``most`` bytes, or cannot be read.
    """
    # By what it says of its size, since the buffer is made first; one byte more shows whether that was true.
    left = min(os.fstat(descriptor).st_size, most) + 1
    chunks: list[bytes] = []
    while left and (chunk := os.read(descriptor, left)):
        chunks.append(chunk)
        left -= len(chunk)
    data = b"".join(chunks)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")
    return data


def read_regular(path: Path | str, most: int, *, folder: int | None = None) -> bytes:
    """Returns the bytes of a regular file; see ``open_regular`` for the arguments.

    Raises:
        OSError: it cannot be read, is no regular file, or has more than ``most`` bytes; ``strerror`` is for people.
    """
    descriptor = open_regular(path, folder=folder)
    try:
        return read_open(descriptor, most)
    finally:
        os.close(descriptor)
