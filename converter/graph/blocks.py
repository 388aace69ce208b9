"""First convolutions that take 2 x 2 blocks of grey pixels as four channels, which int8 convolutions are fast on.

Each takes a graph in the canonical form of ``converter.graph.edit.canonicalise``, does nothing where its pattern is not
there, and uses standard ONNX operators only. The same products are summed; those with zero weights are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from converter.graph.edit import NCHW_TO_NHWC, NHWC_TO_NCHW, Graph, add_channel_amounts, read_attributes
from converter.graph.fold import find_image_input
from server.models.contract import INPUT_NAME

ONE = [1, 1]


def gather_blocks(model: onnx.ModelProto) -> bool:
    """Rewrites a first convolution on grey pixels with stride 2 as one with stride 1 on blocks of 2 x 2 pixels.

    Known as space to depth. The 7 x 7 kernel of ResNet becomes one of 4 x 4 on four channels, a third of the products
    of the 7 x 7 on one channel padded to four. The constant channel of ``fold_input`` stays one channel, since no block
    lies across the border.

    The pattern: pixels [N, H, W, 1] with even H and W, perhaps the constant channel, a convolution with stride 2.

    Returns:
        Whether the pattern was there.
    """
    graph = Graph(model)
    cast = graph.follow(INPUT_NAME)
    turn = graph.follow(cast.output[0]) if cast is not None and cast.op_type == "Cast" else None
    taker = graph.follow(turn.output[0]) if turn is not None and turn.op_type == "Transpose" else None
    constant = taker if taker is not None and taker.op_type == "Pad" else None
    convolution = graph.follow(constant.output[0]) if constant is not None else taker
    if cast is None or turn is None or convolution is None or convolution.op_type != "Conv":
        return False
    name = convolution.name
    weights = graph.read_constant(convolution.input[1])
    _, height, width, channels = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    wanted = {"strides": [2, 2], "dilations": ONE, "group": 1}
    padding = None if weights is None else read_padding(convolution, weights.shape[2:])
    if (
        weights is None
        or padding is None
        or channels != 1
        or height % 2
        or width % 2
        or (constant is not None and constant.name != f"{name}_with_constant")
        or differs(convolution, wanted, {"strides": ONE, "dilations": ONE})
    ):
        return False
    before = [(amount + 1) // 2 for amount in padding[:2]]
    shift = [amount % 2 for amount in padding[:2]]  # the first block begins one pixel before the kernel
    reach = [side + more for side, more in zip(weights.shape[2:], shift, strict=True)]
    after = [(amount + side % 2) // 2 for amount, side in zip(padding[2:], reach, strict=True)]
    sides = [(side + 1) // 2 for side in reach]
    wide = np.zeros((*weights.shape[:2], 2 * sides[0], 2 * sides[1]))
    wide[:, :, shift[0] : reach[0], shift[1] : reach[1]] = weights
    in_blocks = arrange_in_blocks(wide[:, 0])
    nodes, taken = move_into_blocks(graph, name, cast.output[0], height, width)
    if constant is not None:
        # One channel for a block: its weight is the sum of those of the block's pixels. With zero weights for three
        # more there are eight channels.
        shift_weights = arrange_in_blocks(wide[:, 1])
        shift_weights[:, 0], shift_weights[:, 1:] = shift_weights.sum(axis=1), 0
        in_blocks = np.concatenate([in_blocks, shift_weights], axis=1)
        amounts = add_channel_amounts(graph, f"{name}_block_amounts", shift_weights.shape[1])
        nodes.append(helper.make_node("Pad", [taken, amounts, constant.input[2]], constant.output, name=constant.name))
        taken = constant.output[0]
    block_weights = graph.add_constant(f"{name}_block_weights", in_blocks.astype(np.float32))
    nodes.append(
        helper.make_node(
            "Conv",
            [taken, block_weights, *convolution.input[2:]],
            convolution.output,
            name=name,
            kernel_shape=sides,
            pads=[*before, *after],
        )
    )
    graph.replace([cast, turn, *([constant] if constant is not None else []), convolution], [cast, *nodes])
    graph.remove_unused()
    return True


def read_padding(node: onnx.NodeProto, kernel: Sequence[int]) -> list[int] | None:
    """What a convolution with stride 2 pads an even height and width with, as ``pads`` has it; None if unknown."""
    attributes = read_attributes(node)
    match attributes.get("auto_pad", b"NOTSET"):
        case b"NOTSET":
            return list(attributes.get("pads", 2 * [0, 0]))
        case b"VALID":
            return 2 * [0, 0]
        case b"SAME_UPPER":
            missing = [max(0, side - 2) for side in kernel]
            return [amount // 2 for amount in missing] + [(amount + 1) // 2 for amount in missing]
    return None


def arrange_in_blocks(weights: NDArray[Any]) -> NDArray[Any]:
    """Weights on single pixels [filters, 2 h, 2 w] as weights on blocks of 2 x 2 pixels [filters, 4, h, w]."""
    filters, height, width = weights.shape
    split = weights.reshape(filters, height // 2, 2, width // 2, 2)
    return split.transpose(0, 2, 4, 1, 3).reshape(filters, 4, height // 2, width // 2)


def move_into_blocks(graph: Graph, name: str, pixels: str, height: int, width: int) -> tuple[list[onnx.NodeProto], str]:
    """Nodes from pixels [N, height, width, 1] to blocks [N, 4, height / 2, width / 2], and the name of their output."""
    blocks = graph.add_constant(f"{name}_blocks", np.array([-1, height // 2, 2, width // 2, 2], np.int64))
    depth = graph.add_constant(f"{name}_depth", np.array([-1, height // 2, width // 2, 4], np.int64))
    steps = [f"{name}_{step}" for step in ("in_rows", "in_blocks", "in_depth", "in_channels")]
    return [
        helper.make_node("Reshape", [pixels, blocks], [steps[0]], name=steps[0]),
        helper.make_node("Transpose", [steps[0]], [steps[1]], name=steps[1], perm=(0, 1, 3, 2, 4)),
        helper.make_node("Reshape", [steps[1], depth], [steps[2]], name=steps[2]),
        helper.make_node("Transpose", [steps[2]], [steps[3]], name=steps[3], perm=NHWC_TO_NCHW),
    ], steps[3]


def split_phases(model: onnx.ModelProto) -> bool:
    """Rewrites a first convolution on grey pixels and its 2 x 2 pooling as four phases of half the resolution.

    Four sets of shifted weights give the four values of each pooling window as groups of channels, and pooling takes
    the largest of each group.

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
    convolving = {"strides": ONE, "dilations": ONE, "pads": 2 * [0, 0], "group": 1, "auto_pad": b"NOTSET"}
    pooling = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": 2 * [0, 0], "ceil_mode": 0, "dilations": ONE}
    if (
        channels != 1
        or height % 2
        or width % 2
        or differs(found.convolution, convolving, {"strides": ONE, "dilations": ONE})
        or differs(pool, pooling, {"strides": ONE, "dilations": ONE})
    ):
        return False
    blocks = [(side + 2) // 2 for side in kernel]  # half of the side that holds the kernel at all four shifts
    shifted = np.zeros((2, 2, filters, 2 * blocks[0], 2 * blocks[1]), np.float32)
    for down in range(2):
        for right in range(2):
            shifted[down, right, :, down : down + kernel[0], right : right + kernel[1]] = weights[:, 0]
    in_blocks = arrange_in_blocks(shifted.reshape(4 * filters, *shifted.shape[3:]))
    rows, columns = height // 2 - blocks[0] + 1, width // 2 - blocks[1] + 1

    name, pixels = found.convolution.name, found.path[0]
    steps = [f"{name}_phases_{number}" for number in range(6)]
    constant = graph.add_constant
    shapes = {
        "groups": [-1, rows * columns, 4, filters],
        "pooled": [-1, rows, columns, filters],
    }
    shape = {key: constant(f"{name}_{key}", np.array(value, np.int64)) for key, value in shapes.items()}
    phase_weights = constant(f"{name}_phase_weights", in_blocks)
    phase_bias = constant(f"{name}_phase_bias", np.tile(bias, 4))
    moves, in_channels = move_into_blocks(graph, name, pixels.output[0], height, width)

    def make(kind: str, number: int, *inputs: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [steps[number]], name=steps[number], **attributes)

    graph.replace(
        [*found.path, found.convolution, relu, pool],
        [
            pixels,
            *moves,
            make("Conv", 0, in_channels, phase_weights, phase_bias, kernel_shape=blocks),
            make("Relu", 1, steps[0]),
            make("Transpose", 2, steps[1], perm=NCHW_TO_NHWC),
            make("Reshape", 3, steps[2], shape["groups"]),
            make("Transpose", 4, steps[3], perm=NHWC_TO_NCHW),
            make("MaxPool", 5, steps[4], kernel_shape=(1, 4), strides=(1, 4)),
            helper.make_node("Transpose", [steps[5]], [f"{name}_largest"], name=f"{name}_largest", perm=NCHW_TO_NHWC),
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
