"""The folder of administrators' sockets: how they are named, who may be there, and which have a server.

Loaded by the command that looks for a server, so nothing of a server is imported.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
from contextlib import suppress
from pathlib import Path

from server.api.rpc.listen import MOST_PATH_BYTES, PROBE_SECONDS, UNIX
from server.machine.addresses import ListenError

SUFFIX = ".sock"
MODE = 0o700
MOST_NAME = 40
"""Characters of an address in the name of its socket; a longer one is told by its digest."""


def name_socket(address: str) -> str:
    """The name of a server's socket; two servers that listen at the same time have different ones."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", address).strip("-")
    if len(name) > MOST_NAME or address.startswith(UNIX):
        name = f"socket-{hashlib.sha256(address.encode()).hexdigest()[:8]}"
    return name + SUFFIX


def prepare_folder(folder: Path) -> None:
    """Makes the folder, or looks whether the one that is there lets nobody else in.

    Raises:
        ListenError: it cannot be made, or others could be in it.
    """
    try:
        folder.mkdir(mode=MODE, parents=True, exist_ok=True)
        found = os.lstat(folder)
    except OSError as error:
        raise ListenError(f"{folder}: the folder for administrators cannot be made ({error.strerror})") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ListenError(
            f"{folder}: others could be administrators there: it must be a folder of this user with mode 700 (give "
            "another one with --admin)"
        )


def remove_stale(folder: Path) -> None:
    """Removes the sockets of servers that were killed."""
    for path in list_sockets(folder):
        if not is_alive(path):
            with suppress(OSError):
                path.unlink()


def list_sockets(folder: Path) -> list[Path]:
    """The sockets in a folder that only its owner may enter, who is this user, or anybody where this is root.

    Raises:
        OSError: it is not such a folder, or there is none.
    """
    found = os.lstat(folder)
    is_private = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o077
    if not is_private or os.geteuid() not in (found.st_uid, 0):
        raise PermissionError(f"{folder}: is no folder of this user with mode 700")
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if len(os.fsencode(path)) <= MOST_PATH_BYTES)


def is_alive(path: Path) -> bool:
    """Whether somebody listens on a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # busy
            return True
    return True
