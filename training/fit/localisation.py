"""Auxiliary heads that learn where the lesion is, where the data set has lesion masks. They are dropped at export.

The label alone says little about a slice of 65,536 pixels of which a hundred show the lesion: a network taught by it
alone stays near chance for thousands of steps, taught by masks as well it does not. Keras is imported where heads are
built, so that the names here cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

TAPPED_POOLINGS = (2, 3)
"""Which of the network's pooling layers get a head: those whose cells are 8 and 16 pixels wide."""

LESION_PRIOR = -4.0
"""Logit with which the heads start: about 2 % of the cells show a lesion."""

POSITIVE_WEIGHT = 5.0
"""How much more a cell with a lesion counts than one without, since there are so few."""


def has_lesion_cells(network: keras.Model) -> bool:
    """Returns whether a network has the pooling layers that lesion heads stand on."""
    return len(list_poolings(network)) > max(TAPPED_POOLINGS)


def list_poolings(network: keras.Model) -> list[keras.layers.Layer]:
    from keras import layers

    return [layer for layer in network.layers if isinstance(layer, layers.MaxPooling2D)]


def add_lesion_heads(network: keras.Model) -> keras.Model:
    """Returns a model with the network's own output first, then one lesion map a tapped pooling layer.

    The maps are float32 [N, h, w, 1], probabilities that a cell shows a lesion. All weights of the network are shared,
    so training the returned model trains the network.
    """
    import keras
    from keras import layers

    poolings = list_poolings(network)
    maps = [
        layers.Conv2D(
            1,
            1,
            activation="sigmoid",
            dtype="float32",
            bias_initializer=keras.initializers.Constant(LESION_PRIOR),
            name=f"lesions_{2 ** (index + 1)}",
        )(poolings[index].output)
        for index in TAPPED_POOLINGS
    ]
    return keras.Model(network.inputs, [*network.outputs, *maps])


def make_lesion_targets(masks: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns what each head should answer: 1 where any pixel of a cell belongs to the lesion.

    Args:
        masks: float32 [N, H, W, 1], 0 to 255, more than half of it being lesion.

    Returns:
        float32 [N, h, w, 1] for each tapped layer. Unpadded convolutions lose a margin as wide as a cell on each side.
    """
    import tensorflow as tf

    lesions = tf.cast(masks > 127.5, tf.float32)
    targets = []
    for index in TAPPED_POOLINGS:
        cell = 2 ** (index + 1)
        inner = lesions[:, cell:-cell, cell:-cell]
        targets.append(tf.nn.max_pool2d(inner, cell, cell, "VALID"))
    return tuple(targets)


def lesion_loss(target: tf.Tensor, predicted: tf.Tensor) -> Any:
    """Weighted binary cross-entropy of the cells of each slice, float32 [N]."""
    import tensorflow as tf

    predicted = tf.clip_by_value(predicted, 1e-6, 1 - 1e-6)
    weight = 1 + (POSITIVE_WEIGHT - 1) * target
    entropy = -(target * tf.math.log(predicted) + (1 - target) * tf.math.log(1 - predicted))
    return tf.reduce_mean(weight * entropy, axis=[1, 2, 3])
