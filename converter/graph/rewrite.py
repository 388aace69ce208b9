"""Rewrites that make a graph fast in integers and answer the same.

Each takes a graph in the canonical form of ``converter.graph.edit.canonicalise``, does nothing where its pattern is not
there, and uses standard ONNX operators only, so that any runtime reads the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from converter.graph.edit import NCHW_TO_NHWC, NHWC_TO_NCHW, Graph, add_channel_amounts, read_attributes
from converter.graph.fold import find_image_input

VECTOR_CHANNELS = 4
"""Channels that the int8 convolutions of MLAS take at a time: with fewer they fall back to a path several times slower
(measured: the first convolution of the CNN takes 4.5 ms of 9 with one or three channels, 0.6 ms with four)."""


def merge_pool_padding(model: onnx.ModelProto) -> bool:
    """Moves zero padding between ReLU and a maximum into the maximum.

    The same, because nothing is below zero there, and no window lies in the border alone.

    Returns:
        Whether there was any.
    """
    graph = Graph(model)
    is_changed = False
    for pad in [node for node in graph.nodes if node.op_type == "Pad"]:
        relu, pool = graph.find_maker(pad.input[0]), graph.follow(pad.output[0])
        amounts = graph.read_constant(pad.input[1]) if len(pad.input) > 1 else None
        value = graph.read_constant(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
        if relu is None or relu.op_type != "Relu" or pool is None or pool.op_type != "MaxPool" or amounts is None:
            continue
        attributes = read_attributes(pool)
        border = [*amounts[2:4], *amounts[6:8]]
        if (
            len(amounts) != 8
            or amounts[[0, 1, 4, 5]].any()
            or value is None
            or value.any()
            or read_attributes(pad).get("mode", b"constant") != b"constant"
            or any(attributes.get("pads", ()))
            or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
            or not 0 <= min(border) <= max(border) < min(attributes["kernel_shape"])
        ):
            continue
        for name in ("pads", "auto_pad"):
            for attribute in [item for item in pool.attribute if item.name == name]:
                pool.attribute.remove(attribute)
        pool.attribute.append(helper.make_attribute("pads", [int(amount) for amount in border]))
        pool.input[0] = pad.input[0]
        is_changed = True
    graph.remove_unused()
    return is_changed


def split_phases(model: onnx.ModelProto) -> bool:
    """Rewrites a first convolution on grey pixels and its 2 x 2 pooling as four phases of half the resolution.

    Pixels that are neighbours in a 2 x 2 block become four channels, which is what int8 convolutions are fast on. Four
    sets of shifted weights give the four values of each pooling window as groups of channels, and pooling takes the
    largest of each group. The same products are summed; those with zero weights are added.

    The pattern: pixels [N, H, W, 1] with even H and W, an unpadded convolution with stride 1 (as ``fold_input`` leaves
    it), ReLU, and an unpadded maximum over 2 x 2.

    Returns:
        Whether the pattern was there.
    """
    graph = Graph(model)
    found = find_image_input(graph)
    if found is None or [node.op_type for node in found.path] != ["Cast", "Transpose"]:
        return False
    relu = graph.follow(found.convolution.output[0])
    pool = graph.follow(relu.output[0]) if relu is not None and relu.op_type == "Relu" else None
    weights, bias = (graph.read_constant(name) for name in found.convolution.input[1:3])
    if pool is None or pool.op_type != "MaxPool" or weights is None or bias is None:
        return False
    _, height, width, _ = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    filters, channels, *kernel = weights.shape
    one = [1, 1]
    convolving = {"strides": one, "dilations": one, "pads": 2 * [0, 0], "group": 1, "auto_pad": b"NOTSET"}
    pooling = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": 2 * [0, 0], "ceil_mode": 0, "dilations": one}
    if (
        channels != 1
        or height % 2
        or width % 2
        or differs(found.convolution, convolving, {"strides": one, "dilations": one})
        or differs(pool, pooling, {"strides": one, "dilations": one})
    ):
        return False
    blocks = [(side + 2) // 2 for side in kernel]  # half of the side that holds the kernel at all four shifts
    shifted = np.zeros((2, 2, filters, 2 * blocks[0], 2 * blocks[1]), np.float32)
    for down in range(2):
        for right in range(2):
            shifted[down, right, :, down : down + kernel[0], right : right + kernel[1]] = weights[:, 0]
    in_blocks = shifted.reshape(4 * filters, blocks[0], 2, blocks[1], 2).transpose(0, 2, 4, 1, 3)
    rows, columns = height // 2 - blocks[0] + 1, width // 2 - blocks[1] + 1

    name, pixels = found.convolution.name, found.path[0]
    steps = [f"{name}_phases_{number}" for number in range(10)]
    constant = graph.add_constant
    shapes = {
        "blocks": [-1, height // 2, 2, width // 2, 2],
        "depth": [-1, height // 2, width // 2, 4],
        "groups": [-1, rows * columns, 4, filters],
        "pooled": [-1, rows, columns, filters],
    }
    shape = {key: constant(f"{name}_{key}", np.array(value, np.int64)) for key, value in shapes.items()}
    phase_weights = constant(f"{name}_phase_weights", in_blocks.reshape(4 * filters, 4, *blocks))
    phase_bias = constant(f"{name}_phase_bias", np.tile(bias, 4))

    def make(kind: str, number: int, *inputs: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [steps[number]], name=steps[number], **attributes)

    graph.replace(
        [*found.path, found.convolution, relu, pool],
        [
            pixels,
            make("Reshape", 0, pixels.output[0], shape["blocks"]),
            make("Transpose", 1, steps[0], perm=(0, 1, 3, 2, 4)),
            make("Reshape", 2, steps[1], shape["depth"]),
            make("Transpose", 3, steps[2], perm=NHWC_TO_NCHW),
            make("Conv", 4, steps[3], phase_weights, phase_bias, kernel_shape=blocks),
            make("Relu", 5, steps[4]),
            make("Transpose", 6, steps[5], perm=NCHW_TO_NHWC),
            make("Reshape", 7, steps[6], shape["groups"]),
            make("Transpose", 8, steps[7], perm=NHWC_TO_NCHW),
            make("MaxPool", 9, steps[8], kernel_shape=(1, 4), strides=(1, 4)),
            helper.make_node("Transpose", [steps[9]], [f"{name}_largest"], name=f"{name}_largest", perm=NCHW_TO_NHWC),
            helper.make_node(
                "Reshape", [f"{name}_largest", shape["pooled"]], [f"{name}_pooled_rows"], name=f"{name}_pooled_rows"
            ),
            helper.make_node("Transpose", [f"{name}_pooled_rows"], pool.output, name=pool.name, perm=NHWC_TO_NCHW),
        ],
    )
    graph.remove_unused()
    return True


def differs(node: onnx.NodeProto, wanted: dict[str, Any], defaults: dict[str, Any]) -> bool:
    """Whether an attribute has another value than wanted; what is not given has its default, or is as wanted."""
    given = read_attributes(node)
    return any(given.get(key, defaults.get(key, value)) != value for key, value in wanted.items())


def pad_channels(model: onnx.ModelProto) -> bool:
    """Gives convolutions of fewer than four input channels zero channels with zero weights up to four.

    Returns:
        Whether there was such a convolution.
    """
    graph = Graph(model)
    is_changed = False
    for node in [node for node in graph.nodes if node.op_type == "Conv"]:
        weights = graph.read_constant(node.input[1])
        if weights is None or read_attributes(node).get("group", 1) != 1 or weights.shape[1] >= VECTOR_CHANNELS:
            continue
        missing = VECTOR_CHANNELS - weights.shape[1]
        maker = graph.find_maker(node.input[0])
        if maker is not None and maker.name == f"{node.name}_with_constant":
            # The constant channel of `fold_input`: with zero weights, more of the same do no harm, and cost one step.
            maker.input[1] = add_channel_amounts(graph, f"{node.name}_pad_amounts", missing + 1)
        else:
            padded = f"{node.name}_padded"
            amounts = add_channel_amounts(graph, f"{node.name}_pad_amounts", missing)
            pad = helper.make_node("Pad", [node.input[0], amounts], [padded], name=padded)
            node.input[0] = padded
            graph.nodes.insert(list(graph.nodes).index(node), pad)
        node.input[1] = graph.add_constant(
            f"{node.name}_padded_weights", np.pad(weights, ((0, 0), (0, missing), (0, 0), (0, 0)))
        )
        is_changed = True
    graph.remove_unused()
    return is_changed
