"""The way through tf2onnx: no more copies of the weights than it takes, and no optimiser of it that stops it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

pytestmark = pytest.mark.tensorflow

IMAGES = np.random.RandomState(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)


@pytest.fixture
def function() -> Any:
    """A convolution and a mean, which tf2onnx can do something about."""
    import tensorflow as tf

    kernel = tf.Variable(np.random.RandomState(1).normal(size=(3, 3, 3, 4)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32, name="image")])  # type: ignore[untyped-decorator]
    def answer(image: Any) -> Any:
        return tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(image, kernel, 1, "SAME")), axis=[1, 2])

    found = answer.get_concrete_function()
    found.keep = kernel  # a function holds its variables only weakly
    return found


def translate(function: Any) -> onnx.ModelProto:
    from converter.graph.translate import translate

    return translate(function, input_name="image", opset=17)


def run(model: onnx.ModelProto) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": IMAGES})[0]


def test_weights_are_copied_twice_whatever_the_number_of_passes(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once as tf2onnx has read the graph, and once into the model. Messages of the passes between are kept for ever."""
    from tf2onnx.graph import Graph

    update, updated = Graph.update_proto, []
    monkeypatch.setattr(Graph, "update_proto", lambda graph, *rest: (updated.append(graph), update(graph, *rest)))

    model = translate(function)

    assert len(updated) == 2
    assert [node.op_type for node in model.graph.node].count("GlobalAveragePool") == 1  # the passes were made
    assert np.abs(run(model) - function(IMAGES)).max() < 1e-5


def test_optimiser_that_fails_is_left_out(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it has broken before it failed is not in the model."""
    import tf2onnx

    class Failing(tf2onnx.optimizer.IdentityOptimizer):  # type: ignore[misc]
        def optimize(self, graph: Any, iteration: int) -> Any:
            graph.remove_node(next(node.name for node in graph.get_nodes() if node.type == "Relu"))
            raise ValueError("as an optimiser does on a graph that its author has not thought of")

    monkeypatch.setitem(tf2onnx.optimizer._get_optimizers(), "einsum_optimizer", Failing)

    assert np.abs(run(translate(function)) - function(IMAGES)).max() < 1e-5
