"""What a server does beside its work as long as it runs."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

from server.machine.memory import trim_memory

TRIM_SECONDS = 2.0
"""How often memory that is free is given back, if there has been work meanwhile."""


async def return_memory(find_arrival: Callable[[], float], find_departure: Callable[[], float]) -> None:
    """Gives freed memory back whenever nothing has arrived for a while since something did, until it is cancelled. What
    is left of calls that were cut off hangs together in cycles, and with them what gRPC has received of their messages.

    Args:
        find_arrival: when something arrived last, in seconds of ``time.monotonic``.
        find_departure: when a model went last: its memory is given back however busy the server is.
    """
    loop, trimmed = asyncio.get_running_loop(), 0.0
    while True:
        await asyncio.sleep(TRIM_SECONDS)
        if trimmed < find_departure() or trimmed < find_arrival() < time.monotonic() - TRIM_SECONDS:
            trimmed = time.monotonic()
            gc.collect()
            await loop.run_in_executor(None, trim_memory)
