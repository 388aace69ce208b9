"""How training images are varied."""

from __future__ import annotations

import numpy as np
import pytest

from training.fit.augment import AUGMENTATIONS, Augmentation, vary_batch

pytestmark = pytest.mark.tensorflow

SEED = (7, 3)


def make_images(count: int) -> np.ndarray:
    """Random images, uint8 [count, 256, 256, 3]."""
    return np.random.default_rng(0).integers(0, 256, (count, 256, 256, 3), np.uint8)


def draw_cross(side: int = 65) -> np.ndarray:
    """An image that no flip or turn leaves as it is, uint8 [1, side, side, 1]."""
    image = np.zeros((1, side, side, 1), np.uint8)
    image[:, 10:20, 15:55] = 200
    image[:, 10:40, 45:55] = 100
    return image


@pytest.mark.parametrize("name", [name for name, preset in AUGMENTATIONS.items() if preset])
def test_preset_keeps_shape_and_range(name: str) -> None:
    """A varied batch is still made of images: float32, 0 to 255."""
    preset = AUGMENTATIONS[name]
    assert preset is not None
    varied = vary_batch(make_images(4), SEED, preset).numpy()
    assert (varied.dtype, varied.shape) == (np.float32, (4, 256, 256, 3))
    assert varied.min() >= 0
    assert varied.max() <= 255


def test_nothing_allowed_changes_nothing() -> None:
    """Without any range, an image comes out as it was."""
    image = draw_cross()
    assert np.allclose(vary_batch(image, SEED, Augmentation()).numpy(), image, atol=1e-3)


@pytest.mark.parametrize(
    ("augmentation", "axis"),
    [(Augmentation(horizontal_flip=True), 2), (Augmentation(vertical_flip=True), 1)],
    ids=["horizontal", "vertical"],
)
def test_flip_mirrors_about_half_of_the_images(augmentation: Augmentation, axis: int) -> None:
    """Each image is either as it was or mirrored, and both happen about equally often."""
    image = draw_cross()
    varied = vary_batch(np.repeat(image, 200, axis=0), SEED, augmentation).numpy()
    same = np.isclose(varied, image, atol=1e-3).all(axis=(1, 2, 3))
    mirrored = np.isclose(varied, np.flip(image, axis), atol=1e-3).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 70 <= mirrored.sum() <= 130


def test_rotation_stays_within_its_angle() -> None:
    """A spot at the rim moves along its circle by at most the angle that is allowed, and uses that range."""
    image = np.zeros((1, 101, 101, 1), np.uint8)
    image[0, 48:53, 88:93] = 255
    varied = vary_batch(np.repeat(image, 100, axis=0), SEED, Augmentation(rotation=15)).numpy()[..., 0]
    y, x = np.mgrid[-50:51, -50:51]
    mass = varied.sum(axis=(1, 2))
    angles = np.degrees(np.arctan2((varied * y).sum(axis=(1, 2)) / mass, (varied * x).sum(axis=(1, 2)) / mass))
    assert np.abs(angles).max() <= 15.5
    assert angles.max() > 12
    assert angles.min() < -12


def test_variation_is_seeded() -> None:
    """The same seed varies a batch in the same way, another seed in another."""
    images, preset = make_images(2), AUGMENTATIONS["paper"]
    assert preset is not None
    first, again, other = (vary_batch(images, seed, preset).numpy() for seed in (SEED, SEED, (7, 4)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def find_directions(varied: np.ndarray) -> np.ndarray:
    """Degrees from the middle of each image to the middle of its brightness, [N]; 0 is right, 90 is down."""
    side = varied.shape[1]
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    pixels = varied[..., 0].astype(np.float64)
    return np.degrees(np.arctan2((pixels * y).sum(axis=(1, 2)), (pixels * x).sum(axis=(1, 2))))


def test_head_ct_keeps_the_front_in_front() -> None:
    """Vertical flips and quarter turns do not occur: what is in front stays there, within the angle that is allowed."""
    preset = AUGMENTATIONS["head-ct"]
    assert preset is not None
    assert not preset.vertical_flip
    front = np.zeros((1, 101, 101, 1), np.uint8)
    front[0, 8:13, 48:53] = 200
    still = Augmentation(horizontal_flip=preset.horizontal_flip, rotation=preset.rotation, scale=preset.scale)
    directions = find_directions(vary_batch(np.repeat(front, 300, axis=0), SEED, still).numpy())
    assert np.abs(directions + 90).max() <= preset.rotation + 0.5


def test_paper_has_flips_both_ways() -> None:
    """The paper's preset turns front to back as well: both directions are seen, about equally often."""
    preset = AUGMENTATIONS["paper"]
    assert preset is not None
    front = np.zeros((1, 101, 101, 1), np.uint8)
    front[0, 8:13, 48:53] = 200
    directions = find_directions(vary_batch(np.repeat(front, 200, axis=0), SEED, preset).numpy())
    assert 70 <= (directions > 0).sum() <= 130


def test_scale_stays_within_its_range() -> None:
    """A disc grows and shrinks by at most what is allowed, both about equally often, and keeps its place."""
    y, x = np.mgrid[-50:51, -50:51]
    disc = (255 * (np.hypot(x, y) <= 30)).astype(np.uint8)[None, ..., None]
    varied = vary_batch(np.repeat(disc, 200, axis=0), SEED, Augmentation(scale=0.2)).numpy()[..., 0]
    sizes = np.sqrt(varied.sum(axis=(1, 2)) / disc.sum())
    assert sizes.max() <= 1.2 * 1.01
    assert sizes.min() >= 1 / 1.2 / 1.01
    assert sizes.max() > 1.17
    assert sizes.min() < 1 / 1.17
    assert 70 <= (sizes > 1).sum() <= 130
    assert np.abs((varied * x).sum(axis=(1, 2)) / varied.sum(axis=(1, 2))).max() < 0.5


def test_each_view_of_a_batch_is_another() -> None:
    """Images of one batch are varied each in its own way."""
    preset = AUGMENTATIONS["head-ct"]
    assert preset is not None
    varied = vary_batch(np.repeat(draw_cross(), 20, axis=0), SEED, preset).numpy()
    assert len({image.tobytes() for image in varied}) == 20


@pytest.mark.parametrize("name", [name for name, preset in AUGMENTATIONS.items() if preset and preset.contrast])
def test_another_window_leaves_air_black_and_bone_white(name: str) -> None:
    """Air is darker than any window and bone brighter; what is between them gets darker or brighter."""
    preset = AUGMENTATIONS[name]
    assert preset is not None
    of_window = Augmentation(contrast=preset.contrast, brightness=preset.brightness)
    thirds = np.repeat(np.repeat(np.array([0, 120, 255], np.uint8), 10)[None, :, None], 30, axis=2)[..., None]
    varied = vary_batch(np.repeat(thirds, 100, axis=0), SEED, of_window).numpy()
    assert set(varied[:, :10].ravel()) == {0.0}
    assert set(varied[:, 20:].ravel()) == {255.0}
    moved = varied[:, 15, 15, 0] - 120
    assert moved.min() < -0.5 * preset.brightness < 0.5 * preset.brightness < moved.max()
