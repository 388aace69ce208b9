"""INT8 variants: what is quantised, for which processor, and that nothing inaccurate or slow is written."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from converter.errors import ConversionError, FusionError
from converter.graph.edit import canonicalise, embed_spec
from converter.graph.fold import fold_input
from converter.graph.fusion import check_fused
from converter.int8.calibrate import CalibrationSets, Slices, load_sets
from converter.int8.gate import Comparison, Judge
from converter.int8.quantize import Quantised, quantise
from converter.int8.watch import Watch
from server.images.preprocess import InputFormat
from server.models.contract import ModelSpec
from server.models.runtime import OnnxModel
from tests.fakes import encode, make_slice

SIDE = 32
SPEC = ModelSpec("small", "1", ("normal", "stroke"), ("stroke",), 0.3, colour="grey")
FILTERS = (8, 8, 8, 8)


def build_network(offset: tuple[int, ...] = (), *, like_resnet: bool = False, amount: float = 300.0) -> onnx.ModelProto:
    """Four convolutions with weights drawn once, and an answer that grows with the mean grey level.

    A layer named in ``offset`` adds a large ``amount`` to its values, which the next layer takes off again: the answer
    is the same, but 256 levels for large values leave none for what they differ by.

    The first convolution pools, or has stride 2 and takes padded pixels that were shifted, as in ResNet.
    """
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "shift"], ["shifted"]),
        helper.make_node("Transpose", ["shifted"], ["turned"], perm=(0, 3, 1, 2)),
    ]
    constants = {"scale": np.array(1 / 255), "shift": np.array(0.1 if like_resnet else 0.0)}
    tensor, before = "turned", 1
    added = 0.0
    for number, filters in enumerate(FILTERS):
        weights = np.abs(rng.normal(0, 1, (filters, before, 3, 3))) / (4.5 * before)
        constants[f"weights{number}"] = weights
        taken_off = added * weights.sum(axis=(1, 2, 3))
        added = amount if number in offset else 0.0
        constants[f"bias{number}"] = added - taken_off
        is_strided = like_resnet and number == 0
        convolution = helper.make_node(
            "Conv",
            [tensor, f"weights{number}", f"bias{number}"],
            [f"sums{number}"],
            name=f"conv{number}",
            **({"strides": [2, 2], "pads": [1, 1, 1, 1]} if is_strided else {}),
        )
        nodes += [convolution, helper.make_node("Relu", [f"sums{number}"], [f"relu{number}"])]
        tensor, before = f"relu{number}", filters
        if number == 0 and not is_strided:
            nodes.append(helper.make_node("MaxPool", [tensor], ["pool"], kernel_shape=(2, 2), strides=(2, 2)))
            tensor = "pool"
    constants["dense"] = np.outer(np.ones(before), [0, 2.0])
    constants["level"] = np.array([0.0, -7.0 - 2 * before * added])
    nodes += [
        helper.make_node("GlobalAveragePool", [tensor], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense", "level"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = canonicalise(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert fold_input(model)
    return model


def make_slices(count: int, seed: int) -> Slices:
    """Slices of every brightness; the brighter half shows a stroke."""
    levels = np.linspace(5, 250, count)
    pixels = np.stack([make_slice(int(level), SIDE, seed + i) for i, level in enumerate(levels)])
    return Slices(pixels[..., np.newaxis], (levels > 128).astype(np.int64))


SETS = CalibrationSets(make_slices(40, 0), make_slices(200, 1000), "made for the test")


@cache
def make_int8(offset: tuple[int, ...] = (), target: str = "x86-vnni", *, like_resnet: bool = False) -> Quantised:
    """The INT8 variant of ``build_network(offset)``, made once for all tests: it takes seconds."""
    model = build_network(offset, like_resnet=like_resnet)
    return quantise(model, OnnxModel(embed_spec(model, SPEC), source="fp32"), SETS, target=target)


pytestmark = pytest.mark.usefixtures("steady_speed")


def read_weights(data: bytes) -> dict[str, NDArray[np.int8]]:
    """The INT8 weights of an ONNX file, by name."""
    constants = onnx.load_from_string(data).graph.initializer
    return {
        item.name: numpy_helper.to_array(item)
        for item in constants
        if item.data_type == TensorProto.INT8 and item.name.endswith("_quantized")
    }


def test_int8_variant_decides_as_its_source_and_is_fused() -> None:
    """It passes the gate, all convolutions are integers, and nothing is converted between them."""
    made = make_int8()

    assert made.gate.list_failures() == []
    assert made.fp32_layers == ()
    assert len(read_weights(made.data)) == len(FILTERS)
    assert made.left == {"QuantizeLinear": 0, "DequantizeLinear": 1, "Transpose": 2}
    assert made.tried.keys() == {"min-max", "percentile", "min-max with room"}
    assert made.gate.calibration.mean_difference == min(made.tried.values())


def test_first_convolution_with_stride_takes_blocks() -> None:
    """What ResNet begins with is fused too: blocks of pixels with their constant channel, as bytes."""
    made = make_int8(like_resnet=True)

    assert made.gate.list_failures() == []
    assert read_weights(made.data)["conv0_rounded_weights_quantized"].shape == (FILTERS[0], 8, 2, 2)
    assert made.left == {"QuantizeLinear": 0, "DequantizeLinear": 1, "Transpose": 4}


def test_int8_variant_takes_bytes_as_they_are() -> None:
    """Pixels are not turned into floats and back: no cast is left in the file."""
    for made in (make_int8(), make_int8(like_resnet=True)):
        assert "Cast" not in [node.op_type for node in onnx.load_from_string(made.data).graph.node]


def test_int8_variant_keeps_the_spec() -> None:
    """Labels and decision come from the file, as in the fp32 model."""
    assert OnnxModel(make_int8().data, source="int8").spec == SPEC


def test_processors_without_vnni_get_seven_bit_weights() -> None:
    """They add products in 16 bits, which 8-bit weights overflow."""
    full, reduced = (read_weights(made.data) for made in (make_int8(), make_int8(target="x86")))

    assert max(np.abs(weights.astype(int)).max() for weights in full.values()) == 127
    assert max(np.abs(weights.astype(int)).max() for weights in reduced.values()) <= 64


def test_arm_gets_signed_activations() -> None:
    """Its integer instructions multiply signed by signed."""
    made = make_int8(target="arm64")
    zero_points = {
        item.name: item.data_type
        for item in onnx.load_from_string(made.data).graph.initializer
        if item.name.endswith("zero_point") and "weights" not in item.name and "bias" not in item.name
    }

    assert zero_points
    assert set(zero_points.values()) == {TensorProto.INT8}


@pytest.mark.parametrize("kind", ["QuantizeLinear", "DequantizeLinear", "Transpose"])
def test_graph_that_is_not_fused_is_refused(kind: str) -> None:
    """As many conversions are right as values cross between integers and fp32; a move may stand at each of them."""
    left = {"QuantizeLinear": 0, "DequantizeLinear": 0, "Transpose": 0, kind: 7}

    check_fused(left, (7, 7))
    with pytest.raises(FusionError, match=f"7 {kind}"):
        check_fused(left, (0, 1))


def make_comparison(**changes: float | None) -> Comparison:
    figures = {
        "slices": 200,
        "agreement_at_threshold": 0.995,
        "agreement_at_half": 0.995,
        "mean_difference": 0.01,
        "largest_difference": 0.3,
        "auc_drop": 0.005,
    }
    return Comparison(**{**figures, **changes})  # type: ignore[arg-type]


def test_gate_passes_at_its_bounds() -> None:
    """The bounds are those of the contract, and inclusive; without labels there is no AUC to judge."""
    assert make_comparison().list_failures() == []
    assert make_comparison(auc_drop=None).list_failures() == []


@pytest.mark.parametrize(
    "change",
    [
        {"agreement_at_threshold": 0.994},
        {"agreement_at_half": 0.994},
        {"mean_difference": 0.0101},
        {"mean_difference": float("nan")},
        {"auc_drop": 0.0051},
    ],
)
def test_gate_fails_beyond_each_bound(change: dict[str, float]) -> None:
    """One figure is enough, and what is not a number fails."""
    assert len(make_comparison(**change).list_failures()) == 1


@pytest.mark.parametrize(("changed", "passes"), [(1, True), (2, False)])
def test_one_changed_label_of_few_slices_is_no_failure(changed: int, passes: bool) -> None:
    """Of 99 slices one is more than 0.5 %."""
    comparison = make_comparison(slices=99, agreement_at_threshold=1 - changed / 99)  # type: ignore[arg-type]
    assert (comparison.list_failures() == []) is passes


def test_gate_measures_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agreement at both thresholds, differences and the drop of the AUC, on four slices counted by hand."""
    data = embed_spec(build_network(), SPEC)
    model, variant = (OnnxModel(data, source=name) for name in ("fp32", "int8"))
    pixels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * np.ones((1, SIDE, SIDE, 1), np.uint8)
    slices = Slices(pixels, np.array([0, 1, 0, 1]))
    answers = {model: [0.1, 0.2, 0.4, 0.9], variant: [0.1, 0.4, 0.6, 0.5]}
    monkeypatch.setattr(OnnxModel, "run", lambda self, image: np.array([[0, answers[self][image.flat[0]]]], np.float32))

    gate = Judge(model, CalibrationSets(slices, slices, ""), Watch()).compare(variant)

    assert gate.calibration == gate.held_out
    assert gate.held_out.slices == 4
    assert gate.held_out.agreement_at_threshold == 0.75  # 0.2 → 0.4 crosses 0.3
    assert gate.held_out.agreement_at_half == 0.5  # 0.4 → 0.6 and 0.9 → 0.5 cross 0.5
    assert gate.held_out.mean_difference == pytest.approx(0.2)
    assert gate.held_out.largest_difference == pytest.approx(0.4)
    assert gate.held_out.auc_drop == pytest.approx(3 / 4 - 2 / 4)


