"""The explain file of a model: its fp32 graph with a heatmap beside the answer, and what a server verifies it by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx

from converter.errors import ExplainError
from converter.graph.heatmap import add_heatmap
from server.errors import ModelFileError
from server.images.preprocess import InputFormat
from server.models.explainer import Explainer, sum_cells
from server.models.golden import GoldenVector
from server.models.manifest import EXPLAIN_FILE, MODEL_FILE, FileRecord, Manifest

TOLERANCE = 0.01
"""Largest difference of a probability, or of a sum of cells as a share of the largest, on another machine. Where
another kernel rounds a sum to the other side of 0, ReLU lets a whole gradient through, or none: a cell may change by a
thousandth or so, though the answer does not."""


def make_explain_file(
    graph: onnx.ModelProto, input_format: InputFormat, golden: Sequence[GoldenVector]
) -> tuple[bytes, FileRecord]:
    """Makes the file, and its entry in the manifest.

    Args:
        graph: the fp32 model, canonical, with the spec in its metadata; its further outputs are left out.
        input_format: of it.
        golden: its golden vectors.

    Raises:
        ExplainError: of this network there is no heatmap; the message says why.
    """
    explained = add_heatmap(graph)
    if explained is None:
        raise ExplainError(
            "between its last feature map and its probabilities is something else than pooling or flattening, dense "
            "layers and ReLU"
        )
    data = explained.SerializeToString()
    del explained  # it has all weights, and the session that is opened now has them too
    try:
        explainer = Explainer(data, source=EXPLAIN_FILE, input_format=input_format)
    except ModelFileError as error:
        raise ExplainError(error.message) from None
    sums = sum_cells(explainer.answer(golden[0].seed)[1])
    record = FileRecord(hashlib.sha256(data).hexdigest(), len(data), TOLERANCE, heatmap_sums=sums)
    try:
        explainer.check(golden, record, EXPLAIN_FILE)
    except ModelFileError as error:
        raise ExplainError(error.message) from None
    return data, record


def renew_explain_file(
    files: Mapping[str, bytes], manifest: Manifest, input_format: InputFormat
) -> tuple[dict[str, bytes], Manifest, str]:
    """Gives the files of a model folder an explain file, made of their fp32 model, in place of one that is there.

    Args:
        files: bytes by name, ``MODEL_FILE`` among them; the manifest need not be.
        manifest: of these files, golden vectors included.
        input_format: of the model.

    Returns:
        The same with it, and what has come of it, in words.
    """
    kept = {name: data for name, data in files.items() if name != EXPLAIN_FILE}
    records = {name: record for name, record in manifest.files.items() if name != EXPLAIN_FILE}
    graph = onnx.load_from_string(files[MODEL_FILE])
    try:
        data, record = make_explain_file(graph, input_format, manifest.golden)
    except ExplainError as error:
        return kept, replace(manifest, files=records), f"none: {error}"
    renewed = replace(manifest, files={**records, EXPLAIN_FILE: record})
    return {**kept, EXPLAIN_FILE: data}, renewed, "in a file of its own, for servers with --explain"
