"""From a trained model to an ONNX graph that follows ``server.models.contract``: names, types, scaling in the graph."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from typing import Any

import onnx
import tensorflow as tf

from converter.errors import SourceError, describe
from converter.graph.edit import canonicalise
from converter.graph.fold import fold_input
from converter.graph.translate import translate
from converter.heads import check_activated_once, make_probabilities
from converter.source import SourceModel
from server.machine.memory import trim_memory
from server.models.contract import INPUT_NAME, OUTPUT_NAME

logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # what it says is told in our words
logging.getLogger("tensorflow").setLevel(logging.ERROR)  # how tf2onnx calls it is no news for users

REMEDY = (
    "try another --opset (18 to 21), or build the model with layers of Keras in place of the one that makes it, "
    "load the same weights, and convert that"
)


def export_model(source: SourceModel, *, channels: int, opset: int) -> onnx.ModelProto:
    """Exports a model that takes uint8 [N, height, width, channels] and gives float32 [N, classes].

    The graph is canonical (``converter.graph.edit``), with scaling folded into the first convolution where that is
    exact.

    Args:
        source: the trained model.
        channels: of the exported graph: the source's own, or 1 for a model of three that judges grey slices.
        opset: version of the ONNX operator set.

    Raises:
        SourceError: the model cannot be expressed in ONNX; the message names the operator and its layer; or
            it has the activation already that was asked for.
    """
    signature = tf.TensorSpec((None, source.height, source.width, channels), tf.uint8, name=INPUT_NAME)

    @tf.function(input_signature=[signature])  # type: ignore[untyped-decorator]
    def answer_bytes(image: Any) -> Any:
        pixels = tf.cast(image, tf.float32)
        if channels < source.channels:
            pixels = tf.concat([pixels] * source.channels, axis=3)
        answer = source.call(source.preprocess.add_to_graph(pixels, is_grey=channels < source.channels))
        return make_probabilities(answer, source.outputs, source.activation)

    try:
        # from_keras fails on a Sequential model of Keras 3 (tf2onnx 1.17), and from_function makes an input of each
        # tensor that layers hold beside their weights (the mean of a Normalization, of preprocess_input).
        model = translate(answer_bytes.get_concrete_function(), input_name=INPUT_NAME, opset=opset)
    except Exception as error:  # tf2onnx raises whatever its handlers do
        raise SourceError(f"tf2onnx cannot express the model at opset {opset}: {describe(error)}; {REMEDY}") from None
    check_operators(model)
    rename_output(model.graph, OUTPUT_NAME)
    try:
        plain = canonicalise(model)
        fold_input(plain)
    except Exception as error:  # ONNX Runtime and ONNX's inference of shapes raise whatever they find
        raise SourceError(f"ONNX Runtime cannot read the exported graph: {describe(error)}; {REMEDY}") from None
    check_activated_once(plain, source.activation)
    del model
    gc.collect()  # TensorFlow's and tf2onnx's graphs have circles, and hold the weights several times
    trim_memory()
    return plain


def check_operators(model: onnx.ModelProto) -> None:
    """Refuses what tf2onnx has left as it was in TensorFlow.

    Raises:
        SourceError: naming each operator, and the layer that it is of.
    """
    versions = {entry.domain: entry.version for entry in model.opset_import}
    unknown: dict[str, str] = {}
    for node in walk_nodes(model.graph):
        if not onnx.defs.has(node.op_type, versions.get(node.domain, 0), node.domain):
            # Named by scope, such as StatefulPartitionedCall/functional_1/dense_1/Gelu/Erfc.
            scopes = node.name.split("/")
            unknown.setdefault(node.op_type, "/".join(scopes[-3:-1]) or node.name)
    if unknown:
        named = ", ".join(f"{kind} (in {layer})" for kind, layer in unknown.items())
        raise SourceError(f"ONNX has no operator for {named}; {REMEDY}")


def walk_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of loops and branches included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from walk_nodes(attribute.g)


def rename_output(graph: Any, name: str) -> None:
    """Gives the graph's only output its name: tf2onnx derives one from the function."""
    old = graph.output[0].name
    for node in graph.node:
        node.output[:] = [name if output == old else output for output in node.output]
        node.input[:] = [name if input_ == old else input_ for input_ in node.input]
    graph.output[0].name = name
