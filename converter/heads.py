"""The end of a trained model: what it answers, and how that becomes one probability a class.

Each rule is written twice, for the graph and for NumPy, so that the proof of parity compares the exported head with
one that no exporter has touched.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from numpy.typing import NDArray

from converter.errors import SourceError
from converter.graph.edit import Graph

ACTIVATIONS = {"softmax": "Softmax", "sigmoid": "Sigmoid"}
"""What turns logits into probabilities → its operator in ONNX."""


def check_head(outputs: int, activation: str | None) -> None:
    """Refuses an activation that does not fit the number of outputs.

    Raises:
        SourceError: saying which one does.
    """
    if activation == "softmax" and outputs == 1:
        raise SourceError(
            "--activation softmax: the model has one output, of which a softmax is always 1: --activation sigmoid"
        )
    if activation == "sigmoid" and outputs > 1:
        raise SourceError(
            f"--activation sigmoid: the model has {outputs} outputs, which as independent sigmoids do not sum to 1, as "
            "the probabilities of classes that exclude each other must: --activation softmax if it was trained with "
            "categorical cross-entropy on logits, otherwise train it again with a softmax"
        )


def make_probabilities(answer: Any, outputs: int, activation: str | None) -> Any:
    """The head in TensorFlow. One output is the probability of the second class, as Keras counts them."""
    if activation == "softmax":
        return tf.nn.softmax(answer)
    if activation == "sigmoid":
        answer = tf.nn.sigmoid(answer)
    return tf.concat([1.0 - answer, answer], axis=1) if outputs == 1 else answer


def expect_probabilities(answer: NDArray[np.float32], activation: str | None) -> NDArray[np.float32]:
    """The same in NumPy, in double precision."""
    wide = answer.astype(np.float64)
    if activation == "softmax":
        powers = np.exp(wide - wide.max(axis=1, keepdims=True))
        wide = powers / powers.sum(axis=1, keepdims=True)
    if activation == "sigmoid":
        wide = (1 + np.tanh(wide / 2)) / 2  # which does not overflow
    if wide.shape[1] == 1:
        wide = np.concatenate([1 - wide, wide], axis=1)
    return wide.astype(np.float32)


def check_activated_once(model: onnx.ModelProto, activation: str | None) -> None:
    """Refuses an activation behind one that the model has itself: it would squeeze all answers towards the middle.

    Args:
        model: the exported graph, canonical.
        activation: what was asked for.

    Raises:
        SourceError: it has one.
    """
    if activation is None:
        return
    graph = Graph(model)
    for node in [node for node in graph.nodes if node.op_type == ACTIVATIONS[activation]]:
        maker = graph.find_maker(node.input[0])
        while maker is not None and maker.op_type in ("Identity", "Reshape", "Squeeze", "Cast"):
            maker = graph.find_maker(maker.input[0])
        if maker is not None and maker.op_type in ACTIVATIONS.values():
            raise SourceError(
                f"--activation {activation}: the model ends with a {maker.op_type.lower()} already, so its answers are "
                "probabilities; leave --activation out"
            )


def describe_head(outputs: int, activation: str | None, labels: tuple[str, ...]) -> str:
    """What the report says of the end of the model, polarity included."""
    if outputs == 1:
        kind = "sigmoid of the one output" if activation else "one output"
        return (
            f"{kind}: it is taken for the probability of {labels[1]}, and 1 minus it for that of {labels[0]}; if the "
            f"model was trained the other way round, --labels {labels[1]},{labels[0]}"
        )
    return f"{activation or 'probabilities'} of {outputs} outputs, in the order of the labels"
