"""From a TensorFlow function to an ONNX graph, by tf2onnx, with no more copies of the weights than it takes.

The steps of ``tf2onnx.convert.from_graph_def``, which keeps two copies of all weights for each of its two dozen passes
over the graph (measured: 6 GB for the 94 MB of ResNet-50).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from tensorflow.python.framework import convert_to_constants
from tf2onnx.handler import tf_op

from server.machine.memory import trim_memory


def translate(function: Any, *, input_name: str, opset: int) -> onnx.ModelProto:
    """Returns the ONNX graph of a function of one tensor, weights inside.

    Args:
        function: a concrete function whose argument has that name.
        input_name: of the argument, and of the graph's input.
        opset: version of the ONNX operator set.

    Raises:
        Exception: tf2onnx raises whatever its handlers do.
    """
    taken, given = f"{input_name}:0", [tensor.name for tensor in function.outputs]
    frozen = freeze(function)
    with tf.Graph().as_default():
        frozen = tf2onnx.tf_loader.tf_optimize([taken], given, frozen)
    trim_memory()  # of the copies of the weights that this makes, the C library keeps seven (700 MB of ResNet-50)

    def read_graph() -> Any:
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(frozen, name="")
            return tf2onnx.tfonnx.process_tf_graph(
                graph,
                continue_on_error=True,
                opset=opset,
                input_names=[taken],
                output_names=given,
                tensors_to_rename={taken: input_name},
            )

    try:
        graph = simplify(read_graph())
    except Exception:  # of one optimiser: tf2onnx goes on without it, at the price of a copy of the graph for each
        graph = tf2onnx.optimizer.optimize_graph(read_graph(), catch_errors=True)
    return graph.make_model("")


def freeze(function: Any) -> Any:
    """The graph definition of a concrete function with constants in place of its variables, calls inlined.

    What ``convert_variables_to_constants_v2`` makes before it makes a function of that again, which takes seconds and
    three more copies of the weights.
    """
    variables = convert_to_constants._FunctionConverterDataInEager(
        func=function, lower_control_flow=False, aggressive_inlining=True
    )
    definition, _ = convert_to_constants._replace_variables_by_constants(converter_data=variables)
    return definition


def simplify(graph: Any) -> Any:
    """Runs the optimisers of tf2onnx over its own form of a graph.

    After each of them tf2onnx would copy all attributes, weights among them, into messages whose memory is not freed
    before the whole graph is. Nothing reads these before the model is made, which copies them once more.
    """
    graph.update_proto = lambda *_: None
    try:
        return tf2onnx.optimizer.optimize_graph(graph, catch_errors=False)
    finally:
        del graph.update_proto


@tf_op("Erfc")
class ComplementaryError:
    """What GELU is made of, as 1 - erf: tf2onnx knows only Erf."""

    @classmethod
    def version_9(cls, context: Any, node: Any, **_: Any) -> None:
        """From the operator set on that has Erf."""
        kind = tf2onnx.utils.map_onnx_to_numpy_type(context.get_dtype(node.output[0]))
        shape, name = context.get_shape(node.output[0]), node.name
        error = context.make_node("Erf", node.input, shapes=[shape], dtypes=[context.get_dtype(node.output[0])])
        one = context.make_const(tf2onnx.utils.make_name(f"{name}_one"), np.array(1, kind))
        outputs, dtypes = node.output, [context.get_dtype(node.output[0])]
        context.remove_node(name)
        context.make_node("Sub", [one.output[0], error.output[0]], outputs=outputs, shapes=[shape], dtypes=dtypes)
