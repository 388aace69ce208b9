"""What the cache of optimised graphs forgets, so that it does not grow for ever.

An entry is read into memory when it is used, so that removing one never disturbs a server: at worst, the next start
makes it again.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from server.machine.folders import open_folder, read_private

if os.name == "posix":  # elsewhere no graph is cached
    import fcntl

logger = logging.getLogger(__name__)

ENTRY_FILE = "entry.json"
STAGING = ".staging-held-"
"""Begins the folder of a graph that is just being written, under the lock of ``hold_builds``."""

STAGING_OF_OTHERS = ".staging-"
"""Of versions that took no lock: only their age says whether they are still being written."""

LOCK_FILE = ".lock"
ENTRY_NAME = re.compile(r"[0-9a-f]{32}(-[0-9a-f]{64})?")
"""Entries, also those of versions that had the digest of the files in the name."""

MOST_ENTRIES = 8
"""Two precisions of a model, before and after an update, for two models."""

MOST_BYTES = 2 * 1024**3
MOST_UNUSED_SECONDS = 30 * 86_400
STAGING_SECONDS = 3600
"""No graph takes an hour to write."""

LOCK_SECONDS = 2.0
"""Tidying takes milliseconds."""

MOST_LISTED = 10_000
MOST_ENTRY_BYTES = 64 * 1024


@dataclass(frozen=True)
class Entry:
    """An entry of the cache."""

    name: str
    used: float
    """When, as the folder's time of change says."""

    size: int
    facts: Mapping[str, Any]
    """Of ``entry.json``; empty when it has none that can be read."""


@contextmanager
def hold_builds(place: int) -> Iterator[None]:
    """Says to other servers that something is being written in ``place``, for as long as this process lives."""
    lock = open_lock(place)
    try:
        if lock is not None:
            share(lock)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def share(lock: int) -> None:
    """Takes the lock together with others; goes on without it where it is not to be had: a start must not hang."""
    until = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < until:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        except BlockingIOError:  # somebody is tidying
            time.sleep(0.01)
        except OSError:  # a file system without locks
            return


def forget_old(place: int, key: str, facts: Mapping[str, Any]) -> None:
    """Removes what nobody will use again, and the least used of what is too much.

    Args:
        place: descriptor of the folder of all graphs.
        key: the entry that is in use.
        facts: what is known of it: an entry that differs in the runtime's version alone is of before an update.
    """
    try:
        with os.scandir(place) as found:
            names = [item.name for item in itertools.islice(found, MOST_LISTED)]
        remove_staging(place, names)
        entries = [read_entry(place, name) for name in names if ENTRY_NAME.fullmatch(name) and name != key]
        # The used one is not in the list: it stays, and takes its share of the bounds.
        left, size = MOST_ENTRIES - 1, MOST_BYTES - read_entry(place, key).size
        for entry in sorted(entries, key=lambda entry: entry.used, reverse=True):
            is_old = time.time() - entry.used > MOST_UNUSED_SECONDS
            if is_old or is_superseded(entry.facts, facts) or left < 1 or entry.size > size:
                logger.info("an optimised graph that is no longer used is removed from the cache")
                shutil.rmtree(entry.name, ignore_errors=True, dir_fd=place)
            else:
                left, size = left - 1, size - entry.size
    except OSError as error:
        logger.warning("the cache of optimised graphs cannot be tidied (%s)", error.strerror)


def remove_staging(place: int, names: list[str]) -> None:
    """Removes what killed starts have left, unless somebody may be writing it at this moment."""
    is_quiet = False
    lock = open_lock(place)
    try:
        if lock is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_quiet = True
            except OSError:  # held by a server that is writing, or a file system without locks
                pass
        for name in names:
            if not name.startswith(STAGING_OF_OTHERS):
                continue
            if (name.startswith(STAGING) and is_quiet) or time.time() - read_time(place, name) > STAGING_SECONDS:
                shutil.rmtree(name, ignore_errors=True, dir_fd=place)
    finally:
        if lock is not None:
            os.close(lock)


def open_lock(place: int) -> int | None:
    """The file whose lock builders share; None where none can be made."""
    flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(LOCK_FILE, flags, 0o600, dir_fd=place)
    except OSError:
        return None


def read_time(place: int, name: str) -> float:
    """When an entry was last changed; now, when it has gone."""
    try:
        return os.stat(name, dir_fd=place, follow_symlinks=False).st_mtime
    except OSError:
        return time.time()


def read_entry(place: int, name: str) -> Entry:
    """What the bounds and the rule of updates need to know of an entry."""
    used, size, facts = read_time(place, name), 0, {}
    try:
        with open_folder(name, place) as entry:
            with os.scandir(entry) as found:
                for item in itertools.islice(found, 100):
                    status = item.stat(follow_symlinks=False)
                    size += status.st_size if stat.S_ISREG(status.st_mode) else 0
            document = json.loads(read_private(ENTRY_FILE, MOST_ENTRY_BYTES, entry))
            facts = document if isinstance(document, dict) else {}
    except (OSError, ValueError, RecursionError):
        pass
    return Entry(name, used, size, facts)


def is_superseded(entry: Mapping[str, Any], current: Mapping[str, Any]) -> bool:
    """Whether an entry is the current one as it was before an update, or one that no version of now can read."""
    if not entry or entry.get("schema") != current["schema"]:
        return True
    same = all(entry.get(name) == current[name] for name in ("model", "processor"))
    kinds = [str(facts.get("runtime")).partition("-")[0] for facts in (entry, current)]
    return same and kinds[0] == kinds[1] and entry.get("runtime") != current["runtime"]
