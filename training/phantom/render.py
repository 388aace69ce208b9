"""From Hounsfield units to the grey values of a file: kernel, noise, window, motion, resampling and JPEG."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from training.phantom.head import Head, measure_distance
from training.phantom.patient import Patient
from training.phantom.texture import Field

Grey = NDArray[np.uint8]
_TILE = 640  # side of the stored noise; a slice takes a window of it at a random place, turned at random
RIM_NOISE = 0.85


def render_slice(head: Head, patient: Patient, rng: np.random.Generator, size: int) -> Grey:
    """The windowed slice, uint8 (size, size)."""
    hu = filter_image(head.hu, patient.look.sharpness)
    scan_head(head, hu, patient, rng, size)
    grey = np.zeros((size, size), dtype=np.uint8)
    rows, cols = head.shape
    grey[head.top : head.top + rows, head.left : head.left + cols] = _apply_window(hu, patient)
    if "table" in patient.parts:
        first, table, bright = make_table(patient, size)
        np.maximum(grey[first:], (table * np.float32(bright)).astype(np.uint8), out=grey[first:])
    if "gamma" in patient.parts:
        look = patient.look
        curve = 255 * (np.arange(256) / 255) ** look.gamma * look.gain + look.offset
        grey = np.clip(curve, 0, 255).astype(np.uint8).take(grey)
    return _store(grey, patient)


def scan_head(head: Head, hu: Field, patient: Patient, rng: np.random.Generator, size: int) -> None:
    """Adds to densities on the head's grid, in HU, what a scanner adds: noise, shading, streaks."""
    hu += _draw_noise(head, patient, rng, size)
    _shade(head, hu, rng)
    if "streaks" in patient.parts and head.traits.level < 0.42:
        _harden_beam(head, hu, patient.open_stream("streaks"))
    for area, value in head.streaks:
        hu[area] += value


def blur(image: Field, amount: float) -> Field:
    """A light separable blur with the kernel (a, 1 - 2a, a)."""
    a, b = np.float32(amount), np.float32(1 - 2 * amount)
    out = image * b
    side = a * image
    out[1:] += side[:-1]
    out[:-1] += side[1:]
    out[[0, -1]] += side[[0, -1]]
    np.multiply(out, a, out=side)
    out *= b
    out[:, 1:] += side[:, :-1]
    out[:, :-1] += side[:, 1:]
    out[:, [0, -1]] += side[:, [0, -1]]
    return out


def filter_image(image: Field, sharpness: float) -> Field:
    """Blur for a soft kernel (sharpness < 0), or enhance edges for a sharp one (> 0)."""
    soft = blur(image, 0.05 + 0.13 * max(0.0, -sharpness))
    if sharpness <= 0:
        return soft
    wide = blur(soft, 0.25)
    np.subtract(soft, wide, out=wide)
    wide *= np.float32(1.3 * sharpness)
    soft += np.clip(wide, -25, 25, out=wide)
    return soft


@lru_cache(maxsize=1)
def make_grains() -> tuple[Field, ...]:
    """Four noise tiles of unit spread from white to coarse: detector noise is white only before reconstruction."""
    rng = np.random.default_rng(20)
    tiles = []
    white = rng.standard_normal((_TILE, _TILE), dtype=np.float32)
    for passes in (0, 1, 2, 4):
        tile = rng.standard_normal((_TILE, _TILE), dtype=np.float32)
        for _ in range(passes):
            tile = blur(tile, 0.22)
        tile = tile / tile.std() + np.float32(0.3) * white
        tiles.append((tile / tile.std()).astype(np.float32))
    return tuple(tiles)


def take_grain(rng: np.random.Generator, grain: float, shape: tuple[int, int]) -> Field:
    if max(shape) > _TILE:
        return rng.standard_normal(shape, dtype=np.float32)
    tiles = make_grains()
    tile = tiles[min(len(tiles) - 1, int(grain * len(tiles)))]
    i, j, turn = (int(k) for k in rng.integers(0, (_TILE - shape[0] + 1, _TILE - shape[1] + 1, 4)))
    part = tile[i : i + shape[0], j : j + shape[1]]
    return part[:: 1 - 2 * (turn & 1), :: 1 - (turn & 2)]


def measure_noise(level: float, patient: Patient, size: int) -> float:
    """The spread of the noise, HU; ``RIM_NOISE`` of it at the rim of a head and around it."""
    look = patient.look
    return (
        look.sigma
        * (1 - 0.35 * look.grain)
        * (size / 256)
        * (1.25 if level < 0.42 else 1.0)
        * (1 + 0.3 * max(0.0, look.sharpness))
    )


def _draw_noise(head: Head, patient: Patient, rng: np.random.Generator, size: int) -> Field:
    sigma = measure_noise(head.traits.level, patient, size)
    # Less reaches the detector through the middle of a head: it is noisier there.
    gain = np.clip(head.depth, 0, 1)
    gain *= np.float32(0.5 * sigma)
    gain += np.float32(RIM_NOISE * sigma)
    gain *= take_grain(rng, patient.look.grain, head.shape)
    return gain


