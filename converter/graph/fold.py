"""What happens to pixels before the first convolution, moved into its weights.

Works on graphs in the canonical form of ``converter.graph.edit.canonicalise``, does nothing where its pattern is not
there, and uses standard ONNX operators only, so that any runtime reads the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from converter.graph.edit import NHWC_TO_NCHW, Graph, add_channel_amounts, read_attributes
from server.models.contract import INPUT_NAME

BRIGHTEST = 255
"""Value of the constant channel: that of the brightest pixel, so that it shares the pixels' scale when quantised."""


@dataclass(frozen=True)
class ImageInput:
    """The way from the graph's input to its first convolution: cast, order and scale of channels, channels first."""

    path: list[onnx.NodeProto]
    """Nodes from the input up to, and without, the convolution."""

    convolution: onnx.NodeProto
    copies: int
    """How many times a grey channel is repeated on the way; 1 for none."""

    scale: NDArray[np.float32]
    """Per channel of the convolution, or one for all: what a pixel value is multiplied by, in all."""

    shift: NDArray[np.float32]
    """The same for what is then added."""

    order: NDArray[np.int64]
    """Per channel of the convolution, the channel of the pixels that it takes."""


def find_image_input(graph: Graph) -> ImageInput | None:
    """Reads the way to the first convolution, or returns None where it holds anything else."""
    path: list[onnx.NodeProto] = []
    scale, shift = np.ones(1, np.float32), np.zeros(1, np.float32)
    copies, is_channels_first = 1, False
    tensor = INPUT_NAME
    order = np.arange(read_channels(graph))
    while True:
        if not is_channels_first and (turned := find_reordering(graph, tensor, len(order))) is not None:
            nodes, channels = turned
            path += nodes
            tensor = nodes[-1].output[0]
            order = order[channels]
            scale, shift = (part if part.size == 1 else part[channels] for part in (scale, shift))
            continue
        if (node := graph.follow(tensor)) is None:
            return None
        constants = [graph.read_constant(name) for name in node.input]
        constant = next((value for value in constants if value is not None), None)
        match node.op_type:
            case "Conv" if is_channels_first:
                return ImageInput(path, node, copies, scale, shift, order)
            case "Cast":
                pass
            case "Concat" if set(node.input) == {tensor} and copies == 1 and not is_channels_first:
                copies = len(node.input)
                order = np.arange(copies * len(order))
            case "Transpose" if tuple(read_attributes(node)["perm"]) == NHWC_TO_NCHW and not is_channels_first:
                is_channels_first = True
            case "Reshape" if not is_channels_first and copies == 1 and moves_one_channel(graph, node):
                is_channels_first = True
            case "Mul" | "Div" | "Add" | "Sub" if constant is not None and not is_channels_first:
                if constants[0] is not None and node.op_type in ("Div", "Sub"):
                    return None
                if constant.size != 1 and constant.shape[-1] != constant.size:
                    return None
                value = constant.astype(np.float32).reshape(-1)
                match node.op_type:
                    case "Mul":
                        scale, shift = scale * value, shift * value
                    case "Div":
                        scale, shift = scale / value, shift / value
                    case "Add":
                        shift = shift + value
                    case "Sub":
                        shift = shift - value
            case _:
                return None
        path.append(node)
        tensor = node.output[0]


def read_channels(graph: Graph) -> int:
    """Channels of the graph's input."""
    return int(graph.model.graph.input[0].type.tensor_type.shape.dim[3].dim_value)


