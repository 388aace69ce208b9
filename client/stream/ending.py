"""How the server ended a call of ``grpc.aio``, whatever the call itself says."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

CROSSED = "Internal error from Core"
"""What ``grpc.aio`` says of a send that crosses the end of the call: in place of what the server said, or before it."""

PATIENCE_SECONDS = 2.0
"""How long what the server said is waited for when only the crossing is known."""


class Ending:
    """Keeps the first status of a call that the server gave."""

    def __init__(self, call: Any) -> None:
        """Begins to listen to a call that has been opened."""
        self._said: grpc.aio.AioRpcError | None = None
        self._is_known = asyncio.Event()
        call.add_done_callback(self._keep)

    async def find(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Returns what the server said where ``error``, raised by the call, is but a crossing; else the error."""
        if error.details() != CROSSED:
            return error
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._is_known.wait()
        return self._said or error

    def _keep(self, call: Any) -> None:
        """Called whenever the call is given a status, which with a crossing happens twice."""
        # With a status there is nothing to wait for, so the coroutines return at once.
        code, details = run_at_once(call.code()), run_at_once(call.details())
        if self._said is None and details != CROSSED:
            initial, trailing = run_at_once(call.initial_metadata()), run_at_once(call.trailing_metadata())
            self._said = grpc.aio.AioRpcError(code, initial, trailing, details)
            self._is_known.set()


def run_at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("the coroutine waits")
