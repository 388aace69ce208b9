"""How much of the error each quantised tensor brings, measured on one graph in which each can be switched on alone.

A variant a layer would have to be made, optimised and loaded as often; here one session of the fp32 graph has beside
each tensor its quantised form, and a boolean input that chooses. Errors of different tensors are hardly related, so
their squares add up, and what remains when some stay fp32 is the sum of the others.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization.calibrate import TensorsData

from converter.graph.edit import Graph
from converter.int8.ranges import LEVELS
from converter.int8.region import Region
from converter.int8.watch import Watch
from server.machine.processors import count_processors
from server.models.contract import INPUT_NAME, OUTPUT_NAME

SMALLEST = 1e-7
"""Of a probability, before its logarithm is taken."""

SHARE_OF_TIME = 1 / 3
"""Of what is left: what this may take."""


def measure_sensitivity(
    model: onnx.ModelProto,
    rounded: onnx.ModelProto,
    region: Region,
    ranges: TensorsData,
    pixels: NDArray[np.uint8],
    watch: Watch,
) -> dict[str, float]:
    """Returns the mean squared change of the answer's logarithms that each tensor brings, when it is quantised.

    The weights that it is multiplied by are quantised with it.

    Args:
        model: the float graph.
        rounded: the same with rounded weights.
        region: of ``model``.
        ranges: of its activations.
        pixels: slices to measure on, uint8 [N, height, width, channels]; as many as time allows, one at least.
        watch: is told how far it is.

    Raises:
        TimeIsUp: before the first slice was through.
    """
    tensors = [name for name in region.list_tensors() if name in ranges]
    switchable, switches = add_switches(model, rounded, tensors, ranges)
    data = switchable.SerializeToString()
    del switchable, rounded  # a session takes several times their memory while it is made
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count_processors()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    del data

    def answer(image: NDArray[np.uint8], switched: str | None) -> NDArray[np.float64]:
        feeds = {switch: np.array(tensor == switched) for tensor, switch in switches.items()}
        (probabilities,) = session.run([OUTPUT_NAME], {INPUT_NAME: image[np.newaxis], **feeds})
        logarithms: NDArray[np.float64] = np.log(np.maximum(probabilities[0].astype(np.float64), SMALLEST))
        return logarithms

    until = watch.left * (1 - SHARE_OF_TIME)
    errors: dict[str, list[float]] = {tensor: [] for tensor in tensors}
    pairs = [(image, tensor) for image in pixels for tensor in (None, *tensors)]
    plain = np.zeros(0)
    for image, tensor in watch.track(pairs, len(pairs), "measuring what each layer costs in accuracy"):
        if tensor is None:
            if watch.left < until and any(errors.values()):
                break
            plain = answer(image, None)
        else:
            change = answer(image, tensor) - plain
            errors[tensor].append(float(((change - change.mean()) ** 2).mean()))
    return {tensor: float(np.mean(found)) for tensor, found in errors.items()}


def add_switches(
    model: onnx.ModelProto, rounded: onnx.ModelProto, tensors: Sequence[str], ranges: TensorsData
) -> tuple[onnx.ModelProto, Mapping[str, str]]:
    """Returns the graph with switches, and the name of each tensor's switch."""
    switchable = copy.deepcopy(model)
    graph, stepped = Graph(switchable), Graph(rounded)
    rounded_inputs = {node.name: node.input[1:] for node in stepped.nodes if node.op_type == "Conv"}
    switches = {tensor: f"switch_{number}" for number, tensor in enumerate(tensors)}
    nodes = {tensor: make_switch(graph, tensor, switch, ranges) for tensor, switch in switches.items()}
    ordered: list[onnx.NodeProto] = []
    for node in graph.nodes:
        if node.op_type == "Conv" and node.input[0] in switches:
            for place, other in enumerate(rounded_inputs[node.name], 1):
                if other in node.input:
                    continue
                value = stepped.read_constant(other)
                assert value is not None  # only constants are rounded
                if place == len(node.input):  # rounding has given it a bias
                    node.input.append(graph.add_constant(f"{other}_none", np.zeros_like(value)))
                chosen = f"{other}_chosen"
                pair = [graph.add_constant(f"{other}_other", value), node.input[place]]
                ordered.append(helper.make_node("Where", [switches[node.input[0]], *pair], [chosen]))
                node.input[place] = chosen
        node.input[:] = [f"{name}_switched" if name in switches else name for name in node.input]
        ordered.append(node)
        for name in node.output:
            ordered += nodes.get(name, [])
    del switchable.graph.node[:]
    switchable.graph.node.extend(ordered)
    for switch in switches.values():
        switchable.graph.input.append(helper.make_tensor_value_info(switch, TensorProto.BOOL, []))
    return switchable, switches


def make_switch(graph: Graph, tensor: str, switch: str, ranges: TensorsData) -> list[onnx.NodeProto]:
    """The nodes that make ``{tensor}_switched`` of a tensor: quantised where the switch is on."""
    low, high = (float(value) for value in ranges[tensor].range_value)
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / LEVELS or 1.0
    scale = graph.add_constant(f"{switch}_scale", np.array(step, np.float32))
    zero = graph.add_constant(f"{switch}_zero", np.array(round(-low / step), np.uint8))
    whole, back = f"{switch}_whole", f"{switch}_back"
    return [
        helper.make_node("QuantizeLinear", [tensor, scale, zero], [whole]),
        helper.make_node("DequantizeLinear", [whole, scale, zero], [back]),
        helper.make_node("Where", [switch, back, tensor], [f"{tensor}_switched"]),
    ]
