"""Trained models in float32, whatever they were trained in.

Half precision saves memory on the processor that trains. What serves computes in float32, and so must what it is
compared with: rounded to 11 bits, a probability is off by more than any bound of the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

OTHER_PRECISIONS = ("float16", "bfloat16", "float64")
OTHER_TYPES = {tf.as_dtype(name).as_datatype_enum for name in OTHER_PRECISIONS}


def call_in_float32(model: Any) -> Callable[[Any], Any]:
    """What a model answers in inference, computed in float32; its weights keep their values.

    Args:
        model: of Keras 3 or Keras 2 (``tf_keras``); its layers are changed.
    """
    if any(tf.as_dtype(weight.dtype).name in OTHER_PRECISIONS for weight in model.weights):
        signature = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
        traced = tf.function(lambda images: model(images, training=False), input_signature=[signature])
        wide = widen_signature(traced.get_concrete_function())
        if wide is not None:
            return lambda images: wide(images)[0]
    use_float32(model)
    return lambda images: model(images, training=False)


def use_float32(model: Any) -> None:
    """Gives the layers of a model, and the casts written out between them, the policy float32, in place."""
    for layer in model._flatten_layers():
        if getattr(layer, "compute_dtype", None) in OTHER_PRECISIONS and not is_quantised(layer):
            if hasattr(layer, "_set_dtype_policy"):  # Keras 2
                layer._set_dtype_policy("float32")
            else:
                layer.dtype_policy = "float32"
        for operation in getattr(layer, "operations", ()):
            if type(operation).__name__ == "Cast" and operation.dtype in OTHER_PRECISIONS:
                operation.dtype = "float32"


def is_quantised(layer: Any) -> bool:
    """Whether a layer has weights of 8 or fewer bits, which are more than a policy."""
    return getattr(layer.dtype_policy, "quantization_mode", None) is not None


def widen_signature(function: Any) -> Any | None:
    """The signature of a SavedModel in float32, as a function of one tensor that gives a list; None where it is so.

    Args:
        function: a concrete function of one input.
    """
    if not any(find_types(function.graph.as_graph_def())):
        return None
    frozen = convert_variables_to_constants_v2(function)
    graph = frozen.graph.as_graph_def()
    for types, index in find_types(graph):
        if isinstance(index, int):
            types[index] = tf.float32.as_datatype_enum
        elif index == "tensor":
            wide = tf.make_ndarray(types.tensor).astype(np.float32)
            types.tensor.CopyFrom(tf.make_tensor_proto(wide))
        else:
            setattr(types, index, tf.float32.as_datatype_enum)
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    return wrapped.prune([item.name for item in frozen.inputs], [item.name for item in frozen.outputs])


def find_types(graph: Any) -> Iterator[tuple[Any, int | str]]:
    """Where a graph definition says that something is of another precision: an object, and the field or place in it."""
    nodes = chain(graph.node, *(function.node_def for function in graph.library.function))
    for attribute in chain.from_iterable(node.attr.values() for node in nodes):
        if attribute.HasField("type") and attribute.type in OTHER_TYPES:
            yield attribute, "type"
        if attribute.HasField("tensor") and attribute.tensor.dtype in OTHER_TYPES:
            yield attribute, "tensor"
        yield from (
            (attribute.list.type, place) for place, kind in enumerate(attribute.list.type) if kind in OTHER_TYPES
        )
    for function in graph.library.function:
        for argument in chain(function.signature.input_arg, function.signature.output_arg):
            if argument.type in OTHER_TYPES:
                yield argument, "type"
