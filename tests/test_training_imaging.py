"""How the grey levels of training images are varied."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.fit.augment import AUGMENTATIONS, vary_batch
from training.fit.imaging import Imaging, vary_imaging

pytestmark = pytest.mark.tensorflow

SEED = (7, 3)
COUNT = 60


def draw_head(side: int = 64) -> np.ndarray:
    """A disc of tissue with a checked pattern and a rim of bone in black air, float32 [1, side, side, 1]."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    radius = np.hypot(x, y)
    tissue = 100.0 + 20.0 * ((np.arange(side)[:, None] + np.arange(side)) % 2)
    image = np.where(radius < 24, tissue, np.where(radius < 28, 255.0, 0.0))
    return image.astype(np.float32)[None, ..., None]


def vary(imaging: Imaging, image: np.ndarray | None = None) -> np.ndarray:
    """So many variations of an image, [COUNT, side, side, 1]."""
    varied: np.ndarray = vary_imaging(
        np.repeat(draw_head() if image is None else image, COUNT, 0), SEED, imaging
    ).numpy()
    return varied


def measure_roughness(images: np.ndarray) -> np.ndarray:
    """How much neighbours differ in the middle of each image, [N]."""
    middle = images[:, 24:40, 24:40, 0]
    roughness: np.ndarray = np.abs(np.diff(middle, axis=2)).mean(axis=(1, 2))
    return roughness


def test_no_range_changes_nothing() -> None:
    assert np.allclose(vary(Imaging()), draw_head(), atol=1e-3)


@pytest.mark.parametrize(
    "imaging",
    [Imaging(blur=1.0), Imaging(noise=10.0), Imaging(gamma=0.3), Imaging(jpeg=40)],
    ids=["blur", "noise", "gamma", "jpeg"],
)
def test_each_change_is_left_out_of_about_half_of_the_images(imaging: Imaging) -> None:
    same = np.abs(vary(imaging) - draw_head()).max(axis=(1, 2, 3)) < 0.01
    assert COUNT * 0.3 < same.sum() < COUNT * 0.7


def test_blur_smooths_and_sharpening_roughens() -> None:
    was = measure_roughness(draw_head())[0]
    assert (measure_roughness(vary(Imaging(blur=1.0))) <= was + 1e-3).all()
    assert measure_roughness(vary(Imaging(blur=1.0))).min() < was / 3
    assert (measure_roughness(vary(Imaging(sharpening=0.6))) >= was - 1e-3).all()
    assert measure_roughness(vary(Imaging(sharpening=0.6))).max() > was * 1.3


def test_noise_has_the_strength_that_is_allowed_and_spares_black_and_white() -> None:
    head = draw_head()
    noise = vary(Imaging(noise=10.0)) - head
    inside = ((head > 0) & (head < 255))[0]
    spread = noise[:, inside].std(axis=1)
    assert spread.max() < 12
    assert spread.max() > 6
    assert (noise[:, ~inside] == 0).all()


def test_a_grey_curve_keeps_the_order_of_the_greys_and_both_ends() -> None:
    ramp = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1)
    curves = vary(Imaging(gamma=0.3), ramp).reshape(COUNT, 256)
    assert (np.diff(curves, axis=1) > 0).all()
    assert np.allclose(curves[:, [0, 255]], [0, 255], atol=1e-3)
    assert curves[:, 128].min() < 118
    assert curves[:, 128].max() > 138


def test_masks_move_with_their_image_and_keep_their_greys() -> None:
    """What scanner and archive do to an image is not done to the mask of its lesion."""
    preset = AUGMENTATIONS["scanner"]
    assert preset is not None
    planes = np.repeat(np.concatenate([draw_head(), 255 * (draw_head() == 255)], axis=3).astype(np.uint8), 8, axis=0)
    moved = vary_batch(planes, SEED, replace(preset, imaging=None, contrast=0.0, brightness=0.0), 1).numpy()
    varied = vary_batch(planes, SEED, preset, 1).numpy()
    assert np.array_equal(varied[..., 1], moved[..., 1])
    assert not np.allclose(varied[..., 0], moved[..., 0], atol=5)


def test_colour_images_stay_grey_where_they_were() -> None:
    """Noise is that of a scanner, the same in all three channels; JPEG may part them by its rounding."""
    grey = np.repeat(draw_head(), 3, axis=3)
    varied = vary(Imaging(blur=1.0, sharpening=0.6, noise=10.0, gamma=0.3), grey)
    assert np.ptp(varied, axis=3).max() < 1e-3
