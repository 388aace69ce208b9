"""Explain files for models that are there already, made of their files alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from converter.errors import ExplainError
from converter.graph.explain_file import make_explain_file, renew_explain_file
from converter.graph.heatmap import add_heatmap
from converter.outlier.surgery import remove_score
from server.images.preprocess import InputFormat
from server.models.contract import METADATA_KEY, OUTPUT_NAME
from server.models.engines.engine import EngineOptions
from server.models.manifest import EXPLAIN_FILE, MANIFEST_FILE, MODEL_FILE, Manifest, read_manifest, read_verified
from server.models.runtime import OnnxModel, load_model
from tests.explaining import write_explained
from tests.fakes import BUNDLED, build_tiny_graph


def read_folder(folder: Path) -> tuple[dict[str, bytes], Manifest]:
    """The files of a model folder by name, and its manifest."""
    manifest = read_manifest(folder)
    return {name: read_verified(folder, name, manifest) for name in manifest.files}, manifest


def read_form(files: dict[str, bytes]) -> InputFormat:
    """What the model of a folder takes."""
    return OnnxModel(files[MODEL_FILE], source=MODEL_FILE).input_format


def test_bundled_model_can_be_explained(tmp_path: Path) -> None:
    """A folder that was converted before there were heatmaps gets one, and a server takes it."""
    files, manifest = read_folder(BUNDLED)

    files, manifest, said = renew_explain_file(files, manifest, read_form(files))

    folder = tmp_path / "stroke-cnn" / BUNDLED.name
    folder.mkdir(parents=True)
    for name, data in {**files, MANIFEST_FILE: manifest.to_json().encode()}.items():
        (folder / name).write_bytes(data)
    assert said == "in a file of its own, for servers with --explain"
    explainer = load_model(folder, EngineOptions(explains=True)).explainer
    assert explainer is not None
    assert (explainer.rows, explainer.columns) == (28, 28)


def test_model_itself_stays_as_it_is() -> None:
    """The graph that is served has no heatmap, and no node more than before."""
    model = onnx.load(BUNDLED / MODEL_FILE)
    before = model.SerializeToString()

    explained = add_heatmap(model)

    assert explained is not None
    assert model.SerializeToString() == before
    names = [node.name for node in remove_score(model).graph.node]
    assert [node.name for node in explained.graph.node][: len(names)] == names


def test_further_outputs_are_left_out() -> None:
    """An outlier score is in the model's own file, with what computes it."""
    model = onnx.load(BUNDLED / MODEL_FILE)
    logits = model.graph.node[-1].input[0]
    model.graph.node.append(onnx.helper.make_node("ReduceMax", [logits], ["further"], name="further", axes=[1]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("further", onnx.TensorProto.FLOAT, ["N", 1]))

    explained = add_heatmap(model)

    assert explained is not None
    assert [output.name for output in explained.graph.output] == [OUTPUT_NAME, "heatmap"]
    assert all(node.name != "further" for node in explained.graph.node)


def test_file_of_a_network_that_has_none_any_more_goes(tmp_path: Path) -> None:
    """Rather none than that of another model."""
    files, manifest = read_folder(write_explained(tmp_path))

    files, manifest, said = renew_explain_file(files, manifest, read_form(files))

    assert said.startswith("none: between its last feature map and its probabilities")
    assert EXPLAIN_FILE not in files
    assert EXPLAIN_FILE not in manifest.files


def test_network_without_feature_maps_is_refused() -> None:
    """With a sentence."""
    graph = build_tiny_graph()
    model = OnnxModel(graph.SerializeToString(), source="tiny")

    with pytest.raises(ExplainError, match="last feature map"):
        make_explain_file(graph, model.input_format, ())


def test_graph_without_a_spec_has_no_positive_label() -> None:
    """Nobody knows what the evidence would be for."""
    model = onnx.load(BUNDLED / MODEL_FILE)
    del model.metadata_props[:]

    assert add_heatmap(model) is None


def test_sigmoid_the_wrong_way_round_is_none_of_ours() -> None:
    """One minus the first class stands first in what the converter writes."""
    model = remove_score(onnx.load(BUNDLED / MODEL_FILE))
    end = model.graph.node[-1]
    end.CopyFrom(onnx.helper.make_node("Sigmoid", [end.input[0]], [OUTPUT_NAME], name="end"))

    assert any(entry.key == METADATA_KEY for entry in model.metadata_props)
    assert add_heatmap(model) is None


def test_manifest_keeps_the_sums_of_a_heatmap() -> None:
    """There and back; and older manifests have none."""
    files, manifest = read_folder(BUNDLED)
    renewed = renew_explain_file(files, manifest, read_form(files))[1]

    again = Manifest.from_json(renewed.to_json())

    assert again.files[EXPLAIN_FILE] == renewed.files[EXPLAIN_FILE]
    assert len(again.files[EXPLAIN_FILE].heatmap_sums) == 56
    assert replace(again.files[MODEL_FILE]).heatmap_sums == ()
