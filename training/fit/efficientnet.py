"""EfficientNet-Lite0 without its top, in Keras's own layers, and its published weights.

EfficientNet-B0 made for integers and small processors: no squeeze and excitation, and ReLU that ends at 6, so that
activations have a known range (Tan and Le, ICML 2019; the Lite variants are Google's of 2020). Stem and top have 32 and
1,280 channels. Keras is imported where the network is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.errors import TrainingError
from training.fit.torch_file import read_torch_file

if TYPE_CHECKING:
    import keras

STEM_CHANNELS = 32
TOP_CHANNELS = 1280
EPSILON = 1e-3
"""Of batch normalisation, as the weights were trained with."""

MOMENTUM = 0.9
"""Of batch normalisation: statistics of the last twenty batches or so. Keras's 0.99 would judge the first epochs of a
small data set by photographs."""


@dataclass(frozen=True)
class Stage:
    """Some blocks of the same kind, the first of which changes resolution and channels."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    """How many times more channels a block has inside."""

    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def list_blocks() -> Iterator[tuple[str, Stage, int]]:
    """Yields each block's name, as ``block3b``, its stage, and its stride."""
    for number, stage in enumerate(STAGES, 1):
        for block in range(stage.blocks):
            yield f"block{number}{'abcd'[block]}", stage, 1 if block else stage.stride


def build_efficientnet_lite0_base(pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Puts the network without its top on pixels [N, H, W, 3], as ``(value - 127) / 128``; float [N, H/32, W/32, 1280].

    All weights are random, such that the variance is kept without normalisation, which does nothing at first.
    """
    from keras import initializers, layers

    def normalise(answer: keras.KerasTensor, name: str, *, is_linear: bool = False) -> keras.KerasTensor:
        answer = layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=f"{name}_bn")(answer)
        return answer if is_linear else layers.ReLU(max_value=6.0, name=f"{name}_relu")(answer)

    def convolve(
        answer: keras.KerasTensor,
        channels: int,
        name: str,
        *,
        kernel: int = 1,
        stride: int = 1,
        is_linear: bool = False,
    ) -> keras.KerasTensor:
        convolution = layers.Conv2D(
            channels,
            kernel,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer="lecun_normal" if is_linear else "he_normal",
            name=f"{name}_conv",
        )
        return normalise(convolution(answer), name, is_linear=is_linear)

    answer = convolve(pixels, STEM_CHANNELS, "stem", kernel=3, stride=2)
    for name, stage, stride in list_blocks():
        taken, channels = answer, int(answer.shape[-1])
        if stage.expansion > 1:
            answer = convolve(answer, channels * stage.expansion, f"{name}_expand")
        depthwise = layers.DepthwiseConv2D(
            stage.kernel,
            strides=stride,
            padding="same",
            use_bias=False,
            depthwise_initializer=initializers.VarianceScaling(2.0, "fan_out"),
            name=f"{name}_depthwise_conv",
        )
        answer = normalise(depthwise(answer), f"{name}_depthwise")
        answer = convolve(answer, stage.channels, f"{name}_project", is_linear=True)
        if stride == 1 and channels == stage.channels:
            answer = layers.Add(name=f"{name}_add")([answer, taken])
    return convolve(answer, TOP_CHANNELS, "top")


def list_parts() -> Iterator[tuple[str, str, str]]:
    """Yields the convolutions by our names, and what the published weights call them and their normalisation."""
    yield "stem", "_conv_stem", "_bn0"
    for number, (name, stage, _) in enumerate(list_blocks()):
        prefix = f"_blocks.{number}"
        if stage.expansion > 1:
            yield f"{name}_expand", f"{prefix}._expand_conv", f"{prefix}._bn0"
        yield f"{name}_depthwise", f"{prefix}._depthwise_conv", f"{prefix}._bn1"
        yield f"{name}_project", f"{prefix}._project_conv", f"{prefix}._bn2"
    yield "top", "_conv_head", "_bn1"


UNUSED = ("_fc.weight", "_fc.bias")
"""The classes of ImageNet."""


def load_torch_weights(network: keras.Model, path: Path) -> None:
    """Gives the layers of a network that stands on this backbone the weights of a file of PyTorch.

    Raises:
        TrainingError: a tensor is missing, of another shape, not a number, or left over.
    """
    tensors = read_torch_file(path)
    # How many batches the statistics come from; no number of the network.
    names = {name for name in tensors if not name.endswith(".num_batches_tracked")} - set(UNUSED)
    for part, convolution, normalisation in list_parts():
        weight, *statistics = (
            f"{convolution}.weight",
            *(f"{normalisation}.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
        )
        if missing := [name for name in (weight, *statistics) if name not in names]:
            raise TrainingError(f"{path}: has no {missing[0]}: of another network")
        # PyTorch has filters first; Keras has them last, and of depthwise kernels the one filter a channel.
        order = (2, 3, 0, 1) if part.endswith("_depthwise") else (2, 3, 1, 0)
        kernel = tensors[weight].transpose(order) if tensors[weight].ndim == 4 else tensors[weight]
        for layer, values in ((f"{part}_conv", [kernel]), (f"{part}_bn", [tensors[name] for name in statistics])):
            expected = [tuple(variable.shape) for variable in network.get_layer(layer).weights]
            if [value.shape for value in values] != expected or not all(np.isfinite(value).all() for value in values):
                raise TrainingError(f"{path}: {convolution} and {normalisation} do not fit {layer}")
            network.get_layer(layer).set_weights(values)
        names -= {weight, *statistics}
    if names:
        raise TrainingError(f"{path}: has {min(names)} as well: of another network")
