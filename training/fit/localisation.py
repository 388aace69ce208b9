"""Auxiliary heads that learn where the lesion is, where the data set has lesion masks. They are dropped at export.

The label alone says little about a slice of 65,536 pixels of which a hundred show the lesion: a network taught by it
alone stays near chance for thousands of steps, taught by masks as well it does not. Keras is imported where heads are
built, so that the names here cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclass(frozen=True)
class Tap:
    """A layer that a lesion head stands on, and where in the image its cells lie."""

    layer: str
    """Its name; its output is [N, rows, columns, channels]."""

    cell: int
    """Width of a cell in pixels, a power of two."""

    margin: int = 0
    """Pixels at each side of the image that no cell covers: convolutions without padding lose some."""

    initializer: str = "glorot_uniform"
    """How the head's kernel starts, by its Keras name. Sums of residual blocks, which nothing normalises, are so large
    that random kernels would be certain and wrong, and what they send back would undo what the backbone knows: there
    it is zeros, and the map starts at ``LESION_PRIOR``."""


POOLING_TAPS = {2: (8, 8), 3: (16, 16)}
"""Of the paper's CNN, whose pooling layers are numbered from 0: the cells of two of them, and the margin."""

LESION_PRIOR = -4.0
"""Logit with which the heads start: about 2 % of the cells show a lesion."""

POSITIVE_WEIGHT = 5.0
"""How much more a cell with a lesion counts than one without, since there are so few."""


def find_taps(network: keras.Model, named: tuple[Tap, ...] = ()) -> tuple[Tap, ...]:
    """Returns the layers of a network that lesion heads teach something: those that are there, and trained up to there.

    Args:
        network: what is trained, frozen as it will be.
        named: what its backbone names; where it stands on none, the pooling layers of the paper's CNN.
    """
    import keras
    from keras import layers

    if not named:
        poolings = [layer.name for layer in network.layers if isinstance(layer, layers.MaxPooling2D)]
        named = tuple(Tap(poolings[index], *cells) for index, cells in POOLING_TAPS.items() if index < len(poolings))
    names = {layer.name for layer in network.layers}
    return tuple(
        tap
        for tap in named
        if tap.layer in names and keras.Model(network.inputs, network.get_layer(tap.layer).output).trainable_variables
    )


def add_lesion_heads(network: keras.Model, taps: tuple[Tap, ...]) -> keras.Model:
    """Returns a model with the network's own output first, then one lesion map a tapped layer.

    The maps are float32 [N, h, w, 1], probabilities that a cell shows a lesion. All weights of the network are shared,
    so training the returned model trains the network.
    """
    import keras
    from keras import layers

    maps = [
        layers.Conv2D(
            1,
            1,
            activation="sigmoid",
            dtype="float32",
            kernel_initializer=tap.initializer,
            bias_initializer=keras.initializers.Constant(LESION_PRIOR),
            name=f"lesions_{tap.cell}",
        )(network.get_layer(tap.layer).output)
        for tap in taps
    ]
    return keras.Model(network.inputs, [*network.outputs, *maps])


def make_lesion_targets(masks: tf.Tensor, taps: tuple[Tap, ...]) -> tuple[tf.Tensor, ...]:
    """Returns what each head should answer: 1 where any pixel of a cell belongs to the lesion.

    Args:
        masks: float32 [N, H, W, 1], 0 to 255, more than half of it being lesion.
        taps: the layers that the heads stand on.

    Returns:
        float32 [N, h, w, 1] for each tapped layer.
    """
    import tensorflow as tf

    lesions = tf.cast(masks > 127.5, tf.float32)
    height, width = masks.shape[1:3]
    return tuple(
        tf.nn.max_pool2d(
            lesions[:, tap.margin : height - tap.margin, tap.margin : width - tap.margin], tap.cell, tap.cell, "VALID"
        )
        for tap in taps
    )


def lesion_loss(target: tf.Tensor, predicted: tf.Tensor) -> Any:
    """Weighted binary cross-entropy of the cells of each slice, float32 [N]."""
    import tensorflow as tf

    predicted = tf.clip_by_value(predicted, 1e-6, 1 - 1e-6)
    weight = 1 + (POSITIVE_WEIGHT - 1) * target
    entropy = -(target * tf.math.log(predicted) + (1 - target) * tf.math.log(1 - predicted))
    return tf.reduce_mean(weight * entropy, axis=[1, 2, 3])