def _shade(head: Head, hu: Field, rng: np.random.Generator) -> None:
    """Cupping under the bone, and a slow drift over the field."""
    near = np.exp(np.maximum(head.depth, 0) * np.float32(-18))
    near *= head.inside
    near *= np.float32(rng.uniform(0, 8))
    hu += near
    hu += head.x * np.float32(rng.normal(0, 2.0)) + head.y * np.float32(rng.normal(0, 2.0))


def _harden_beam(head: Head, hu: Field, rng: np.random.Generator) -> None:
    """Dense bone darkens the band between the petrous bones and throws streaks from there."""
    strength = float(rng.beta(1.3, 2.5)) * (1.0 if head.traits.level < 0.38 else 0.5)
    near = np.exp(np.abs(head.y - np.float32(0.05)) * np.float32(-rng.uniform(3, 9)))
    band = np.clip(np.float32(1.5) - np.float32(2.5) * np.abs(head.x), 0, 1)
    band *= near
    band *= near
    band *= np.float32(16 * strength)
    hu -= band
    angle = float(rng.normal(0, 0.25))
    position = head.y * np.float32(120 * np.cos(angle)) + head.x * np.float32(120 * np.sin(angle)) + np.float32(512)
    line = np.interp(np.arange(1024) / 4, np.arange(256), rng.standard_normal(256)).astype(np.float32)
    near *= line.take(np.clip(position, 0, 1023).astype(np.intp))
    near *= np.float32(9 * strength)
    hu += near


def _apply_window(hu: Field, patient: Patient) -> Grey:
    """The brain window of radiology, level 40 and width 80, as loosely as hospitals keep it."""
    look = patient.look
    hu -= np.float32(look.level - look.width / 2)
    hu *= np.float32(255 / look.width)
    hu += np.float32(0.5)
    np.maximum(hu, 0, out=hu)
    np.minimum(hu, 255, out=hu)
    return hu.astype(np.uint8)


def make_table(patient: Patient, size: int) -> tuple[int, Field, float]:
    """The head rest: a thin bright arc under the head, or the two upright ends of one.

    Returns:
        The first row that it reaches, its share of each pixel from there on, and its grey level, 0 to 255.
    """
    rng, pose = patient.open_stream("table"), patient.pose
    scale = size * pose.scale
    radius = scale * float(rng.uniform(0.95, 1.7))
    x0 = size * pose.x + scale * float(rng.normal(0, 0.05))
    y0 = size * pose.y + scale * float(rng.uniform(1.18, 1.35)) - radius
    first = int(np.clip(y0 + radius * rng.uniform(-0.5, 0.6), 0, size))
    thick, bright = size / 256 * float(rng.uniform(0.6, 1.8)), float(rng.uniform(120, 255))
    keep = radius * float(rng.uniform(0.6, 0.95)) if rng.random() < 0.25 else 0.0
    x = np.arange(size, dtype=np.float32)[None, :] - np.float32(x0)
    y = np.arange(first, size, dtype=np.float32)[:, None] - np.float32(y0)
    away = measure_distance(x, np.maximum(y, 0))  # a U: straight above its centre
    away -= np.float32(radius)
    np.abs(away, out=away)
    share: Field = np.clip(np.float32(thick + 0.5) - away, 0, 1)
    if keep:
        share *= np.abs(x) > np.float32(keep)
    return first, share, bright


def _store(grey: Grey, patient: Patient) -> Grey:
    """What happens to a picture on its way to a file; places stay where they are."""
    parts, size = patient.parts, grey.shape[0]
    if not parts & {"motion", "resampling", "jpeg"}:
        return grey
    image = Image.fromarray(grey)
    if "motion" in parts:
        rng = patient.open_stream("motion")
        reach = size * float(rng.uniform(0.006, 0.03))
        turn = float(rng.uniform(0, 2 * np.pi))
        ghost = ImageChops.offset(image, round(reach * np.cos(turn)), round(reach * np.sin(turn)))
        image = Image.blend(image, ghost.rotate(float(rng.normal(0, 2))), float(rng.uniform(0.12, 0.45)))
    if "resampling" in parts:
        rng = patient.open_stream("resampling")
        side = max(8, round(size * float(rng.uniform(0.6, 1.5))))
        filters = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
        there, back = (filters[int(k)] for k in rng.integers(0, len(filters), 2))
        image = image.resize((side, side), there).resize((size, size), back)
    if "jpeg" in parts:
        stream = io.BytesIO()
        quality = int(patient.open_stream("jpeg").integers(40, 96))
        image.save(stream, "JPEG", quality=quality)
        image = Image.open(stream)
    return np.array(image, dtype=np.uint8)
