"""From a trained model to an ONNX graph that follows ``server.models.contract``: names, types, scaling in the graph."""

from __future__ import annotations

import logging
from typing import Any

import onnx
import tensorflow as tf
import tf2onnx
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from converter.config import INPUT_RANGES
from converter.errors import SourceError, describe
from converter.graph.edit import canonicalise
from converter.graph.fold import fold_input
from converter.source import SourceModel
from server.models.contract import INPUT_NAME, OUTPUT_NAME

logging.getLogger("tf2onnx").setLevel(logging.WARNING)


def export_model(source: SourceModel, *, channels: int, input_range: str, opset: int) -> onnx.ModelProto:
    """Exports a model that takes uint8 [N, height, width, channels] and gives float32 [N, classes].

    The graph is canonical (``converter.graph.edit``), with scaling folded into the first convolution where that is
    exact.

    Args:
        source: the trained model.
        channels: of the exported graph: the source's own, or 1 for a model of three that judges grey slices.
        input_range: pixel values that the source takes, a key of ``INPUT_RANGES``.
        opset: version of the ONNX operator set.

    Raises:
        SourceError: tf2onnx cannot express the model.
    """
    signature = tf.TensorSpec((None, source.height, source.width, channels), tf.uint8, name=INPUT_NAME)
    divisor = INPUT_RANGES[input_range]

    @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
    def answer(image: Any) -> Any:
        pixels = tf.cast(image, tf.float32)
        if channels < source.channels:
            pixels = tf.concat([pixels] * source.channels, axis=3)
        return to_probabilities(source.call(pixels if divisor == 1 else pixels / divisor), source.outputs)

    try:
        # from_keras fails on a Sequential model of Keras 3 (tf2onnx 1.17), and from_function makes an input of each
        # tensor that layers hold beside their weights (the mean of a Normalization, of preprocess_input).
        frozen = convert_variables_to_constants_v2(
            answer.get_concrete_function(), lower_control_flow=False, aggressive_inlining=True
        )
        model, _ = tf2onnx.convert.from_graph_def(
            frozen.graph.as_graph_def(add_shapes=True),
            input_names=[f"{INPUT_NAME}:0"],
            output_names=[tensor.name for tensor in frozen.outputs],
            tensors_to_rename={f"{INPUT_NAME}:0": INPUT_NAME},
            opset=opset,
        )
    except Exception as error:  # tf2onnx raises whatever its handlers do
        raise SourceError(f"tf2onnx cannot express the model at opset {opset}: {describe(error)}") from None
    rename_output(model.graph, OUTPUT_NAME)
    plain = canonicalise(model)
    fold_input(plain)
    return plain


def to_probabilities(answer: Any, outputs: int) -> Any:
    """One sigmoid becomes two probabilities: it is that of the second class, as Keras counts them."""
    return tf.concat([1.0 - answer, answer], axis=1) if outputs == 1 else answer


def rename_output(graph: Any, name: str) -> None:
    """Gives the graph's only output its name: tf2onnx derives one from the function."""
    old = graph.output[0].name
    for node in graph.node:
        node.output[:] = [name if output == old else output for output in node.output]
        node.input[:] = [name if input_ == old else input_ for input_ in node.input]
    graph.output[0].name = name
