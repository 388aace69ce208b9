"""The networks: Keras models from float or uint8 [N, 256, 256, 3], 0 to 255, to probabilities float32 [N, 2].

Scaling is a layer of the network, so that nobody can forget it or do it twice. Keras is imported where a network is
built, so that the names of the networks cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

IMAGE_SIZE = 256
"""Side of the networks' input, in pixels."""

CNN_FILTERS = (32, 64, 64, 64, 64, 64)
CNN_PARAMETERS = 183_682
"""The paper's Table 1 in one number."""


def build_cnn(precision: str = "float32") -> keras.Model:
    """Builds the paper's CNN (Table 1), untrained.

    Args:
        precision: Keras dtype policy of the layers between scaling and softmax, which are always float32.
    """
    import keras
    from keras import layers

    # He initialisation keeps the variance of ReLU layers; with Glorot's, six of them start too small to learn from.
    convolution = {"activation": "relu", "kernel_initializer": "he_normal", "dtype": precision}
    network = [keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3)), layers.Rescaling(1 / 255, dtype="float32")]
    for filters in CNN_FILTERS:
        network += [layers.Conv2D(filters, 3, padding="valid", **convolution), layers.MaxPooling2D(2, dtype=precision)]
    network += [
        layers.Flatten(dtype=precision),
        layers.Dense(64, **convolution),
        layers.Dense(2, activation="softmax", dtype="float32", name="probabilities"),
    ]
    model = keras.Sequential(network, name="cnn")
    if model.count_params() != CNN_PARAMETERS:
        raise AssertionError(f"the CNN has {model.count_params():,} parameters, the paper's has {CNN_PARAMETERS:,}")
    return model


def apply_temperature(model: keras.Model, temperature: float) -> None:
    """Divides the logits of a network by a temperature, in place, so that it answers softmax(z / T).

    It is folded into kernel and bias of the last layer: what is saved and exported is calibrated, at no cost.

    Args:
        model: network whose last layer is Dense with softmax.
        temperature: positive.

    Raises:
        ValueError: it ends otherwise, so that nothing can be folded.
    """
    last = model.layers[-1]
    if getattr(getattr(last, "activation", None), "__name__", "") != "softmax" or not hasattr(last, "kernel"):
        raise ValueError(f"the last layer of {model.name} is not Dense with softmax")
    last.set_weights([weight / temperature for weight in last.get_weights()])


MODELS: dict[str, Callable[[str], keras.Model]] = {"cnn": build_cnn}
"""Networks by name; each builder takes a Keras dtype policy."""
