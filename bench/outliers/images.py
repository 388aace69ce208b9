"""Images that nobody should send a model of head-CT slices: what is drawn here, and what is made of slices.

Body scans and MR are drawn look-alikes: outlines, organs and grey levels as in textbooks, no real scan. Photographs are
those that lie in installed packages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Grey = NDArray[np.uint8]
SIDE = 256
ROWS, COLUMNS = (axis / (SIDE / 2) - 1 for axis in np.mgrid[:SIDE, :SIDE].astype(np.float32) + np.float32(0.5))
"""Coordinates of pixels, -1 to 1, down and to the right."""


def find_photographs() -> list[Grey]:
    """Photographs of scikit-learn and Matplotlib, in grey."""
    import matplotlib
    import sklearn.datasets

    samples = Path(sklearn.datasets.__file__).parent / "images"
    portrait = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return [np.asarray(Image.open(path).convert("L")) for path in [*sorted(samples.glob("*.jpg")), portrait]]


def cut_photograph(rng: np.random.Generator) -> Grey:
    """A square part of a photograph, of any size down to a quarter of its shorter side."""
    photograph = _PHOTOGRAPHS[int(rng.integers(len(_PHOTOGRAPHS)))]
    side = int(min(photograph.shape) * rng.uniform(0.25, 1))
    top, left = (int(rng.integers(length - side + 1)) for length in photograph.shape)
    return np.asarray(Image.fromarray(photograph[top : top + side, left : left + side]).resize((SIDE, SIDE)))


def vignette_photograph(rng: np.random.Generator) -> Grey:
    """The same on black ground, as a disc in the middle: its outline is that of a head."""
    inside = is_inside((0, 0), (rng.uniform(0.7, 0.9), rng.uniform(0.55, 0.75)))
    return np.where(inside, np.maximum(cut_photograph(rng), 40), 0).astype(np.uint8)


_PHOTOGRAPHS = find_photographs()


def make_noise(rng: np.random.Generator) -> Grey:
    """White noise of all levels."""
    return rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)


def make_noisy_disc(rng: np.random.Generator) -> Grey:
    """Noise with the outline of a head."""
    values = np.where(is_inside((0, 0), (0.8, 0.65)), rng.normal(120, 45, (SIDE, SIDE)), 0)
    return to_grey(values)


def draw_chest(rng: np.random.Generator) -> Grey:
    """A look-alike of a chest CT in a soft-tissue window (level 40, width 400): lungs, heart, spine, ribs."""
    body = wobble(rng, 0.06)
    image = paint(np.full((SIDE, SIDE), -1000.0), is_inside((0, 0), (0.62, 0.9), body), -90)
    image = paint(image, is_inside((0, 0), (0.55, 0.82), body), 50)
    for side in (-1, 1):
        image = paint(image, is_inside((0.0, side * 0.42), (0.42, 0.32), body), -850)
    image = paint(image, is_inside((rng.uniform(-0.1, 0.05), 0.12), (0.26, 0.24), body), 45)
    image = paint(image, is_inside((0.16, 0.08), (0.07, 0.07), body), 130)
    image = paint_spine(image, rng)
    for angle in np.arange(0.3, 2 * np.pi, 0.55) + rng.uniform(0, 0.5):
        image = paint(image, is_inside((0.5 * np.cos(angle), 0.76 * np.sin(angle)), (0.035, 0.07)), 350)
    return finish(image, rng, 40, 400)


def draw_abdomen(rng: np.random.Generator) -> Grey:
    """A look-alike of an abdominal CT (level 40, width 400): liver, spleen, kidneys, bowel gas, aorta, spine."""
    body = wobble(rng, 0.06)
    image = paint(np.full((SIDE, SIDE), -1000.0), is_inside((0, 0), (0.6, 0.88), body), -100)
    image = paint(image, is_inside((0, 0), (0.5, 0.75), body), 20)
    image = paint(image, is_inside((-0.08, -0.4), (0.34, 0.32), body), 60)
    image = paint(image, is_inside((0.05, 0.55), (0.2, 0.13), body), 52)
    for side in (-1, 1):
        image = paint(image, is_inside((0.22, side * 0.36), (0.12, 0.1), body), 35)
    for _ in range(int(rng.integers(2, 7))):
        image = paint(image, is_inside((rng.uniform(-0.35, 0.1), rng.uniform(-0.1, 0.5)), (0.06, 0.08)), -600)
    image = paint(image, is_inside((0.12, 0.06), (0.06, 0.06), body), 45)
    return finish(paint_spine(image, rng), rng, 40, 400)


def draw_abdomen_in_brain_window(rng: np.random.Generator) -> Grey:
    """The same sent by mistake in the window of brains (level 40, width 80)."""
    image = draw_abdomen(rng).astype(np.float64) / 255 * 400 - 160
    return to_grey((image - 0) / 80 * 255)


def draw_pelvis(rng: np.random.Generator) -> Grey:
    """A look-alike of a CT of both thighs or legs: two discs with a ring of bone in each, in the window of brains."""
    image = np.full((SIDE, SIDE), -1000.0)
    for side in (-1, 1):
        centre = (rng.uniform(-0.1, 0.1), side * rng.uniform(0.42, 0.48))
        size = rng.uniform(0.3, 0.4)
        image = paint(image, is_inside(centre, (size, size)), -90)
        image = paint(image, is_inside(centre, (0.85 * size, 0.85 * size)), 55)
        image = paint(image, is_inside(centre, (0.3 * size, 0.3 * size)), 900)
        image = paint(image, is_inside(centre, (0.17 * size, 0.17 * size)), -60)
    return finish(image, rng, 40, 80)


DRAWN: Mapping[str, Callable[[np.random.Generator], Grey]] = {
    "noise": make_noise,
    "noise in the outline of a head": make_noisy_disc,
    "photographs": cut_photograph,
    "photographs in the outline of a head": vignette_photograph,
    "chest CT (drawn)": draw_chest,
    "abdomen CT (drawn)": draw_abdomen,
    "abdomen CT in the brain window (drawn)": draw_abdomen_in_brain_window,
    "legs CT in the brain window (drawn)": draw_pelvis,
}
"""Images that are no slices of a head."""


def to_bone_window(pixels: Grey) -> Grey:
    """As in the window of bone (level 500, width 2000); from grey levels, so that dense bone is all alike."""
    return to_grey((restore_values(pixels) + 500) / 2000 * 255)


def to_lung_window(pixels: Grey) -> Grey:
    """As in the window of lungs (level -600, width 1500)."""
    return to_grey((restore_values(pixels) + 1350) / 1500 * 255)


def to_wide_window(pixels: Grey) -> Grey:
    """As in a soft-tissue window of the body (level 40, width 400)."""
    return to_grey((restore_values(pixels) + 160) / 400 * 255)


def to_t1(pixels: Grey) -> Grey:
    """As T1-weighted MR has it: no bone, bright fat around it, dark fluid, no more noise than the slice."""
    return look_like_mr(pixels, [0, 20, 60, 110, 170, 190, 60, 15])


def to_t2(pixels: Grey) -> Grey:
    """As T2-weighted MR has it: no bone, fluid brightest, white matter darker than grey matter."""
    return look_like_mr(pixels, [0, 250, 210, 110, 140, 160, 60, 15])


def crop(pixels: Grey) -> Grey:
    """The middle, so that the head is cut on all sides."""
    edge = pixels.shape[0] // 4
    return resize(pixels[edge:-edge, edge:-edge])


def crop_half(pixels: Grey) -> Grey:
    """The left half alone."""
    return resize(pixels[:, : pixels.shape[1] // 2])


def crop_corner(pixels: Grey) -> Grey:
    """Moved out of the field, so that a quarter of the head's width is cut off."""
    side = pixels.shape[1]
    moved = np.zeros_like(pixels)
    moved[:, : side - side * 3 // 8] = pixels[:, side * 3 // 8 :]
    return moved


def blur_motion(pixels: Grey) -> Grey:
    """As of a head that turned: three copies over each other, 12 degrees in all."""
    turned = [ndimage.rotate(pixels.astype(np.float32), angle, reshape=False, order=1) for angle in (-6, 0, 6)]
    return to_grey(np.mean(turned, axis=0))


MADE: Mapping[str, Callable[[Grey], Grey]] = {
    "inverted": lambda pixels: 255 - pixels,
    "mirrored": lambda pixels: pixels[:, ::-1],
    "turned by 90 degrees": lambda pixels: np.rot90(pixels),
    "upside-down": lambda pixels: pixels[::-1],
    "in a bone window": to_bone_window,
    "in a lung window": to_lung_window,
    "in a body window": to_wide_window,
    "like T1-weighted MR": to_t1,
    "like T2-weighted MR": to_t2,
    "cropped to the middle": crop,
    "cropped to one half": crop_half,
    "moved out of the field": crop_corner,
    "blurred by motion": blur_motion,
    "very faint": lambda pixels: (pixels // 8).astype(np.uint8),
    "too bright": lambda pixels: to_grey(pixels.astype(np.float64) * 3 + 60),
}
"""What becomes of slices that are upright and in the brain window."""


def restore_values(pixels: Grey) -> NDArray[np.float64]:
    """CT values that a slice in the brain window (0 to 80) may have had: black ground is air, white is bone."""
    values = pixels.astype(np.float64) / 255 * 80
    bone = ndimage.gaussian_filter((pixels > 250).astype(np.float64), 1.5)
    values = np.where(pixels > 250, 300 + 1000 * bone, values)
    values = np.where(pixels < 3, -80.0, values)
    values[find_ground(pixels)] = -1000.0
    return values


def find_ground(pixels: Grey) -> NDArray[np.bool_]:
    """What is dark and reaches the border."""
    labels, _ = ndimage.label(pixels < 20)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return np.isin(labels, edge[edge > 0])


def look_like_mr(pixels: Grey, levels: list[int]) -> Grey:
    """Grey levels of another modality for those of a slice: ground, then dark to white in even steps."""
    smooth = ndimage.gaussian_filter(pixels.astype(np.float32), 1)
    mapped = np.interp(smooth, np.linspace(0, 255, len(levels)), levels)
    ground = find_ground(pixels)
    head = ndimage.binary_fill_holes(~ground)
    scalp = head & ~ndimage.binary_erosion(head, iterations=max(2, pixels.shape[0] // 50))
    return to_grey(np.where(ground, 0, np.where(scalp, max(levels) - 20, mapped)))


def is_inside(
    centre: tuple[float, float], radii: tuple[float, float], wave: NDArray[np.float64] | float = 0.0
) -> NDArray[np.bool_]:
    """An ellipse, down and to the right, whose outline may wobble."""
    distance = np.hypot((ROWS - centre[0]) / radii[0], (COLUMNS - centre[1]) / radii[1])
    return np.asarray(distance < 1 + wave)


def wobble(rng: np.random.Generator, amount: float) -> NDArray[np.float64]:
    """How far an outline departs from an ellipse, by direction."""
    angles = np.arctan2(ROWS, COLUMNS)
    waves = [rng.normal(0, amount / n) * np.cos(n * angles + rng.uniform(0, 2 * np.pi)) for n in (2, 3, 4, 5)]
    return np.sum(waves, axis=0).astype(np.float64)


def paint(image: NDArray[np.float64], where: NDArray[np.bool_], value: float) -> NDArray[np.float64]:
    """A region of one CT value over what is there."""
    return np.where(where, value, image)


def paint_spine(image: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A vertebra with its canal."""
    row = rng.uniform(0.3, 0.36)
    image = paint(image, is_inside((row, 0), (0.11, 0.13)), 400)
    image = paint(image, is_inside((row + 0.14, 0), (0.1, 0.09)), 500)
    return paint(image, is_inside((row + 0.12, 0), (0.05, 0.05)), 30)


def finish(image: NDArray[np.float64], rng: np.random.Generator, level: float, width: float) -> Grey:
    """Blur, noise and window."""
    soft = ndimage.gaussian_filter(image, 0.8) + rng.normal(0, 8, image.shape)
    return to_grey((soft - level + width / 2) / width * 255)


def resize(pixels: Grey) -> Grey:
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize((SIDE, SIDE)))


def to_grey(values: NDArray[np.float64]) -> Grey:
    """Rounded and clipped."""
    grey: Grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return grey
