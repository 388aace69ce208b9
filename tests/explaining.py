"""A tiny explain file for tests of the server: it has the answers of the tiny model, and shows where a slice shines."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from server.models.contract import HEATMAP_KEY, HEATMAP_NAME, INPUT_NAME, METADATA_KEY, OUTPUT_NAME, ModelSpec
from server.models.explainer import Explainer, sum_cells
from server.models.manifest import EXPLAIN_FILE
from server.models.runtime import load_model
from tests.fakes import GOLDEN_SEEDS, SIDE, SPEC, build_tiny_graph, rewrite_manifest, write_model

CELLS = 4
"""Rows and columns of the tiny heatmap."""


def build_explain_graph(
    spec: ModelSpec = SPEC, *, cells: int = CELLS, area: Any = (0, 0, SIDE, SIDE)
) -> onnx.ModelProto:
    """The tiny model with a second output: the mean grey level of each cell above 128, in hundreds."""
    model = build_tiny_graph(spec)
    graph, step = model.graph, SIDE // cells
    graph.initializer.extend(
        helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in (("middle", 128), ("hundred", 100))
    )
    graph.node.extend(
        [
            helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("AveragePool", ["planes"], ["levels"], kernel_shape=[step, step], strides=[step, step]),
            helper.make_node("Sub", ["levels", "middle"], ["above"]),
            helper.make_node("Div", ["above", "hundred"], ["weighed"]),
            helper.make_node("Relu", ["weighed"], ["cells"]),
            helper.make_node("Gather", ["cells", "first"], [HEATMAP_NAME], axis=1),
        ]
    )
    graph.initializer.append(helper.make_tensor("first", TensorProto.INT64, [], [0]))
    graph.output.append(helper.make_tensor_value_info(HEATMAP_NAME, TensorProto.FLOAT, ["N", cells, cells]))
    helper.set_model_props(model, {METADATA_KEY: spec.to_json(), HEATMAP_KEY: json.dumps({"area": list(area)})})
    assert {output.name for output in graph.output} == {OUTPUT_NAME, HEATMAP_NAME}
    assert graph.input[0].name == INPUT_NAME
    return model


def add_explain_file(folder: Path, data: bytes | None = None) -> bytes:
    """Puts an explain file into a model folder, and into its manifest what it answers. Returns the file."""
    model = load_model(folder)
    data = data or build_explain_graph(model.spec).SerializeToString()
    explainer = Explainer(data, source="tiny", input_format=model.input_format)
    sums = sum_cells(explainer.answer(GOLDEN_SEEDS[0])[1])
    record = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "tolerance": 1e-4, "heatmap_sums": sums}
    (folder / EXPLAIN_FILE).write_bytes(data)
    rewrite_manifest(folder, lambda document: document["files"].update({EXPLAIN_FILE: record}))
    return data


def write_explained(root: Path, spec: ModelSpec = SPEC) -> Path:
    """``write_model`` with an explain file; returns the model's folder."""
    folder = write_model(root, spec)
    add_explain_file(folder)
    return folder


def make_corner(level: int = 250, side: int = SIDE) -> np.ndarray:
    """A dark slice with a bright corner at its upper left: uint8 [side, side]."""
    slice_ = np.full((side, side), 20, np.uint8)
    slice_[: side // CELLS, : side // CELLS] = level
    return slice_
