"""What a model file says of itself is read from its bytes, and malformed bytes are a clear error."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from server.errors import ModelFileError
from server.models.contract import METADATA_KEY
from server.models.engines.engine import Port
from server.models.manifest import MODEL_FILE
from server.models.onnx_header import MalformedError, list_external, read_header
from server.models.runtime import OnnxModel
from tests.fakes import BUNDLED, SIDE, SPEC, build_tiny_graph, build_tiny_model


def test_it_is_what_the_onnx_package_reads() -> None:
    """Metadata and inputs, of the tiny model and of the bundled one."""
    for data in (build_tiny_model(), (BUNDLED / MODEL_FILE).read_bytes()):
        header = read_header(data, "model")
        model = onnx.load_from_string(data)

        assert header.metadata == {entry.key: entry.value for entry in model.metadata_props}
        assert [port.name for port in header.inputs] == [port.name for port in model.graph.input]
    assert read_header(build_tiny_model(), "model").inputs == [Port("image", "uint8", (None, SIDE, SIDE, 3))]


def test_weights_that_are_listed_as_inputs_are_none() -> None:
    """As files of old versions of the format have them."""
    graph = build_tiny_graph()
    graph.graph.input.append(onnx.helper.make_tensor_value_info("weights", onnx.TensorProto.FLOAT, [1, 2]))

    assert [port.name for port in read_header(graph.SerializeToString(), "model").inputs] == ["image"]


def test_external_weights_are_listed(tmp_path: Path) -> None:
    """With type, shape and place."""
    graph = build_tiny_graph()
    graph.graph.initializer.append(numpy_helper.from_array(np.zeros((3, 4), np.float32), "large"))
    onnx.save(graph, tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=40)

    ((name, dtype, shape, offset, length),) = list_external((tmp_path / "m.onnx").read_bytes())

    assert (name, dtype, shape, length) == ("large", "float32", (3, 4), 48)
    assert offset >= 0


def test_external_weight_of_unknown_kind_is_malformed(tmp_path: Path) -> None:
    """Its length must be a number."""
    graph = build_tiny_graph()
    tensor = graph.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="length", value="-1")

    with pytest.raises(MalformedError):
        list_external(graph.SerializeToString())


def hide_in_initializer(model: onnx.ModelProto) -> onnx.TensorProto:
    return model.graph.initializer[0]


def hide_in_sparse_initializer(model: onnx.ModelProto) -> onnx.TensorProto:
    return model.graph.sparse_initializer.add().values


def hide_in_node(model: onnx.ModelProto) -> onnx.TensorProto:
    return model.graph.node[0].attribute.add(name="value").t


def hide_in_node_of_several(model: onnx.ModelProto) -> onnx.TensorProto:
    return model.graph.node[0].attribute.add(name="values").tensors.add()


def hide_in_sparse_attribute(model: onnx.ModelProto) -> onnx.TensorProto:
    return model.graph.node[0].attribute.add(name="value").sparse_tensor.indices


def hide_in_graph_within(model: onnx.ModelProto) -> onnx.TensorProto:
    inner = model.graph.node[0].attribute.add(name="then_branch").g
    return inner.node.add().attribute.add(name="body").graphs.add().initializer.add()


def hide_in_function(model: onnx.ModelProto) -> onnx.TensorProto:
    return model.functions.add(name="f").node.add().attribute.add(name="value").t


@pytest.mark.parametrize(
    "hide",
    [
        hide_in_initializer,
        hide_in_sparse_initializer,
        hide_in_node,
        hide_in_node_of_several,
        hide_in_sparse_attribute,
        hide_in_graph_within,
        hide_in_function,
    ],
)
@pytest.mark.parametrize("says", ["place", "entries"])
def test_model_with_values_in_another_file_is_refused(
    hide: Callable[[onnx.ModelProto], onnx.TensorProto], says: str
) -> None:
    """No digest covers what lies there, wherever in the graph it is asked for."""
    model = build_tiny_graph()
    tensor = hide(model)
    if says == "place":
        tensor.data_location = onnx.TensorProto.EXTERNAL
    else:
        tensor.external_data.add(key="location", value="weights")
    data = model.SerializeToString()

    assert not read_header(data, "model").is_complete
    with pytest.raises(ModelFileError) as refusal:
        OnnxModel(data, source="model")
    assert refusal.value.reason == "MODEL_EXTERNAL_DATA"


def test_graphs_nested_without_end_are_malformed() -> None:
    """Looking into them stops somewhere."""
    model = build_tiny_graph()
    graph = model.graph
    for _ in range(60):
        graph = graph.node.add().attribute.add(name="body").g

    with pytest.raises(ModelFileError) as refusal:
        read_header(model.SerializeToString(), "model")
    assert refusal.value.reason == "MODEL_FILE_INVALID"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 1000,
        b"<html>404</html>",
        b"\xff" * 100,
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\x3a\x80",
        build_tiny_model() * 2,
        build_tiny_model() + b"\x72\x00" * 2,
        build_tiny_model() + b"\x72\x04\x0a\x02\xff\xff",
    ],
)
def test_malformed_bytes_are_a_clear_error(data: bytes) -> None:
    """Also a file that is there twice, two entries of one name, and text that is not UTF-8."""
    with pytest.raises(ModelFileError) as refusal:
        read_header(data, "model")

    assert refusal.value.reason == "MODEL_FILE_INVALID"
    assert refusal.value.message.isprintable()


def test_damaged_bytes_never_raise_anything_else() -> None:
    """Cut anywhere, or with any byte changed."""
    data = build_tiny_model()
    dice = random.Random(1)
    damaged = [data[:length] for length in range(len(data))]
    for _ in range(3000):
        altered = bytearray(data)
        altered[dice.randrange(len(data))] = dice.randrange(256)
        damaged.append(bytes(altered))
    for some in damaged:
        try:
            read_header(some, "model")
            list_external(some)
        except (ModelFileError, MalformedError):
            pass


def test_spec_is_among_it() -> None:
    """To the letter."""
    assert read_header(build_tiny_model(), "model").metadata[METADATA_KEY] == SPEC.to_json()
