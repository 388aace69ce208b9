"""What a client has in flight and how often it comes, against its limits. For one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from server.errors import OverloadedError
from server.security.tokens import Limits

PASSING_SECONDS = 0.25
"""Hint to those who have too much in flight: some of it ends sooner."""

LOOK_SECONDS = 1.0
"""How often somebody who waits looks again, though nothing has ended: the limits may have changed."""

ROUNDING = 1e-9


class Account:
    """One client, whatever its connections.

    Attributes:
        images: in flight.
        bytes: in flight.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.images = 0
        self.bytes = 0
        self._clock = clock
        self._full_at = 0.0
        self._changed = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Whether it is as if the client had never come."""
        return not self.images and not self.bytes and self._full_at <= self._clock()

    def seconds_until_request(self, rate: int) -> float:
        """How long until another request may come; 0: it may now.

        A token bucket that holds what comes in a second, as when it would be full again (GCRA, ITU-T I.371).
        """
        if not rate:
            return 0.0
        seconds = self._full_at - self._clock() - (1 - 1 / rate)
        return seconds if seconds > ROUNDING else 0.0

    def charge(self, rate: int, requests: int = 1) -> None:
        """Counts requests that have come. More than were there make the next ones wait the longer."""
        if rate:
            self._full_at = max(self._full_at, self._clock()) + requests / rate

    def check(self, limits: Limits, images: int) -> None:
        """Whether a call with so many images may come in.

        Raises:
            OverloadedError: reason LIMIT_REQUESTS, LIMIT_IMAGES or LIMIT_BYTES.
        """
        if limits.images and self.images + images > limits.images:
            raise too_many_images(limits)
        if limits.bytes and self.bytes >= limits.bytes:
            raise too_many_bytes(limits)
        if seconds := self.seconds_until_request(limits.requests):
            raise OverloadedError(
                "LIMIT_REQUESTS",
                f"You may make {limits.requests} requests a second: come again in a moment.",
                retry_after=max(seconds, 0.001),
            )

    def has_room(self, limits: Limits, size: int) -> bool:
        """Whether a message of ``size`` bytes is within the limit. One that is alone always is: it has a bound anyway,
        and would otherwise never come through."""
        return not limits.bytes or not self.bytes or self.bytes + size <= limits.bytes

    def has_turn(self, limits: Limits) -> bool:
        """Whether a stream may take its next message."""
        return (
            (not limits.images or self.images < limits.images)
            and (not limits.bytes or self.bytes < limits.bytes)
            and not self.seconds_until_request(limits.requests)
        )

    def give_back(self, images: int, size: int) -> None:
        """Counts what is no longer in flight."""
        self.images -= images
        self.bytes -= size
        self._changed.set()

    async def wait(self, limits: Limits) -> None:
        """Waits until something has ended, or the next request may come."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.seconds_until_request(limits.requests) or LOOK_SECONDS):
                await self._changed.wait()


class Share:
    """What one message of a client has in flight."""

    def __init__(self, account: Account, limits: Limits, size: int) -> None:
        self._account, self._limits = account, limits
        self._size, self._images = size, 0
        account.bytes += size

    def add_images(self, images: int) -> None:
        """Counts the images of a message of a stream, each as a request."""
        self._images += images
        self._account.images += images
        self._account.charge(self._limits.requests, images)

    def admit_images(self, images: int) -> None:
        """Counts the images of the only message of a call, the first of them as the request that the call is.

        Raises:
            OverloadedError: reason LIMIT_IMAGES. Images that are alone always may come: they have a bound anyway.
        """
        limit, in_flight = self._limits.images, self._account.images
        if limit and in_flight and in_flight + images > limit:
            raise too_many_images(self._limits)
        self._images += images
        self._account.images += images
        self._account.charge(self._limits.requests, images - 1)

    def release(self) -> None:
        """Nothing of it is in flight any more. May be called twice."""
        images, size = self._images, self._size
        self._images = self._size = 0
        if images or size:
            self._account.give_back(images, size)


def too_many_images(limits: Limits) -> OverloadedError:
    return OverloadedError(
        "LIMIT_IMAGES",
        f"You may have {limits.images} images in flight at the same time, and have: fewer at a time, please.",
        retry_after=PASSING_SECONDS,
    )


def too_many_bytes(limits: Limits) -> OverloadedError:
    return OverloadedError(
        "LIMIT_BYTES",
        f"You may have {limits.bytes} bytes in flight at the same time, and have: fewer at a time, please.",
        retry_after=PASSING_SECONDS,
    )
