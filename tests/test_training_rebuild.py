"""The earlier model that is tuned: a network made of an ONNX file or opened, and shown to be the same."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from server.models.contract import METADATA_KEY, ModelSpec
from tests.backbones import use_tiny_backbone
from tests.fakes import ROOT, write_model
from training.errors import TrainingError
from training.fit.models import MODELS
from training.own import rebuild
from training.own.parent import open_parent

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

(BUNDLED,) = (ROOT / "models" / "stroke-cnn").iterdir()
SPEC = ModelSpec("small", "1", ("normal", "stroke"), ("stroke",), 0.5)


@pytest.fixture
def graph() -> onnx.ModelProto:
    """The bundled model's fp32 graph, to be altered."""
    return onnx.load(BUNDLED / "model.onnx")


def read_spec(model: onnx.ModelProto) -> ModelSpec:
    return ModelSpec.from_json(next(item.value for item in model.metadata_props if item.key == METADATA_KEY))


def replace_constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    (item,) = [item for item in model.graph.initializer if item.name == name]
    item.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))


def read_constant(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(item for item in model.graph.initializer if item.name == name))


def list_gemms(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Gemm" and not node.name.startswith("outlier")]


def save(model: onnx.ModelProto, folder: Path) -> str:
    onnx.save(model, folder / "model.onnx")
    return str(folder / "model.onnx")


def test_bundled_model_answers_as_its_file() -> None:
    """Temperature and scaling are in its weights, once: probabilities of the file, to 1e-5, on images of any kind."""
    parent = open_parent(str(BUNDLED))
    assert parent.spec.temperature != 1
    rng = np.random.default_rng(0)
    ramp = np.tile(np.linspace(0, 255, 256), (256, 1))
    images = np.stack([ramp, 255 - ramp.T, rng.integers(0, 256, (256, 256)), np.zeros((256, 256))])
    parent.check(images[..., np.newaxis].astype(np.uint8))
    assert parent.split is None
    assert parent.network.count_params() == 183_682
    assert parent.input_format.windows[0].level == 40


def test_file_and_folder_are_the_same_parent() -> None:
    """With the digest of the fp32 file."""
    folder, file = open_parent(str(BUNDLED)), open_parent(str(BUNDLED / "model.onnx"))
    assert folder.digest == file.digest
    for one, other in zip(folder.network.get_weights(), file.network.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_network_that_answers_otherwise_is_not_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody believes that the weights were read rightly: it is shown, or the model refused."""
    unfold = rebuild.unfold_input
    monkeypatch.setattr(rebuild, "unfold_input", lambda kernel: unfold(kernel) * 1.001)
    with pytest.raises(TrainingError, match=r"answers otherwise, by up to .* give the run folder, or the \.keras"):
        open_parent(str(BUNDLED))


def test_row_in_the_order_of_planes_is_read(graph: onnx.ModelProto, tmp_path: Path) -> None:
    """Where an exporter has put the turn of the last map into the dense layer, and that one the other way round."""
    dense = list_gemms(graph)[0]
    makers = {node.output[0]: node for node in graph.graph.node}
    shape = makers[dense.input[0]]
    turn = makers[shape.input[0]]
    assert (shape.op_type, turn.op_type) == ("Reshape", "Transpose")
    kernel = read_constant(graph, dense.input[1])
    planes = kernel.reshape(2, 2, 64, 64).transpose(2, 0, 1, 3).reshape(256, 64)
    replace_constant(graph, dense.input[1], planes.T)
    next(one for one in dense.attribute if one.name == "transB").i = 1
    position = list(graph.graph.node).index(turn)
    flat = helper.make_node("Flatten", [turn.input[0]], list(shape.output), name="flat")
    graph.graph.node.remove(turn)
    graph.graph.node.remove(shape)
    graph.graph.node.insert(position, flat)
    again, before = open_parent(save(graph, tmp_path)), open_parent(str(BUNDLED))
    for one, other in zip(again.network.get_weights(), before.network.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_three_classes_are_three(graph: onnx.ModelProto, tmp_path: Path) -> None:
    """The last layer is as wide as the model has labels."""
    last = list_gemms(graph)[-1]
    for name in last.input[1:]:
        value = read_constant(graph, name)
        replace_constant(graph, name, np.concatenate([value, value[..., :1] / 2], axis=-1))
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3
    spec = replace(read_spec(graph), labels=("normal", "bleed", "infarct"), positive_labels=("bleed", "infarct"))
    helper.set_model_props(graph, {METADATA_KEY: spec.to_json()})
    parent = open_parent(save(graph, tmp_path))
    assert parent.network.output_shape == (None, 3)
    assert parent.spec.positive_labels == ("bleed", "infarct")


def test_other_networks_in_onnx_are_refused(graph: onnx.ModelProto, tmp_path: Path) -> None:
    """Another graph, and the same one with a layer of another size: one line, which says what can be tuned."""
    with pytest.raises(
        TrainingError, match=r"the paper's CNN .* another network \(its layers are .* give the run folder"
    ):
        open_parent(str(write_model(tmp_path, SPEC)))
    dense, last = list_gemms(graph)
    for name in (*dense.input[1:],):
        replace_constant(graph, name, read_constant(graph, name)[..., :32])
    replace_constant(graph, last.input[1], read_constant(graph, last.input[1])[:32])
    del graph.graph.value_info[:]
    with pytest.raises(TrainingError, match="its layers have other sizes"):
        open_parent(save(graph, tmp_path))


def test_damaged_folder_is_not_tuned(tmp_path: Path) -> None:
    """It is verified as by a server."""
    shutil.copytree(BUNDLED, tmp_path / "stroke-cnn" / BUNDLED.name)
    folder = tmp_path / "stroke-cnn" / BUNDLED.name
    data = bytearray((folder / "model.onnx").read_bytes())
    data[5000] ^= 1
    (folder / "model.onnx").write_bytes(data)
    with pytest.raises(TrainingError, match="altered"):
        open_parent(str(folder))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is no such file or folder$"),
        ("127.0.0.1:50051", "of a server, name the folder of the model that it serves"),
        ("notes.txt", "neither a .keras, .h5 or .onnx file"),
        (".", "is no run folder and no model folder"),
        ("bare/model.keras", "has no spec.json beside it"),
        ("broken/model.keras", "Keras cannot load it as a model of images"),
    ],
)
def test_what_is_no_model_is_one_line(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says what is."""
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("x")
    for folder in ("bare", "broken"):
        Path(folder).mkdir()
        (Path(folder) / "model.keras").write_bytes(b"x")
    Path("broken/spec.json").write_text(SPEC.to_json())
    with pytest.raises(TrainingError, match=message) as error:
        open_parent(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("side", "activation", "message"),
    [
        (64, "softmax", "networks that take 256 x 256 x 3"),
        (256, "sigmoid", "does not end in a dense softmax layer of 2"),
    ],
)
def test_keras_networks_of_another_make_are_refused(side: int, activation: str, message: str, tmp_path: Path) -> None:
    """Other sizes, and ends that no temperature can be folded into."""
    import keras
    from keras import layers

    network = keras.Sequential(
        [keras.Input((side, side, 3)), layers.GlobalAveragePooling2D(), layers.Dense(2, activation)]
    )
    network.save(tmp_path / "model.keras")
    (tmp_path / "spec.json").write_text(SPEC.to_json())
    with pytest.raises(TrainingError, match=message):
        open_parent(str(tmp_path))


def build_parent(name: str, folder: Path) -> Any:
    network = MODELS[name]("float32")
    network.save(folder / "brain_stroke_model.keras")
    (folder / "spec.json").write_text(SPEC.to_json())
    return open_parent(str(folder)).network


def test_last_layers_are_those_behind_the_maps(tmp_path: Path) -> None:
    """Of the CNN both dense layers, of ResNet-50 its head; what a training leaves alone never learns."""
    from training.own.stages import choose_trainable, list_last_layers

    with use_tiny_backbone():
        for name, last in (("cnn", ["dense", "probabilities"]), ("resnet50", ["head", "probabilities"])):
            network = build_parent(name, tmp_path)
            assert [layer.name.split("_")[0] for layer in list_last_layers(network)] == last
            choose_trainable(network, only_last=True)
            assert len(network.trainable_variables) == 4
            choose_trainable(network, only_last=False)
            frozen = {variable.path.split("/")[-2] for variable in network.non_trainable_variables}
            assert all(part.endswith("_bn") or part == "conv1_conv" for part in frozen), frozen
            assert len(network.trainable_variables) == (16 if name == "cnn" else 12)
