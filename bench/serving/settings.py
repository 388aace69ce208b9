"""What the benchmarks of serving take on the command line, and how their reports name it."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import onnx
from onnx import shape_inference
from PIL import Image

from bench.images import read_images
from bench.processes import ROOT
from bench.serving.variants import FILES, list_precisions
from server.flags import setting
from server.models.repository import find_only_model


@dataclass(frozen=True)
class ReportOptions:
    """Settings of every benchmark that writes a section of the report. Folders are seen from the project's root."""

    images: Path = setting(Path("samples"), "folder of images")
    rounds: int = setting(5, "rounds", least=1, most=1000)
    out: Path | None = setting(
        None, "folder for performance.md, .json and .png, whose other sections stay (default: only print)"
    )


@dataclass(frozen=True)
class BenchOptions(ReportOptions):
    """Settings of every benchmark that runs servers."""

    models: Path = setting(Path("models"), "folder of models")
    seconds: float = setting(2.0, "length of one measurement", least=0.01, most=3600)


def describe_images(folder: Path) -> dict[str, Any]:
    """Number, size and origin of the images; a folder outside the project stays unnamed."""
    images = read_images(folder)
    sizes = Counter(Image.open(io.BytesIO(image)).size for image in images)
    (width, height), _ = sizes.most_common(1)[0]
    inside = folder.resolve().is_relative_to(ROOT)
    return {
        "images": folder.resolve().relative_to(ROOT).as_posix() if inside else "own images",
        "image_count": len(images),
        "image_size": f"{width} x {height}",
        "image_kb": sum(map(len, images)) / len(images) / 1000,
    }


def describe_model(models: Path) -> dict[str, Any]:
    """Name, version, precisions and arithmetic of the only model of a folder."""
    folder = find_only_model(models)
    return {
        "model": f"{folder.parent.name} {folder.name}",
        "precisions": list_precisions(models),
        "gflop": count_flops(folder / FILES["fp32"]) / 1e9,
    }


def count_flops(path: Path) -> int:
    """Counts the floating-point operations for one image from the shapes of an fp32 graph; a multiply-add is two.

    Those of convolutions and matrix products: all else (activations, pooling, casts) is below one per cent of these
    networks. For int8 too the fp32 graph counts: what a quantised variant adds in padding is no useful work.

    Raises:
        ValueError: the shape of an operand cannot be inferred.
    """
    model = onnx.load(path)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
    return sum(count_node(node, shapes) for node in graph.node)


def count_node(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    """Floating-point operations of one node."""
    if node.op_type == "Conv":
        _, *per_output = known_shape(shapes, node.input[1])  # [outputs, inputs / groups, kernel height, width]
        return 2 * prod(known_shape(shapes, node.output[0])) * prod(per_output)
    if node.op_type in ("MatMul", "Gemm"):
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        inner = known_shape(shapes, node.input[0])[0 if transposed else -1]
        return 2 * prod(known_shape(shapes, node.output[0])) * inner
    return 0


def known_shape(shapes: dict[str, list[int]], name: str) -> list[int]:
    """The shape of a tensor, without unknown dimensions."""
    shape = shapes.get(name, [])
    if not shape or 0 in shape:
        raise ValueError(f"the shape of {name} is not known: {shape}")
    return shape