def find_reordering(graph: Graph, tensor: str, count: int) -> tuple[list[onnx.NodeProto], NDArray[np.int64]] | None:
    """Nodes that put the channels of [N, H, W, C] into another order, and that order; the last node makes the result.

    It is written as Gather, or as Keras's ``preprocess_input`` does, which takes each channel alone and joins them.
    """
    takers = graph.find_takers(tensor)
    if len(takers) == 1 and takers[0].op_type == "Gather" and read_attributes(takers[0]).get("axis") in (3, -1):
        indices = graph.read_constant(takers[0].input[1])
        channels = np.zeros(0) if indices is None else indices.reshape(-1)
    elif takers and all(node.op_type == "Slice" for node in takers):
        slices = {node.output[0]: [graph.read_constant(name) for name in node.input[1:]] for node in takers}
        joins = {node.name: node for output in slices for node in graph.find_takers(output)}
        join = next(iter(joins.values()), None)
        if len(joins) != 1 or join is None or join.op_type != "Concat" or read_attributes(join)["axis"] not in (3, -1):
            return None
        parts = [slices[name] for name in join.input if name in slices]
        if any(part is None or part.size != 1 for taken in parts for part in taken):
            return None
        numbers = [[int(part.item()) for part in taken if part is not None] for taken in parts]
        if any(end != start + 1 or axis not in (3, -1) for start, end, axis, *_ in numbers):
            return None
        takers = [*takers, join]
        channels = np.array([start for start, *_ in numbers])
    else:
        return None
    return (takers, channels.astype(np.int64)) if sorted(channels) == list(range(count)) else None


def moves_one_channel(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a Reshape brings [N, H, W, 1] into [N, 1, H, W], which for one channel is what Transpose does."""
    shape = graph.read_constant(node.input[1])
    _, height, width, _ = (dim.dim_value for dim in graph.model.graph.input[0].type.tensor_type.shape.dim)
    return read_channels(graph) == 1 and shape is not None and tuple(shape[1:]) == (1, height, width)


def fold_input(model: onnx.ModelProto) -> bool:
    """Moves scaling, shifting and the repetition of a grey channel into the first convolution's weights.

    Exact for grey images, where R = G = B: the sum over equal channels is the channel times the sum of the weights. At
    a padded border, zeros stand for what is not in the image, shift included; so there the shift becomes the weight of
    one more channel, which is constant in the image and padded like it.

    Returns:
        Whether anything was moved; then the convolution takes the pixels as they are.
    """
    graph = Graph(model)
    found = find_image_input(graph)
    if found is None:
        return False
    attributes = read_attributes(found.convolution)
    weights = graph.read_constant(found.convolution.input[1])
    is_padded = any(attributes.get("pads", ())) or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    if weights is None or attributes.get("group", 1) != 1:
        return False
    # In double precision, so that folding adds no rounding of its own.
    wide = weights.astype(np.float64)
    channels = wide.shape[1]
    scale, shift = (np.broadcast_to(part.astype(np.float64), channels) for part in (found.scale, found.shift))
    has_bias = len(found.convolution.input) > 2
    bias = graph.read_constant(found.convolution.input[2]) if has_bias else np.zeros(wide.shape[0])
    if bias is None:
        return False
    folded = np.empty_like(wide)
    folded[:, found.order] = wide * scale[:, np.newaxis, np.newaxis]
    if found.copies > 1:
        folded = folded.sum(axis=1, keepdims=True)
    shifted = (wide * shift[:, np.newaxis, np.newaxis]).sum(axis=1, keepdims=True)
    name = found.convolution.name
    pixels, turned, taken = f"{name}_pixels", f"{name}_channels_first", f"{name}_channels_first"
    constant_channel = []
    if is_padded and shifted.any():
        taken = f"{name}_with_constant"
        folded = np.concatenate([folded, shifted / BRIGHTEST], axis=1)
        amounts = add_channel_amounts(graph, f"{name}_constant_amounts", 1)
        value = graph.add_constant(f"{name}_constant", np.array(BRIGHTEST, np.float32))
        constant_channel = [helper.make_node("Pad", [turned, amounts, value], [taken], name=taken)]
    else:
        bias = bias + shifted.sum(axis=(1, 2, 3))
    convolution = onnx.NodeProto()
    convolution.CopyFrom(found.convolution)
    convolution.input[:] = [
        taken,
        graph.add_constant(f"{name}_folded_weights", folded.astype(np.float32)),
        graph.add_constant(f"{name}_folded_bias", bias.astype(np.float32)),
    ]
    graph.replace(
        [*found.path, found.convolution],
        [
            helper.make_node("Cast", [INPUT_NAME], [pixels], name=pixels, to=onnx.TensorProto.FLOAT),
            helper.make_node("Transpose", [pixels], [turned], name=turned, perm=NHWC_TO_NCHW),
            *constant_channel,
            convolution,
        ],
    )
    graph.remove_unused()
    return True
