"""Places on a disk that are small, full or read-only, which a process alone sees: mounts of its own (unshare(1))."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from server.process.children import run

FILL_BYTES = 1 << 16


@cache
def find_unshare() -> tuple[str, ...]:
    """How mounts are made here that nobody else sees; empty where it is not allowed."""
    for command in (("unshare", "--mount"), ("unshare", "--user", "--map-root-user", "--mount")):
        with suppress(OSError):
            result = run([*command, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
            if result.returncode == 0:
                return command
    return ()


def wrap_small(folder: Path, size: str, then: str = "true") -> list[str]:
    """A command before another, to which ``folder`` is a disk of a size such as ``256k``: empty, but for what ``then``,
    a line of shell, puts there."""
    script = f'mount -t tmpfs -o size={size} none "{folder}" && {then} && exec "$@"'
    return [*find_unshare(), "sh", "-c", script, "sh"]


def wrap_read_only(folder: Path) -> list[str]:
    """A command before another, to which ``folder`` is read-only."""
    script = f'mount --bind "{folder}" "{folder}" && mount -o remount,bind,ro "{folder}" && exec "$@"'
    return [*find_unshare(), "sh", "-c", script, "sh"]


def wrap_limit(letter: str, value: int) -> list[str]:
    """A command before another, with a limit of ulimit(1p)."""
    return ["sh", "-c", f'ulimit -{letter} {value} && exec "$@"', "sh"]


def see(pid: int, path: Path) -> Path:
    """A path as a process with mounts of its own sees it (proc(5), root)."""
    return Path(f"/proc/{pid}/root{path}")


def fill(folder: Path) -> Path:
    """Fills a disk to its last byte, and returns the file that does."""
    filler = folder / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    size = FILL_BYTES
    try:
        while size:
            try:
                os.write(descriptor, bytes(size))
            except OSError:
                size //= 2
    finally:
        os.close(descriptor)
    return filler
