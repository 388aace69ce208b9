"""The paper's CNN as a Keras network again, from the ONNX file that the converter made of it.

The converter folds scaling and the repetition of a grey channel into the first convolution, and training folds the
calibration into the last layer; all of it is in the weights, so nothing is applied twice. That the network is the same
is not believed but shown: its answers are compared with those of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from server.models.contract import INPUT_NAME, OUTPUT_NAME
from server.models.golden import make_golden_input
from server.models.runtime import OnnxModel
from training.data.format import IMAGE_SIZE
from training.errors import TrainingError
from training.fit.models import CNN_FILTERS, build_cnn

if TYPE_CHECKING:
    import keras
    import onnx

BODY = ("Conv", "Relu", "MaxPool") * len(CNN_FILTERS)
HEADS = (
    ("Transpose", "Reshape", "Gemm", "Relu", "Gemm", "Softmax"),
    ("Reshape", "Gemm", "Relu", "Gemm", "Softmax"),
    ("Flatten", "Gemm", "Relu", "Gemm", "Softmax"),
)
"""What may follow: in the first, the last map is turned to channels last before it becomes a row, as Keras has it."""

MOVES = {"Cast", "Transpose", "Reshape"}
"""What may come before: nothing that changes a pixel."""

LARGEST_DIFFERENCE = 1e-5
"""Of a probability, between the file and the network that is made from it."""

SEEDS = range(8)
"""Of the made-up images on which both are asked."""

BRIGHTEST = 255
CHANNELS = 3


def rebuild_cnn(data: bytes, model: OnnxModel, source: str) -> keras.Model:
    """Returns the network of an ONNX file.

    Args:
        data: the file, fp32.
        model: the same, loaded.
        source: what to call it in errors.

    Raises:
        TrainingError: it is another network, or what is made of it answers differently.
    """
    import onnx

    graph = onnx.load_from_string(data).graph
    weights = read_weights(graph, source)
    network = build_cnn(classes=len(model.spec.labels))
    if [array.shape for array in weights] != [array.shape for array in network.get_weights()]:
        raise unlike(source, "its layers have other sizes")
    network.set_weights(weights)
    form = model.input_format
    golden = np.stack([make_golden_input(seed, form.height, form.width, form.channels) for seed in SEEDS])
    require_same(network, model, golden, source)
    return network


def read_weights(graph: onnx.GraphProto, source: str) -> list[NDArray[np.float32]]:
    """Returns kernels and biases in Keras's order and layout.

    Raises:
        TrainingError: the graph is not that of the paper's CNN.
    """
    from onnx import numpy_helper

    path = find_path(graph)
    kinds = [node.op_type for node in path]
    first = kinds.index("Conv") if "Conv" in kinds else 0
    head = tuple(kinds[first + len(BODY) :])
    if not MOVES.issuperset(kinds[:first]) or tuple(kinds[first : first + len(BODY)]) != BODY or head not in HEADS:
        raise unlike(source, f"its layers are {', '.join(kinds[:12])}{' …' if len(kinds) > 12 else ''}")
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    weights: list[NDArray[np.float32]] = []
    maps = 0
    for node in path:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        arrays = [constants.get(name) for name in node.input[1:]]
        if len(arrays) != 2 or any(array is None for array in arrays):
            raise unlike(source, f"{node.name} has no weights and bias of its own")
        kernel, bias = (np.asarray(array, np.float64) for array in arrays)
        if node.op_type == "Conv":
            kernel = kernel.transpose(2, 3, 1, 0)
            maps = kernel.shape[3]
            if not weights:
                kernel = unfold_input(kernel)
        else:
            kernel = kernel.T if read_attribute(node, "transB") else kernel
            if head[0] != "Transpose" and kernel.shape[0] != maps and len(weights) == 2 * len(CNN_FILTERS):
                side = int(np.sqrt(kernel.shape[0] // maps))
                kernel = kernel.reshape(maps, side, side, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)
        weights += [kernel.astype(np.float32), bias.astype(np.float32)]
    return weights


def unfold_input(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the first kernel [3, 3, 3, F] of a network that divides pixels by 255 and sees grey in three channels.

    Where the file takes one channel, its kernel is the sum over three; a third of it in each has the same sum.
    """
    channels = kernel.shape[2]
    unfolded: NDArray[np.float64] = np.repeat(kernel, CHANNELS // channels, axis=2) * BRIGHTEST * channels / CHANNELS
    return unfolded


def find_path(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Returns the nodes from the image to the probabilities, each by its first input, without what hangs beside."""
    makers = {output: node for node in graph.node for output in node.output}
    path: list[onnx.NodeProto] = []
    tensor = OUTPUT_NAME
    while tensor != INPUT_NAME and tensor in makers and len(path) <= len(graph.node):
        path.append(makers[tensor])
        tensor = path[-1].input[0] if path[-1].input else ""
    return path[::-1]


def read_attribute(node: onnx.NodeProto, name: str) -> int:
    """Returns a whole number that a node has; 0 where it has none of that name."""
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)


def require_same(network: keras.Model, model: OnnxModel, pixels: NDArray[np.uint8], source: str) -> None:
    """Compares the answers of both on images uint8 [N, 256, 256, C].

    Raises:
        TrainingError: they differ.
    """
    expected = np.concatenate([model.run(image[np.newaxis]) for image in pixels])
    images = pixels if pixels.shape[3] == CHANNELS else pixels.repeat(CHANNELS, axis=3)
    difference = float(np.abs(network.predict_on_batch(images) - expected).max())
    if not difference <= LARGEST_DIFFERENCE:  # so written that NaN fails
        raise TrainingError(
            f"{source}: the network that is made from it answers otherwise, by up to {difference:.2g} (at most "
            f"{LARGEST_DIFFERENCE:g}), so it is not tuned; {REMEDY}"
        )


REMEDY = "give the run folder, or the .keras or .h5 file, that it was converted from"


def unlike(source: str, why: str) -> TrainingError:
    return TrainingError(
        f"{source}: of ONNX files tune-up knows the paper's CNN for {IMAGE_SIZE} x {IMAGE_SIZE} pixels alone, and this "
        f"is another network ({why}); {REMEDY}"
    )
