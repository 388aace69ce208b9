"""The networks: the paper's CNN, and a head on ResNet-50."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backbones import randomise_statistics, save_published
from training.fit.models import BACKBONES, CNN_PARAMETERS, FEATURES, build_cnn, build_resnet50

pytestmark = pytest.mark.tensorflow


def make_images(count: int) -> np.ndarray:
    """Random images, uint8 [count, 256, 256, 3]."""
    return np.random.default_rng(0).integers(0, 256, (count, 256, 256, 3), np.uint8)


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


def test_mixed_precision_keeps_scaling_and_softmax_in_float32() -> None:
    """Only the layers between them are rounded; the weights are float32 and fit the plain network."""
    mixed, plain = build_cnn("mixed_bfloat16"), build_cnn("float32")
    assert mixed.layers[0].compute_dtype == mixed.layers[-1].compute_dtype == "float32"
    assert mixed.layers[1].compute_dtype == "bfloat16"
    plain.set_weights(mixed.get_weights())
    images = make_images(2)
    assert np.allclose(plain.predict_on_batch(images), mixed.predict_on_batch(images), atol=0.05)


def test_cnn_starts_as_it_is_told() -> None:
    """Glorot's kernels are narrower than He's, which a ReLU layer asks for."""
    spreads = {
        name: build_cnn(initializer=name).layers[3].kernel.numpy().std() for name in ("he_normal", "glorot_uniform")
    }
    fan_in, fan_out = 32 * 9, 64 * 9
    assert spreads["he_normal"] == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
    assert spreads["glorot_uniform"] == pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.1)


@pytest.fixture(scope="module")
def resnet50() -> Any:
    """ResNet-50 with random weights and the statistics of a trained network; do not train it."""
    network = build_resnet50("mixed_bfloat16")
    randomise_statistics(network)
    return network


def test_resnet50_is_keras_with_a_dense_head(resnet50: Any) -> None:
    """The backbone has the parameters of Keras's ResNet-50 without its top; 64 ReLU units and a softmax stand on it."""
    features = resnet50.get_layer(FEATURES)
    assert features.output.shape == (None, 2048)
    assert resnet50.count_params() == 23_587_712 + (2048 * 64 + 64) + (64 * 2 + 2)
    assert [layer.name for layer in resnet50.layers[-2:]] == ["head", "probabilities"]
    assert (resnet50.input_shape, resnet50.output_shape) == ((None, 256, 256, 3), (None, 2))


def test_resnet50_has_the_stages_that_can_be_unfrozen(resnet50: Any) -> None:
    """Each stage has its convolutions; together with the first one they are all that there are."""
    convolutions = [layer.name for layer in resnet50.layers if layer.name.endswith("_conv")]
    counts = [sum(name.startswith(stage) for name in convolutions) for stage in BACKBONES["resnet50"].stages]
    assert counts == [10, 19, 13, 10]
    assert len(convolutions) == 1 + sum(counts)


def test_resnet50_is_rounded_in_the_backbone_only(resnet50: Any) -> None:
    """In mixed precision, preprocessing, pooling and softmax stay float32, and the policy of others is left alone."""
    import keras

    types = {name: resnet50.get_layer(name).compute_dtype for name in ("preprocessing", "conv1_conv", "head")}
    assert types == {"preprocessing": "float32", "conv1_conv": "bfloat16", "head": "bfloat16"}
    assert {resnet50.get_layer(name).compute_dtype for name in (FEATURES, "probabilities")} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_preprocessing_is_that_of_keras(resnet50: Any, tmp_path: Path) -> None:
    """With the same published weights, colour images give the features that Keras's own preprocessing leads to."""
    import keras

    theirs = keras.applications.ResNet50(weights=None, include_top=False, pooling="avg", input_shape=(256, 256, 3))
    randomise_statistics(theirs)
    save_published(theirs, tmp_path / "notop.h5")
    ours = build_resnet50()
    BACKBONES["resnet50"].load(ours, tmp_path / "notop.h5")
    images = make_images(1).astype(np.float32)
    expected = np.asarray(theirs(keras.applications.resnet.preprocess_input(images.copy())))
    features = np.asarray(keras.Model(ours.inputs[0], ours.get_layer(FEATURES).output)(images))
    assert np.allclose(features, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
