"""How many connections this process has accepted."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

DESCRIPTORS = Path("/proc/self/fd")
INTERNET = (socket.AF_INET, socket.AF_INET6)


def count_connections(except_port: int = 0) -> int:
    """Connections of TCP and of socket files, taken that this process makes none itself; 0 where it cannot be told.

    Args:
        except_port: port of our own whose connections do not count.
    """
    try:
        names = os.listdir(DESCRIPTORS)
    except OSError:
        return 0
    return sum(is_connection(int(name), except_port) for name in names)


def is_connection(descriptor: int, except_port: int) -> bool:
    """Whether a descriptor is a connection that was accepted: of two that were made as a pair none has a name."""
    with suppress(OSError):  # no socket, not connected, or closed meanwhile
        if not os.readlink(DESCRIPTORS / str(descriptor)).startswith("socket:"):
            return False
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            copy.getpeername()
            name = copy.getsockname()
            if copy.family in INTERNET:
                return bool(name[1] != except_port)
            return copy.family == socket.AF_UNIX and bool(name)
    return False
