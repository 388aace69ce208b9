"""The file of tokens, changed at once or not at all, whoever else changes it and whenever the power goes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from server.machine.bounded_file import read_regular
from server.security.files import MOST_BYTES, AccessFileError, WatchedFile, read_text
from server.security.tokens import Entry, parse_tokens

HEADER = "# name  SHA-256 of the token  roles=predict,read,admin  requests=  images=  bytes=  expires=YYYY-MM-DD"
MODE = 0o600


def load_tokens(path: Path) -> Mapping[str, Entry]:
    """The entries of a file, as the server would take them.

    Raises:
        AccessFileError: it would not.
    """
    return WatchedFile(path, parse_tokens).content


def change_tokens(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Replaces a file by one with other lines; comments stay.

    A file that is there keeps its owner and mode, so that a server of another user goes on reading it; a new one is its
    maker's alone.

    Args:
        path: the file; a link is followed. There need be none.
        change: makes the new lines of the old.

    Raises:
        AccessFileError: it cannot be changed, or what is there is no file of tokens.
    """
    target = Path(os.path.realpath(path))
    try:
        with lock(target.parent):
            before = target.stat() if target.exists() else None
            lines = [HEADER] if before is None else read_text(read_regular(target, MOST_BYTES)).splitlines()
            text = "\n".join(change(lines)) + "\n"
            parse_tokens(text)
            replace(target, text.encode(), before)
    except OSError as error:
        raise AccessFileError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise AccessFileError(f"{path}: {error}") from None


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keeps others who change files there waiting."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes, before: os.stat_result | None) -> None:
    """Writes a file beside ``path``, and gives it that name once it is on the disk."""
    new = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):  # of one that was killed
        new.unlink()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    try:
        with open(descriptor, "wb") as file:
            if before is not None:
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.rename(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
