"""``predict_study`` of the asynchronous client: files are read in threads, one at a time, and written as the server
takes them, so that a study of any size is never held."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from ..stream.ending import Ending
from .exchange import StudySettings, StudyTry


async def send_study(settings: StudySettings, attempt: StudyTry, call: Any) -> Any:
    """Sends a study on a call of ``grpc.aio`` that has been opened, and returns its answer.

    Raises:
        DeadlineExceededError: the server did not get on for ``settings.timeout`` seconds.
        StrokeClientError: no file could be read.
        grpc.RpcError: how the call has ended otherwise.
    """
    ending = Ending(call)
    try:
        for file in settings.files:
            message = await asyncio.to_thread(attempt.load, file)
            if message is not None and not await _get_on(settings, _write(call, message)):
                break
            attempt.note()
        else:
            attempt.check_sent()
            await _get_on(settings, call.done_writing())
        return await _get_on(settings, call)
    except grpc.aio.AioRpcError as error:
        raise await ending.find(error) from None
    finally:
        call.cancel()  # which does nothing to one that is over


async def _write(call: Any, message: bytes) -> bool:
    """Writes a message as soon as the server takes it; returns False when the call is over, which says itself why."""
    try:
        await call.write(message)
    except (grpc.RpcError, asyncio.InvalidStateError):
        return False
    return True


async def _get_on(settings: StudySettings, step: Any) -> Any:
    """Waits for a step of a call no longer than it may take."""
    try:
        async with asyncio.timeout(settings.timeout) as limit:
            return await step
    except TimeoutError:
        if not limit.expired():
            raise
    raise settings.stalled()
