"""The networks, and how their training images are varied."""

from __future__ import annotations

import numpy as np
import pytest

from training.augment import AUGMENTATIONS, Augmentation, vary_batch
from training.models import CNN_PARAMETERS, MODELS, build_cnn

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


def test_cnn_is_the_papers() -> None:
    """Layer by layer, the CNN is the paper's Table 1, with its number of parameters."""
    model = build_cnn()
    assert model.count_params() == CNN_PARAMETERS == 183_682
    convolutions = [layer for layer in model.layers if layer.name.startswith("conv2d")]
    assert [layer.filters for layer in convolutions] == [32, 64, 64, 64, 64, 64]
    assert {(layer.kernel_size, layer.padding, layer.activation.__name__) for layer in convolutions} == {
        ((3, 3), "valid", "relu")
    }
    assert model.input_shape == (None, 256, 256, 3)
    assert model.output_shape == (None, 2)


def test_cnn_takes_uint8_and_float_alike() -> None:
    """The same grey values give the same probabilities, whatever their type, and these sum to 1."""
    model, images = build_cnn(), make_images(2)
    from_bytes = model.predict_on_batch(images)
    from_floats = model.predict_on_batch(images.astype(np.float32))
    assert np.array_equal(from_bytes, from_floats)
    assert np.allclose(from_bytes.sum(axis=1), 1, atol=1e-6)


def test_scaling_is_inside() -> None:
    """Images that were scaled before give another answer: the network divides by 255 itself."""
    model, images = build_cnn(), make_images(1)
    assert not np.allclose(model.predict_on_batch(images), model.predict_on_batch(images / np.float32(255)), atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_mixed_precision_keeps_scaling_and_softmax_in_float32(name: str) -> None:
    """Only the layers between them are rounded; the weights are float32 and fit the plain network."""
    mixed, plain = MODELS[name]("mixed_bfloat16"), MODELS[name]("float32")
    assert mixed.layers[0].compute_dtype == mixed.layers[-1].compute_dtype == "float32"
    assert mixed.layers[1].compute_dtype == "bfloat16"
    plain.set_weights(mixed.get_weights())
    images = make_images(2)
    assert np.allclose(plain.predict_on_batch(images), mixed.predict_on_batch(images), atol=0.05)


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