def write_folder(folder: Path, count: int, labels: tuple[str, ...] = SPEC.labels) -> Path:
    """A folder a class, with as many slices in each."""
    for label in labels:
        (folder / label).mkdir(parents=True)
        for number in range(count):
            (folder / label / f"{number:03}.png").write_bytes(encode(make_slice(2 * number, SIDE, number)))
    return folder


FORMAT = InputFormat(SIDE, SIDE, "grey")


def test_folder_is_split_without_overlap(tmp_path: Path) -> None:
    """A third of each class calibrates and the rest judges; labels come from the folders."""
    sets = load_sets(write_folder(tmp_path / "slices", 50), FORMAT, SPEC)

    assert sets.source == "slices"
    assert (len(sets.calibration.pixels), len(sets.held_out.pixels)) == (32, 68)
    assert sets.held_out.classes is not None
    assert sets.held_out.classes.sum() == 34
    calibration, held_out = ({image.tobytes() for image in part.pixels} for part in (sets.calibration, sets.held_out))
    assert not calibration & held_out


def test_folder_without_labels_is_judged_without_auc(tmp_path: Path) -> None:
    """Slices whose folders are not the model's labels still calibrate."""
    sets = load_sets(write_folder(tmp_path, 50, ("a", "b")), FORMAT, SPEC)

    assert sets.held_out.classes is None


