"""Smooth noise for a head's shapes and tissue: tiles drawn once a process, of which every use takes a random window."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float32]
ANGLES = 1024  # entries of every table over the polar angle: finer than a pixel at the rim of a 512-pixel head
_TILE = 512
_STEP = 1.12  # ratio of the bump widths of neighbouring tiles
_FOLDS = 12  # tables of folds per width


def make_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Field:
    """Smooth noise of about unit spread whose bumps are about `cell` pixels wide; a view that must not be changed."""
    if max(shape) > _TILE - 8:
        return _draw_noise(rng, shape, cell)
    tile = _make_tile(round(np.log(cell) / np.log(_STEP)))
    i, j, turn = rng.integers(0, (_TILE - shape[0], _TILE - shape[1], 8)).tolist()
    part = tile[i : i + shape[0], j : j + shape[1]]
    return part[:: 1 - 2 * (turn & 1), :: 1 - (turn & 2)]


def make_folds(rng: np.random.Generator, angular: float, radial: float, depths: int) -> Field:
    """Smooth noise over polar angle and depth, float32 (ANGLES, depths), which closes around the circle.

    Args:
        rng: random stream.
        angular: width of a bump along the angle, in table entries.
        radial: length of a bump along the depth, in table entries.
        depths: entries along the depth.
    """
    return _make_fold_table(round(np.log(angular) / np.log(_STEP)), radial, depths, int(rng.integers(_FOLDS)))


def make_profile(rng: np.random.Generator, amplitude: float, orders: range) -> Field:
    """A random periodic function of the polar angle, as a table, falling off with the order."""
    waves = _make_waves(orders)
    size = rng.normal(0.0, amplitude, len(orders)) / np.array(orders)
    phase = rng.uniform(0.0, 2 * np.pi, len(orders))
    parts = np.concatenate((size * np.cos(phase), -size * np.sin(phase))).astype(np.float32)
    # Summed by hand, not as a matrix product: BLAS would start threads in every worker process.
    table: Field = (parts[:, None] * waves).sum(axis=0)
    return table


@lru_cache(maxsize=32)
def _make_waves(orders: range) -> Field:
    angle = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
    return np.array([np.cos(k * angle) for k in orders] + [np.sin(k * angle) for k in orders], dtype=np.float32)


@lru_cache(maxsize=64)
def _make_tile(step: int) -> Field:
    return _draw_noise(np.random.default_rng([41, step + 100]), (_TILE, _TILE), _STEP**step)


def _draw_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Field:
    rows, cols = (int(n / cell) + 4 for n in shape)
    grid = Image.fromarray(np.float32(1.5) * rng.standard_normal((rows, cols), dtype=np.float32))
    box = (1.0, 1.0, 1.0 + shape[1] / cell, 1.0 + shape[0] / cell)
    return np.asarray(grid.resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=box), dtype=np.float32)


@lru_cache(maxsize=256)
def _make_fold_table(step: int, radial: float, depths: int, turn: int) -> Field:
    rng = np.random.default_rng([43, step + 100, turn])
    rows, cols = max(4, round(ANGLES / _STEP**step)), int(depths / radial) + 4
    grid = np.float32(1.5) * rng.standard_normal((rows, cols), dtype=np.float32)
    ring = Image.fromarray(np.concatenate((grid[-2:], grid, grid[:2])))
    box = (1.0, 2.0, 1.0 + depths / radial, 2.0 + rows)
    return np.asarray(ring.resize((depths, ANGLES), Image.Resampling.BICUBIC, box=box), dtype=np.float32)
