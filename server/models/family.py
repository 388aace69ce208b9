"""What is served: the models of one name, each in its channel, and which image is answered by which of them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from server.models.active import Release
from server.models.runtime import OnnxModel

STABLE, CANARY, SHADOW = "stable", "canary", "shadow"
"""Channels: what answers, what answers a share of the images, and what answers nobody."""

DIGEST_RANGE = 1 << 32
"""Of the first digits of a digest, by which the images of a canary are chosen."""


class Usage:
    """How much a model has computed. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.images = 0
        self.seconds = 0.0

    def note(self, seconds: float) -> None:
        """One more image."""
        with self._lock:
            self.images += 1
            self.seconds += seconds


@dataclass(frozen=True, eq=False)
class Served:
    """A model in memory, and what is known of it."""

    model: OnnxModel
    release: Release
    memory_bytes: int
    """By how much the process grew when it was loaded."""

    usage: Usage


class Choice(NamedTuple):
    """What answers an image."""

    served: Served
    channel: str
    """``STABLE`` or ``CANARY``; empty for another version that was asked for."""

    shadow: Served | None
    """What scores the image as well, and answers nobody."""


@dataclass(frozen=True, eq=False)
class Route:
    """What was found for a name and a version: which image is answered by what, the image decides."""

    main: Choice
    canary: Choice | None = None
    share: float = 0.0
    """Of the images that the canary answers, in [0, 1]."""

    def pick(self, image_sha256: str) -> Choice:
        """Chooses by the digest of an image: the same one always gets the same model, and a larger share adds to those
        of a smaller one."""
        if self.canary is None or int(image_sha256[:8], 16) >= self.share * DIGEST_RANGE:
            return self.main
        return self.canary


@dataclass(frozen=True, eq=False)
class Family:
    """What is served under one name."""

    stable: Served
    canary: Served | None = None
    percent: float = 0.0
    shadow: Served | None = None
    others: tuple[Served, ...] = ()
    """Further versions that ``--model`` names; they answer those who ask for them."""

    is_pinned: bool = False
    """``--model`` says which version it is."""

    @property
    def name(self) -> str:
        """Of the model."""
        return self.stable.model.spec.name

    @property
    def channels(self) -> tuple[tuple[str, Served], ...]:
        """All its models, each with its channel."""
        found = [(STABLE, self.stable), (CANARY, self.canary), (SHADOW, self.shadow)]
        found += [("", served) for served in self.others]
        return tuple((channel, served) for channel, served in found if served is not None)

    @cached_property
    def route(self) -> Route:
        """For requests that name no version."""
        main = Choice(self.stable, STABLE, self.shadow)
        if self.canary is None:
            return Route(main)
        return Route(main, Choice(self.canary, CANARY, None), self.percent / 100)

    def find(self, version: str) -> Route | None:
        """For requests that name a version, or a label: ``stable`` or ``canary``."""
        answering = [(channel, served) for channel, served in self.channels if channel != SHADOW]
        for channel, served in answering:
            if served.release.version == version:
                return Route(Choice(served, channel, None))
        for channel, served in answering:
            if channel and channel == version:
                return Route(Choice(served, channel, None))
        return None


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All that is served at a moment."""

    families: Mapping[str, Family]
    """By name, never empty."""

    default: Family
