"""A second look in fp32 where INT8 alone could decide otherwise: both networks in one file, as a cascade.

INT8 answers every image. Where its answer is so near to a threshold that its error could carry it to the other side,
the fp32 network of the same file answers in its place. So the labels are those of fp32 at nearly the speed of INT8, for
the price of a file that has the weights twice. Servers know nothing of it: the choice is part of the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from converter.graph.edit import Graph
from server.models.agreement import add_probabilities
from server.models.contract import OUTPUT_NAME, ModelSpec

COVERED = 0.95
"""Share of INT8's errors that fit into a band. Of the others only those change a label that begin beside it: few."""

NEAR, LEAST_NEAR = 0.5, 100
"""Log-odds from a threshold within which a slice is near, and how many of them are enough to say how large errors are
there."""

MOST_SHARE = 0.25
"""Of the images, in fp32: beyond that little speed is left."""

LEAST_PROBABILITY = 1e-6
"""What is below counts as this much in log-odds."""

PREFIX = "cascade/"
"""Of the names of all that is added."""

INNER = f"{PREFIX}exact/"
"""Of those of the fp32 network."""


@dataclass(frozen=True)
class Band:
    """Where INT8's answers are not taken."""

    parts: tuple[tuple[float, float], ...]
    """From and to which probability of the positive label: a part around each threshold."""

    share: float
    """Of the calibration slices: those that INT8 gives such a probability."""

    def slow_down(self, speed: float) -> float:
        """How many times faster than fp32 the cascade is on average, of an INT8 network that is ``speed`` times so."""
        return 1 / (1 / speed + self.share)


def choose_band(spec: ModelSpec, exact: NDArray[np.floating], fast: NDArray[np.floating]) -> Band | None:
    """Chooses the band that is as wide as INT8's errors.

    Those of slices near a threshold count: a probability near 0 or 1 hardly moves, and its log-odds move more. Where
    few slices are near, all count, by their log-odds.

    Args:
        spec: of the model.
        exact: probabilities [N, labels] that fp32 answers to the calibration slices.
        fast: the same of INT8.

    Returns:
        None where too many slices would be in it, and of more than two labels: with them, labels change at other
        places than at a threshold.
    """
    if len(spec.labels) != 2:
        return None
    before, after = (add_probabilities(each, [spec.positive_indices])[:, 0] for each in (exact, fast))
    middles = to_log_odds(np.array(list(dict.fromkeys((spec.threshold, 0.5)))))
    said = to_log_odds(after)
    is_near = (np.abs(said[:, np.newaxis] - middles) <= NEAR).any(axis=1)
    errors = np.abs(said - to_log_odds(before))
    margin = np.quantile(errors[is_near] if is_near.sum() >= LEAST_NEAR else errors, COVERED)
    bounds = 1 / (1 + np.exp(-np.stack([middles - margin, middles + margin], axis=1)))
    share = float(((after[:, np.newaxis] >= bounds[:, 0]) & (after[:, np.newaxis] <= bounds[:, 1])).any(axis=1).mean())
    return Band(tuple((float(low), float(high)) for low, high in bounds), share) if share <= MOST_SHARE else None


def to_log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The log-odds of probabilities, [N]; those of 0 and 1 are finite."""
    inside = np.clip(probabilities, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    odds: NDArray[np.float64] = np.log(inside / (1 - inside))
    return odds


def join(fast: onnx.ModelProto, exact: onnx.ModelProto, spec: ModelSpec, band: Band) -> onnx.ModelProto:
    """Puts the fp32 network behind the INT8 one, which it is asked after within the band.

    Args:
        fast: the INT8 variant, which is changed.
        exact: the fp32 graph with the same input, output and operator set.
        spec: of both, with two labels.
        band: of probabilities that ``exact`` decides.

    Returns:
        ``fast``, whose output is that of either network for each image of a batch. Where no image of a batch is in the
        band, the fp32 network does not run.
    """
    graph, proposed = Graph(fast), PREFIX + OUTPUT_NAME
    for node in graph.nodes:
        for names in (node.input, node.output):
            names[:] = [proposed if name == OUTPUT_NAME else name for name in names]

    def add(kind: str, name: str, *inputs: str, **attributes: object) -> str:
        name = PREFIX + name
        graph.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(name: str, value: object, dtype: type = np.float32) -> str:
        return graph.add_constant(PREFIX + name, np.array(value, dtype))

    positive = add("Gather", "positive", proposed, constant("label", spec.positive_indices, np.int64), axis=1)
    near = ""
    for number, (low, high) in enumerate(band.parts):
        above = add("GreaterOrEqual", f"above_{number}", positive, constant(f"low_{number}", low))
        below = add("LessOrEqual", f"below_{number}", positive, constant(f"high_{number}", high))
        is_near = add("And", f"near_{number}", above, below)
        near = add("Or", f"near_any_{number}", near, is_near) if near else is_near
    highest = add("ReduceMax", "nearest", add("Cast", "counted", near, to=TensorProto.FLOAT), keepdims=0)
    is_any = add("Cast", "asks", highest, to=TensorProto.BOOL)
    labels = [None, len(spec.labels)]
    nodes, constants = rename(exact, fast.graph.initializer)
    nodes.append(helper.make_node("Where", [near, INNER + OUTPUT_NAME, proposed], [PREFIX + "chosen"]))
    second = helper.make_graph(
        nodes, "exact", [], [helper.make_tensor_value_info(PREFIX + "chosen", TensorProto.FLOAT, labels)], constants
    )
    first = helper.make_graph(
        [helper.make_node("Identity", [proposed], [PREFIX + "kept"])],
        "fast",
        [],
        [helper.make_tensor_value_info(PREFIX + "kept", TensorProto.FLOAT, labels)],
    )
    graph.nodes.append(
        helper.make_node(
            "If", [is_any], [OUTPUT_NAME], name=PREFIX + "second_look", then_branch=second, else_branch=first
        )
    )
    return fast


def rename(
    model: onnx.ModelProto, shared: Sequence[onnx.TensorProto]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Copies of a graph's nodes and constants under names of their own, but for the graph's input.

    A constant that is among the ``shared`` ones of the graph around, such as a dense layer's weights, is taken of them.
    """
    known = {identify(item): item.name for item in shared}
    names = {item.name: item.name for item in model.graph.input}
    nodes, constants = [], []
    for item in model.graph.initializer:
        names[item.name] = known.get(identify(item), "")
        if not names[item.name]:
            constants.append(onnx.TensorProto())
            constants[-1].CopyFrom(item)
            constants[-1].name = names[item.name] = INNER + item.name
    for node in model.graph.node:
        nodes.append(onnx.NodeProto())
        nodes[-1].CopyFrom(node)
        nodes[-1].name = INNER + (node.name or node.output[0])
        for own in (nodes[-1].input, nodes[-1].output):
            own[:] = [names.get(name, INNER + name) if name else "" for name in own]
    return nodes, constants


def identify(constant: onnx.TensorProto) -> tuple[int, tuple[int, ...], bytes]:
    """What two constants have in common that are the same: type, shape and values."""
    return constant.data_type, tuple(constant.dims), numpy_helper.to_array(constant).tobytes()
