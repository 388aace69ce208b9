"""The files of a log, by their names.

audit.jsonl                        the one that is written
audit.jsonl.20260131-000000000001  full, or of a day that is over: its day, and the number of its first line
audit.jsonl.head                   the last line that is known to be on the disk
audit.jsonl.salt                   turns hashes of images into ones that say nothing without it
audit.jsonl.lock                   held by the server that writes
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from server.audit.chain import Position
from server.machine.bounded_file import read_regular

PRIVATE = 0o600
MOST_SMALL_BYTES = 4096
"""Of head and salt."""

SALT_BYTES = 32
LOCK_TRIES = 5
LOCK_WAIT_SECONDS = 0.1
"""``verify`` looks whether the lock is held by taking it for an instant."""


@dataclass(frozen=True, order=True)
class Rotated:
    """A file that is not written any more."""

    first_seq: int
    day: str
    """``20260131``; all its lines are of that day (UTC)."""

    path: Path


def list_rotated(path: Path) -> list[Rotated]:
    """The rotated files of a log, in the order in which they were written."""
    pattern = re.compile(re.escape(path.name) + r"\.([0-9]{8})-([0-9]{12,})")
    matches = [(entry, pattern.fullmatch(entry.name)) for entry in path.absolute().parent.iterdir()]
    return sorted(Rotated(int(match[2]), match[1], entry) for entry, match in matches if match)


def name_rotated(path: Path, day: str, first_seq: int) -> Path:
    """Where a file goes that is not written any more."""
    return beside(path, f"{day}-{first_seq:012}")


def beside(path: Path, ending: str) -> Path:
    """Another file of the same log."""
    return path.with_name(f"{path.name}.{ending}")


def sync_folder(path: Path) -> None:
    """Makes the names of files last that have just changed in the folder of a log."""
    descriptor = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_private(path: Path, flags: int) -> int:
    """Opens a regular file that nobody else can read, made if need be. Links are not followed.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, PRIVATE)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if stat.S_IMODE(mode) != PRIVATE:
            os.fchmod(descriptor, PRIVATE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def take_lock(path: Path) -> int:
    """Keeps other servers from writing the same log, until the returned descriptor is closed.

    Raises:
        OSError: another one writes it.
    """
    descriptor = open_private(beside(path, "lock"), os.O_RDWR)
    for left in reversed(range(LOCK_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if left:
                time.sleep(LOCK_WAIT_SECONDS)
        except OSError:
            break
    os.close(descriptor)
    raise OSError(errno.EBUSY, "another server writes this audit log", str(path))


def is_written_now(path: Path) -> bool:
    """Whether a server has the log open, as far as that can be seen."""
    try:
        descriptor = os.open(beside(path, "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def read_salt(path: Path) -> bytes:
    """Reads the salt of a log.

    Raises:
        OSError: there is none, or it is not one; ``strerror`` is a text for people.
    """
    salt_path = beside(path, "salt")
    try:
        salt = bytes.fromhex(read_regular(salt_path, MOST_SMALL_BYTES).decode("ascii").strip())
    except ValueError:
        salt = b""
    if len(salt) < SALT_BYTES:
        raise OSError(errno.EINVAL, f"it must hold {2 * SALT_BYTES} hexadecimal digits", str(salt_path))
    return salt


def make_salt(path: Path) -> bytes:
    """Reads the salt of a log, or makes one where there is none. Raises as ``read_salt``."""
    salt_path = beside(path, "salt")
    if not salt_path.exists():
        replace_file(salt_path, secrets.token_hex(SALT_BYTES) + "\n")
    salt = read_salt(path)
    if stat.S_IMODE(salt_path.stat().st_mode) & 0o077:
        raise OSError(errno.EPERM, "others may read or write it: chmod 600", str(salt_path))
    return salt


@dataclass(frozen=True)
class Head:
    """The last line that is known to be on the disk."""

    position: Position
    time: str


def read_head(path: Path) -> Head | None:
    """Reads the head of a log; None: there is none, or it is not one.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        fields = json.loads(read_regular(beside(path, "head"), MOST_SMALL_BYTES))
        return Head(Position(int(fields["seq"]), str(fields["hash"])), str(fields["time"]))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def write_head(path: Path, head: Head) -> None:
    """Replaces the head of a log, so that a power cut leaves the old one or the new one."""
    fields = {"seq": head.position.seq, "hash": head.position.hash, "time": head.time}
    replace_file(beside(path, "head"), json.dumps(fields) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Writes a small private file whole, or not at all."""
    new = beside(path, "new")
    descriptor = open_private(new, os.O_WRONLY | os.O_TRUNC)
    try:
        if os.write(descriptor, text.encode("ascii")) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(new, path)
