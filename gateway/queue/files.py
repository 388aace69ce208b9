"""Files that are whole or not there, whatever happens to process, disk or power."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

PART = ".part"
"""How the name of a file ends that is being written; at the start all of them are removed."""


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Writes a file that appears when all of it is on disk.

    Raises:
        OSError: it cannot be written; then nothing is left of it, and an older file of that name is as it was.
    """
    # Of a name of its own, since two senders may send the same.
    part = path.with_name(f"{path.name}.{os.urandom(4).hex()}{PART}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_record(path: Path, record: Any) -> None:
    """Writes an object as JSON, as ``write_whole`` does."""
    write_whole(path, json.dumps(record, indent=1).encode())


def read_record(path: Path) -> Any:
    """What ``write_record`` has written; None where there is none, or another program has changed it."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def move_folder(folder: Path, target: Path) -> None:
    """Renames a folder; it is in one place or the other, and there to stay when this returns."""
    os.rename(folder, target)
    sync_folder(target.parent)
    sync_folder(folder.parent)


def remove_folder(folder: Path) -> None:
    """Removes a folder with what is in it, as one step for whoever looks; what is not there is none."""
    going = folder.with_name(f"{folder.name.removesuffix(PART)}{PART}")
    with suppress(FileNotFoundError):
        os.rename(folder, going)
    shutil.rmtree(going, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Makes a folder that nobody else may look into."""
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
