"""What a service manager is told (sd_notify(3)): that the server is ready, stops, and is alive.

Without a manager that wants to hear it nothing happens.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress


def notify(state: str, environment: Mapping[str, str] = os.environ) -> None:
    """Sends assignments such as ``READY=1``, one a line. Never raises: a manager that is away must not end a server."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        sender.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def find_watchdog_seconds(environment: Mapping[str, str] = os.environ) -> float | None:
    """How long the manager waits for a sign of life before it ends this process; None: it does not watch."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1e6 or None


async def show_life() -> None:
    """Tells a service manager that watches that the loop which takes calls still turns."""
    seconds = find_watchdog_seconds()
    while seconds is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(seconds / 2)
