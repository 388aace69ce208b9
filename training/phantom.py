"""Synthetic head-CT slices with and without stroke, for training without patients; not a substitute for real scans.

Normal and stroke slices come from one pipeline: head, window, noise, table and position are drawn alike, and the only
difference is the lesion. Every slice has its own random stream made of (seed, index), so the same seed gives the same
bytes whatever the number of processes.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.anatomy import draw_anatomy
from training.head import AIR, BASE_LEVEL, BONE, Field, Head, Push, draw_traits, measure_size
from training.lesions import HAEMORRHAGES, KINDS, draw_level, paint_lesion, plan_lesion
from training.skull import lay_bone

MINIMUM_SIZE = 64
_ATTEMPTS = 12
_VISIBLE_AREA = 0.0007  # of the slice: 46 pixels of 256 x 256, a bleed of about 7 mm
_VISIBLE_CONTRAST = 3.0  # HU between the lesion and what was there before
_CHUNK = 32
_LABELS = ("normal", "stroke")
LESION_FOLDER = ".lesions"
"""Hidden, so that nobody takes the masks for a class."""


@dataclass(frozen=True)
class Slice:
    """One slice: windowed pixels, where its lesion is (nowhere for normals), its kind and its anatomical level."""

    pixels: NDArray[np.uint8]
    lesion: NDArray[np.bool_]
    kind: str | None
    level: float


def generate_slice(rng: np.random.Generator, *, kind: str | None, size: int = 256) -> Slice:
    """Draw one slice; kind None is a slice without a lesion."""
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be None or one of {', '.join(KINDS)}, not {kind!r}")
    if size < MINIMUM_SIZE:
        raise ValueError(f"size must be at least {MINIMUM_SIZE}, not {size}")
    for _ in range(_ATTEMPTS):
        level = draw_level(rng, kind) if kind else _draw_normal_level(rng)
        hu, lesion, contrast = _draw_hounsfield(rng, kind, level, size)
        if kind is None or (lesion.mean() >= _VISIBLE_AREA and contrast >= _VISIBLE_CONTRAST):
            break
    return Slice(_apply_window(rng, hu), lesion, kind, round(level, 4))


def write_dataset(
    out: Path,
    count: int,
    seed: int,
    *,
    size: int = 256,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write count slices as PNG into one folder a class; all or nothing.

    Beside the class folders: labels.csv, and in LESION_FOLDER a mask of the same name for each slice with a lesion.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2 (one slice of each class), not {count}")
    if size < MINIMUM_SIZE:
        raise ValueError(f"size must be at least {MINIMUM_SIZE}, not {size}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"the output folder already exists and is not empty: {out}")
    with _stage_folder(out) as stage:
        for label in _LABELS:
            (stage / label).mkdir()
        (stage / LESION_FOLDER / _LABELS[1]).mkdir(parents=True)
        chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
        rows: list[tuple[str, ...]] = []
        for part in _map_chunks(partial(_write_chunk, stage, seed, size), chunks, processes):
            rows += part
            if progress is not None:
                progress(len(rows), count)
        with (stage / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("file", "label", "kind", "level", "seed"))
            writer.writerows(rows)


def choose_kind(index: int) -> str | None:
    """Every other slice is a stroke; of those every fifth is an infarct, and the bleeds take turns."""
    turn, stroke = divmod(index, 2)
    if not stroke:
        return None
    if turn % 5 == 4:
        return "infarct"
    return HAEMORRHAGES[(turn - turn // 5) % len(HAEMORRHAGES)]


def _draw_normal_level(rng: np.random.Generator) -> float:
    """Mostly the levels of the lesions, so that the amount of brain does not give the class away."""
    if rng.random() < 0.15:
        low = rng.random() < 0.65
        return float(rng.uniform(0.0, BASE_LEVEL) if low else rng.uniform(0.93, 1.02))
    kind = "infarct" if rng.random() < 0.2 else HAEMORRHAGES[int(rng.integers(len(HAEMORRHAGES)))]
    return draw_level(rng, kind)


def _draw_hounsfield(
    rng: np.random.Generator, kind: str | None, level: float, size: int
) -> tuple[Field, NDArray[np.bool_], float]:
    plan = plan_lesion(rng, kind, level) if kind else None
    # Half the length of the head is 24 to 47 % of the field, most often 36 %.
    scale = size * float(np.clip(rng.normal(0.36, 0.045), 0.25, 0.47))
    low = 0.25 * (1 - measure_size(level)) * scale  # near the vertex the head lies closer to its rest
    centre = (size * (0.5 + float(rng.normal(0, 0.03))), size * (0.5 + float(rng.normal(0.02, 0.045))) + low)
    tilt = float(np.clip(rng.normal(0, 0.12), -0.5, 0.5))
    head = Head(rng, draw_traits(rng, level), centre, scale, tilt, size, plan.push if plan else Push())
    draw_anatomy(head)
    mask, contrast = np.zeros(head.shape, dtype=np.float32), 0.0
    if plan is not None:
        before = head.hu.copy()
        mask = paint_lesion(head, plan)
        lay_bone(head)
        mask = mask * (1 - np.clip(head.bone, 0, 1))
        hit = mask > 0.5
        contrast = float(np.abs(head.hu - before)[hit].mean()) if hit.any() else 0.0
    else:
        lay_bone(head)
    hu = np.full((size, size), AIR, dtype=np.float32)
    _draw_table(rng, hu, centre, scale)
    window = (slice(head.top, head.top + head.shape[0]), slice(head.left, head.left + head.shape[1]))
    hu[window] = np.maximum(hu[window], _add_artefacts(rng, head, size))
    lesion = np.zeros((size, size), dtype=bool)
    lesion[window] = mask > 0.5
    return hu, lesion, contrast


def _draw_table(rng: np.random.Generator, hu: Field, centre: tuple[float, float], scale: float) -> None:
    """The head rest: a thin bright arc under the head, or the two upright ends of one."""
    if rng.random() < 0.35:
        return
    size = hu.shape[0]
    radius = scale * float(rng.uniform(0.95, 1.7))
    x0, y0 = centre[0] + scale * float(rng.normal(0, 0.05)), centre[1] + scale * float(rng.uniform(1.18, 1.35)) - radius
    x = np.arange(size, dtype=np.float32)[None, :] - np.float32(x0)
    first = int(np.clip(y0 + radius * rng.uniform(-0.5, 0.6), 0, size))
    y = np.arange(first, size, dtype=np.float32)[:, None] - np.float32(y0)
    thick = np.float32(size / 256 * rng.uniform(0.6, 1.8))
    off = np.abs(np.hypot(x, np.maximum(y, 0)) - np.float32(radius))  # a U: straight above its centre
    mask = np.clip(thick - off + np.float32(0.5), 0, 1)
    if rng.random() < 0.25:
        mask *= np.abs(x) > np.float32(radius * rng.uniform(0.6, 0.95))
    hu[first:] += mask * np.float32(rng.uniform(1000, 1300))


def _blur(image: Field, amount: float) -> Field:
    """A light separable blur with the kernel (a, 1 - 2a, a)."""
    a, b = np.float32(amount), np.float32(1 - 2 * amount)
    out = image * b
    out[1:-1] += a * (image[:-2] + image[2:])
    out[[0, -1]] += 2 * a * image[[0, -1]]
    wide = out * b
    wide[:, 1:-1] += a * (out[:, :-2] + out[:, 2:])
    wide[:, [0, -1]] += 2 * a * out[:, [0, -1]]
    return wide


def _add_artefacts(rng: np.random.Generator, head: Head, size: int) -> Field:
    """Blur, noise, cupping, and at the base the dark bands and streaks of beam hardening."""
    hu = _blur(np.clip(head.hu, -400, BONE * 0.35), float(rng.uniform(0.04, 0.2)))
    low = head.traits.level < 0.42
    # Detector noise is white only before reconstruction: a part is coarse, and dense heads are noisier in the middle.
    grain = rng.standard_normal(head.shape, dtype=np.float32)
    spread = float(rng.uniform(0.04, 0.18))
    grain = _blur(grain, spread)
    grain *= np.float32(1 / (6 * spread * spread - 4 * spread + 1))  # what the blur took from the variance
    sigma = float(np.clip(rng.lognormal(1.0, 0.30), 1.0, 5.0)) * (size / 256) * (1.25 if low else 1.0)
    hu += np.float32(sigma) * grain
    step = max(2, round(3 * size / 256))
    coarse = rng.standard_normal((head.shape[0] // step + 1, head.shape[1] // step + 1), dtype=np.float32)
    coarse = coarse.repeat(step, axis=0).repeat(step, axis=1)[: head.shape[0], : head.shape[1]]
    hu += np.float32(0.3 * sigma) * _blur(coarse, 0.33)
    cup = float(rng.uniform(0, 9))
    rim = float(rng.uniform(0, 22))  # bone partly in the slice makes a thin bright lining: not a bleed
    near = np.exp(np.maximum(head.depth, 0) * np.float32(-18)) * head.inside
    hu += near * (np.float32(cup) + np.float32(rim) * near * near)
    hu += np.float32(rng.normal(0, 3.0)) * head.x + np.float32(rng.normal(0, 3.0)) * head.y
    if low:
        _harden_beam(rng, head, hu)
    return hu


def _harden_beam(rng: np.random.Generator, head: Head, hu: Field) -> None:
    """Dense bone darkens the band between the petrous bones and throws streaks from there."""
    strength = float(rng.beta(1.2, 2.5)) * (1.0 if head.traits.level < 0.38 else 0.5)
    near = np.exp(-np.abs(head.y - np.float32(0.05)) * np.float32(rng.uniform(3, 9)))
    hu -= np.float32(14 * strength) * near * near * (np.abs(head.x) < 0.5)
    angle = float(rng.normal(0, 0.25))
    position = (head.y * np.float32(np.cos(angle)) + head.x * np.float32(np.sin(angle))) * np.float32(30) + np.float32(
        128
    )
    lines = _smooth_line(rng.standard_normal(256, dtype=np.float32)).take(
        np.clip(position * 4, 0, 1023).astype(np.intp)
    )
    hu += np.float32(7 * strength) * lines * near


def _smooth_line(knots: Field) -> Field:
    """Four samples a knot, linear in between."""
    line: Field = np.interp(np.arange(4 * len(knots)) / 4, np.arange(len(knots)), knots).astype(np.float32)
    return line


def _apply_window(rng: np.random.Generator, hu: Field) -> NDArray[np.uint8]:
    """The brain window of radiology, level 40 and width 80, as loosely as hospitals keep it."""
    if rng.random() < 0.6:
        level, width = float(rng.normal(37, 2.0)), float(rng.normal(82, 5))
    else:
        level, width = float(rng.uniform(30, 50)), float(rng.uniform(70, 130))
    grey = (hu - np.float32(level - width / 2)) * np.float32(255 / width)
    pixels: NDArray[np.uint8] = np.clip(grey + np.float32(0.5), 0, 255).astype(np.uint8)
    return pixels


def _write_chunk(stage: Path, seed: int, size: int, indices: range) -> list[tuple[str, ...]]:
    # glibc learns from one large block that is freed to keep the many small ones: a third faster on Linux.
    block = np.empty(24 << 20, dtype=np.uint8)
    del block
    rows: list[tuple[str, ...]] = []
    for index in indices:
        kind = choose_kind(index)
        item = generate_slice(np.random.default_rng([seed, index]), kind=kind, size=size)
        label = _LABELS[kind is not None]
        name = f"{label}/{index:05d}.png"
        Image.fromarray(item.pixels).save(stage / name, compress_level=4)
        if kind:
            mask = item.lesion.astype(np.uint8) * np.uint8(255)
            Image.fromarray(mask).save(stage / LESION_FOLDER / name, compress_level=1)
        rows.append((name, label, kind or "none", f"{item.level:.4f}", str(seed)))
    return rows


def _map_chunks(
    write: Callable[[range], list[tuple[str, ...]]], chunks: list[range], processes: int | None
) -> Iterator[list[tuple[str, ...]]]:
    workers = min(processes or len(os.sched_getaffinity(0)), len(chunks))
    if workers <= 1:
        yield from map(write, chunks)
        return
    # Spawned, not forked: the caller may already hold TensorFlow's threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(write, chunks)


@contextmanager
def _stage_folder(out: Path) -> Iterator[Path]:
    """A sibling folder that takes the name out only when everything in it is written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = out.parent / f".{out.name}.partial-{os.getpid()}"
    stage.mkdir()
    try:
        yield stage
        if out.exists():
            out.rmdir()
        stage.rename(out)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