def test_folder_with_too_few_slices_is_refused(tmp_path: Path) -> None:
    """The message says how many are needed, and in which folders."""
    with pytest.raises(ConversionError, match=r"20 slices.*at least 96 .*normal, stroke"):
        load_sets(write_folder(tmp_path, 10), FORMAT, SPEC)
    with pytest.raises(ConversionError, match="no such folder"):
        load_sets(tmp_path / "missing", FORMAT, SPEC)


def test_damaged_slice_names_itself(tmp_path: Path) -> None:
    """One damaged file among many is found by its name."""
    write_folder(tmp_path, 50)
    (tmp_path / "stroke" / "007.png").write_bytes(b"\x89PNG damaged")

    with pytest.raises(ConversionError, match=r"stroke/007\.png.*IMAGE_UNDECODABLE"):
        load_sets(tmp_path, FORMAT, SPEC)


def test_slices_are_drawn_where_no_folder_is_given() -> None:
    """Synthetic slices of both classes, and the command that draws them again."""
    sets = load_sets(None, FORMAT, SPEC, most=(32, 64))

    assert sets.source == "python -m training phantom --count 96 --seed 1789"
    assert (len(sets.calibration.pixels), len(sets.held_out.pixels)) == (32, 64)
    assert sets.held_out.classes is not None
    assert 0 < sets.held_out.classes.sum() < 64
