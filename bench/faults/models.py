"""Models that the bench makes of a given one: other versions, large ones, and bad ones of each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from converter.model_folder import answer_golden
from server.models.contract import METADATA_KEY, ModelSpec
from server.models.manifest import MANIFEST_FILE, MODEL_FILE, FileRecord, Manifest, read_manifest
from server.models.repository import find_only_model
from server.models.runtime import OnnxModel

LARGE_BYTES = 8 * 1024 * 1024
"""More than what is worth a place in the cache."""

SEEDS = (1, 2)
TOLERANCE = 1e-4


def make_version(
    models: Path, root: Path, version: str, change: Callable[[onnx.ModelProto], None] | None = None
) -> Path:
    """Writes another version of the only model of ``models`` into ``root``, with answers of its own, and returns its
    folder.

    Args:
        models: where the model is.
        root: a folder of models, which need not exist.
        version: of the new one.
        change: more that is done to its graph.
    """
    model = onnx.load(find_only_model(models) / MODEL_FILE)
    spec = replace(read_spec(model), version=version)
    for prop in model.metadata_props:
        if prop.key == METADATA_KEY:
            prop.value = spec.to_json()
    scale_weights(model, 1 + sum(version.encode()) % 89 / 1000)
    if change is not None:
        change(model)
    return write_folder(root / spec.name / version, model.SerializeToString())


def read_spec(model: onnx.ModelProto) -> ModelSpec:
    """What a model says of itself."""
    return ModelSpec.from_json(next(prop.value for prop in model.metadata_props if prop.key == METADATA_KEY))


def scale_weights(model: onnx.ModelProto, factor: float) -> None:
    """Multiplies the last matrix or bias on the way to the probabilities, so that all answers differ a little."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    on_the_way = {model.graph.output[0].name}
    for node in reversed(model.graph.node):
        if on_the_way.isdisjoint(node.output):
            continue
        for name in node.input:
            tensor = tensors.get(name)
            if tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) >= 2:
                values = numpy_helper.to_array(tensor) * np.float32(factor)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
                return
        on_the_way.update(node.input)
    raise ValueError("the model has no weights")


def write_folder(folder: Path, data: bytes) -> Path:
    """Writes a model with its manifest, as the converter does; what it answers now is what it must answer."""
    model = OnnxModel(data, source=folder.name)
    golden = tuple(answer_golden(model, SEEDS))
    manifest = Manifest({MODEL_FILE: FileRecord(model.digest, len(data), TOLERANCE)}, golden, {})
    folder.mkdir(parents=True)
    (folder / MODEL_FILE).write_bytes(data)
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), "utf-8")
    return folder


def make_large_model(models: Path, root: Path) -> Path:
    """Writes a version that is large enough for the cache of optimised graphs, and returns ``root``."""

    def enlarge(model: onnx.ModelProto) -> None:
        # Weights that add nothing to the answer but cannot be left out: output + 0 * sum(weights * output).
        name = model.graph.output[0].name
        for node in model.graph.node:
            node.output[:] = [f"{one}_before" if one == name else one for one in node.output]
        classes = len(read_spec(model).labels)
        filler = np.random.RandomState(0).rand(classes, LARGE_BYTES // 4 // classes).astype(np.float32) * 1e-30
        model.graph.initializer.append(numpy_helper.from_array(filler, "filler"))
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "nothing"))
        make = onnx.helper.make_node
        model.graph.node.extend(
            [
                make("MatMul", [f"{name}_before", "filler"], ["filled"]),
                make("ReduceMax", ["filled"], ["most"], axes=[1], keepdims=1),
                make("Mul", ["most", "nothing"], ["none"]),
                make("Add", [f"{name}_before", "none"], [name]),
            ]
        )

    make_version(models, root, "1", enlarge)
    return root


def make_nan_weights(model: onnx.ModelProto) -> None:
    """One weight is not a number."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) >= 2:
            values = numpy_helper.to_array(tensor).copy()
            values.flat[0] = np.nan
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            return


def make_nan_for_black(model: onnx.ModelProto) -> None:
    """Answers as before, but to an image without light: 0 / 0."""
    (source,), output = model.graph.input, model.graph.output[0]
    for node in model.graph.node:
        node.output[:] = [f"{one}_before" if one == output.name else one for one in node.output]
    make = onnx.helper.make_node
    model.graph.node.extend(
        [
            make("Cast", [source.name], ["light"], to=onnx.TensorProto.FLOAT),
            make("ReduceMax", ["light"], ["most_light"], axes=[1, 2, 3], keepdims=0),
            make("Div", ["most_light", "most_light"], ["one"]),
            make("Unsqueeze", ["one", "last_axis"], ["one_column"]),
            make("Mul", [f"{output.name}_before", "one_column"], [output.name]),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "last_axis"))


def sign_again(folder: Path) -> None:
    """Makes a manifest that fits an altered model file, as somebody would who knows its rules but not the answers."""
    import hashlib

    manifest = read_manifest(folder)
    data = (folder / MODEL_FILE).read_bytes()
    record = replace(manifest.files[MODEL_FILE], sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    files = {**manifest.files, MODEL_FILE: record}
    (folder / MANIFEST_FILE).write_text(replace(manifest, files=files).to_json(), "utf-8")
