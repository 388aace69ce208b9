"""One synthetic patient: the head's traits, its pose, how it was imaged, and which findings it has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from zlib import crc32

import numpy as np

from training.phantom.head import Traits, draw_traits
from training.phantom.recipe import FINDINGS, PARTS, Recipe

ALL_PARTS = Recipe()
# 5 mm as routine, thinner ones as read more and more: Liu et al., Medicine 2017;96:e9412.
_THICKNESS_MM, _THICKNESS_SHARES = (1.25, 2.5, 3.75, 5.0, 6.0), (0.1, 0.25, 0.1, 0.45, 0.1)


@dataclass(frozen=True)
class Pose:
    """Where the head lies, in shares of the field: half its length, its centre, and its turn in radians."""

    scale: float = 0.385
    x: float = 0.5
    y: float = 0.5
    tilt: float = 0.0


@dataclass(frozen=True)
class Look:
    """How the slices of one study were imaged and stored."""

    level: float  # of the window, HU
    width: float  # of the window, HU
    sharpness: float  # < 0 blurs, > 0 enhances edges
    sigma: float  # of the noise, HU at 256 x 256
    grain: float  # 0 = white noise, 1 = coarse
    gamma: float = 1.0
    gain: float = 1.0
    offset: float = 0.0
    thickness: float = 0.0  # of a slice, mm


class Patient:
    """Everything that the slices of one study share; a function of its key and of the recipe.

    Each part draws from a stream of its own, so that a part which is left out changes no other.
    """

    def __init__(self, key: int, recipe: Recipe = ALL_PARTS) -> None:
        self.key, self.recipe = key, recipe
        chances = np.random.default_rng([key]).random(len(PARTS))
        self.parts = frozenset(
            name
            for name, chance in zip(PARTS, chances, strict=True)
            if getattr(recipe, name) and chance < FINDINGS.get(name, 1.0)
        )

    def open_stream(self, name: str, turn: int = 0) -> np.random.Generator:
        """A random stream that belongs to this patient and to one purpose."""
        # Philox takes its key as it is; the default generator hashes a seed first, which takes twice the time.
        key = np.array([self.key, crc32(name.encode()) << 8 | turn], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key))

    @cached_property
    def traits(self) -> Traits:
        return draw_traits(self.open_stream("traits"))

    @cached_property
    def pose(self) -> Pose:
        if "pose" not in self.parts:
            return Pose()
        rng = self.open_stream("pose")
        # Scanners fit the field to the head: half its length is 0.38 of the field, seldom under 0.3.
        return Pose(
            scale=float(np.clip(rng.normal(0.378, 0.042), 0.25, 0.47)),
            x=0.5 + float(rng.normal(0, 0.03)),
            y=0.5 + float(rng.normal(0.015, 0.035)),
            tilt=float(np.clip(rng.normal(0, 0.13), -0.5, 0.5)),
        )

    @cached_property
    def look(self) -> Look:
        rng = self.open_stream("look")
        # All are drawn whatever is used, so that one which is left out changes no other.
        usual = float(rng.normal(39, 1.5)), float(rng.normal(81, 3))
        wide = float(rng.uniform(30, 50)), float(rng.uniform(70, 140))
        sharpness = float(rng.uniform(-1.0, 0.7))
        sigma, grain = float(np.clip(rng.lognormal(0.95, 0.38), 0.8, 6.0)), float(rng.uniform(0, 1))
        gamma, gain = float(np.exp(rng.normal(0, 0.16))), float(rng.uniform(0.96, 1.06))
        offset = float(rng.uniform(0, 12)) * float(rng.random() < 0.2)
        thickness = float(rng.choice(_THICKNESS_MM, p=_THICKNESS_SHARES))
        level, width = wide if "wide_window" in self.parts else usual
        look = Look(level, width, sharpness=-0.25, sigma=2.6, grain=0.4)
        if "partial_volume" in self.parts:
            look = replace(look, thickness=thickness)
        if "kernel" in self.parts:
            look = replace(look, sharpness=sharpness)
        if "noise" in self.parts:
            look = replace(look, sigma=sigma, grain=grain)
        if "gamma" in self.parts:
            look = replace(look, gamma=gamma, gain=gain, offset=offset)
        return look
