"""Which layers of a failing INT8 variant stay fp32, and that the search for them ends in time and says where it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import pytest

from converter.errors import AccuracyError, FusionError
from converter.graph.edit import embed_spec
from converter.int8.gate import Judge
from converter.int8.quantize import quantise
from converter.int8.ranges import Ranges
from converter.int8.region import Region
from converter.int8.search import find_first, is_too_much, list_choices
from converter.int8.sensitivity import measure_sensitivity
from converter.int8.speed import compare_speed
from converter.int8.watch import TimeIsUp, Watch
from converter.int8.workshop import TARGETS, Workshop, prepare
from server.models.runtime import OnnxModel
from tests.test_converter_quantize import FILTERS, SETS, SPEC, build_network, make_int8, read_weights

pytestmark = pytest.mark.usefixtures("steady_speed")

CONVOLUTIONS = [f"conv{number}" for number in range(len(FILTERS))]


class Clock:
    """Time that goes on by ``step`` seconds whenever somebody looks."""

    def __init__(self, step: float = 0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def end(*_: Any) -> None:
    """In place of a step that takes too long."""
    raise TimeIsUp


def quantise_slowly(offset: tuple[int, ...], minutes: float, step: float) -> list[str]:
    """What is told of a quantisation on a clock that goes on by ``step`` at each look."""
    told: list[str] = []
    model = build_network(offset)
    reference = OnnxModel(embed_spec(model, SPEC), source="fp32")
    quantise(model, reference, SETS, target="x86-vnni", watch=Watch(minutes, told.append, clock=Clock(step)))
    return told


def test_layer_that_costs_accuracy_stays_fp32_and_is_named() -> None:
    """A tensor whose values need more than 256 levels is found: what makes it and what takes it are fp32."""
    made = make_int8(offset=(2,))

    assert made.gate.list_failures() == []
    assert {"conv2", "conv3"} == set(made.fp32_layers)
    assert len(read_weights(made.data)) == len(FILTERS) - 2
    assert made.looks <= 2


def test_variant_that_fails_the_gate_is_refused_with_its_figures() -> None:
    """Where no choice of layers helps, nothing is made, and the message says by how much it failed."""
    with pytest.raises(AccuracyError, match=r"gate.*(agreement|mean \|Δp\|).*(at least|at most).*serve fp32"):
        make_int8(offset=(0, 1, 2))


def test_search_tells_what_it_is_at_and_how_long_it_takes() -> None:
    """A line every few seconds of a step, with what is done and what is left of it."""
    told = quantise_slowly((2,), minutes=600, step=3)

    assert any(line.startswith("recording ranges of activations: ") for line in told)
    assert any("measuring what each layer costs in accuracy: 3 of" in line and "left" in line for line in told)
    assert any(line.startswith("trying 2 of 4 layers in fp32, at most ") for line in told)


def test_time_that_is_up_is_told_with_the_figures_and_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came nearest by then is named, and the flag that gives more time."""
    monkeypatch.setattr("converter.int8.quantize.measure_sensitivity", end)

    with pytest.raises(AccuracyError, match=r"in 30 minutes: .*label agreement.*--int8-minutes 60"):
        quantise_slowly((0, 1, 2), minutes=30, step=0)


def test_time_that_is_up_at_once_is_told_too() -> None:
    """Before any variant was made."""
    with pytest.raises(AccuracyError, match=r"in 0.1 minutes: no variant was made.*--int8-minutes 0.2"):
        quantise_slowly((), minutes=0.1, step=4)


def test_best_that_passed_is_taken_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first choice passes, and the time ends before a smaller one was tried."""
    monkeypatch.setattr("converter.int8.quantize.find_first", end)
    model = build_network((2,))

    made = quantise(model, OnnxModel(embed_spec(model, SPEC), source="fp32"), SETS, target="x86-vnni")

    assert set(made.fp32_layers) == {"conv2", "conv3"}


def test_variant_that_is_slower_than_fp32_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence has the figure; no layer is looked for."""
    monkeypatch.setattr("converter.int8.quantize.compare_speed", lambda *_: 0.5)
    model = build_network((2,))

    with pytest.raises(FusionError, match=r"INT8 is 2\.00 times slower than fp32 on this machine"):
        quantise(model, OnnxModel(embed_spec(model, SPEC), source="fp32"), SETS, target="x86-vnni")


def test_fewer_slices_judge_a_slow_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a share of the time allows, evenly spread over the classes."""
    monkeypatch.setattr("converter.int8.gate.measure_seconds", lambda *_: 1.0)
    model = OnnxModel(embed_spec(build_network(), SPEC), source="fp32")

    gate = Judge(model, SETS, Watch(minutes=10)).compare(model)

    assert (gate.calibration.slices, gate.held_out.slices) == (40, 96)
    assert gate.held_out.auc_drop == 0


def test_held_out_slices_do_not_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked once for a variant that passes at first, however many methods were tried."""
    asked: list[OnnxModel] = []
    compare = Judge.compare_held_out
    monkeypatch.setattr(Judge, "compare_held_out", lambda self, model: asked.append(model) or compare(self, model))
    model = build_network()

    made = quantise(model, OnnxModel(embed_spec(model, SPEC), source="fp32"), SETS, target="x86-vnni")

    assert len(asked) == made.looks == 1


def measure(offset: tuple[int, ...], watch: Watch) -> tuple[Region, dict[str, float]]:
    prepared = prepare(build_network(offset), SETS.calibration.pixels, Watch())
    reference = OnnxModel(embed_spec(build_network(offset), SPEC), source="fp32")
    workshop = Workshop(
        prepared, SPEC, TARGETS["x86-vnni"], Judge(reference, SETS, Watch()), SETS.calibration.pixels[::10], Watch()
    )
    ranges = Ranges(prepared, SETS.calibration.pixels, Watch()).find("min-max")
    pixels = SETS.calibration.pixels[::10]
    return workshop.region, measure_sensitivity(prepared, workshop.round(()), workshop.region, ranges, pixels, watch)


def test_sensitivity_names_the_tensor_that_costs_most() -> None:
    """All tensors with a scale of their own are measured, in one session."""
    region, sensitivity = measure((1,), Watch())

    assert list(sensitivity) == region.list_tensors()
    costliest = max(sensitivity, key=lambda name: sensitivity[name])
    assert region.find_member(costliest) == "conv1"
    assert region.find_users(costliest) == ["conv2"]
    assert sensitivity[costliest] > 100 * sorted(sensitivity.values())[-2]


def test_sensitivity_takes_a_share_of_the_time() -> None:
    """Where it is short, one slice has to do."""
    watch = Watch(minutes=0.1, clock=Clock(0.1))

    _, sensitivity = measure((1,), watch)

    assert all(np.isfinite(list(sensitivity.values())))
    assert watch.left > 0.1 * 60 / 3


@pytest.mark.parametrize("first", range(20))
def test_first_that_passes_is_found_by_bisection(first: int) -> None:
    """In few tries."""
    tried: list[int] = []

    assert find_first(list(range(20)), lambda choice: tried.append(choice) or choice >= first) == first
    assert len(tried) <= 6


def test_where_the_last_does_not_pass_nothing_else_is_tried() -> None:
    """One try says that there is no way."""
    tried: list[int] = []

    assert find_first([1, 2, 3], lambda choice: tried.append(choice)) is None
    assert tried == [3]


def test_choices_grow_with_the_costliest_first_and_stay_within_half() -> None:
    """What makes a tensor and all that take it; what would be too much is left out."""
    region = Region(build_network())
    first, second, third, last = (region.find_result(name) for name in CONVOLUTIONS)

    assert list_choices(region, {third: 2.0, first: 1.0}) == [("conv2", "conv3")]
    assert list_choices(region, {last: 2.0, third: 1.0, first: 0.5}) == [("conv3",), ("conv2", "conv3")]
    assert list_choices(region, {last: 1.0, second: 1e-6}) == [("conv3",)]
    assert is_too_much(region, {"conv1", "conv2", "conv3"})


def build_residual() -> onnx.ModelProto:
    """Two convolutions, the second with a shortcut around it, and a curve that stays fp32 before a third."""
    from converter.graph.edit import canonicalise

    constants = {f"w{number}": np.ones((4, 4 if number else 1, 3, 3), np.float32) / 36 for number in range(3)}
    node = onnx.helper.make_node

    def convolve(taken: str, number: int) -> onnx.NodeProto:
        return node("Conv", [taken, f"w{number}"], [f"c{number}"], name=f"conv{number}", pads=[1, 1, 1, 1])

    nodes = [
        node("Cast", ["image"], ["float"], to=onnx.TensorProto.FLOAT),
        node("Transpose", ["float"], ["pixels"], perm=(0, 3, 1, 2)),
        convolve("pixels", 0),
        node("Relu", ["c0"], ["r0"]),
        convolve("r0", 1),
        node("Add", ["r0", "c1"], ["sum"], name="join"),
        node("Sigmoid", ["sum"], ["curve"], name="curve"),
        convolve("curve", 2),
        node("GlobalAveragePool", ["c2"], ["mean"], name="mean"),
        node("Flatten", ["mean"], ["probabilities"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "residual",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["N", 8, 8, 1])],
        [onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["N", 4])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return canonicalise(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize(
    ("chosen", "fp32", "crossings"),
    [
        ((), [], (2, 2)),  # pixels and the curve in, the sum and the last convolution out
        (("conv2",), ["conv2"], (1, 1)),
        (("conv1",), ["conv1"], (3, 3)),
        (("conv1", "join", "conv2"), ["conv1", "join", "conv2"], (1, 2)),
    ],
)
def test_values_cross_where_what_is_between_is_fp32(
    chosen: Sequence[str], fp32: list[str], crossings: tuple[int, int]
) -> None:
    """Each conversion has a reason: a node that stays fp32 on one side of it."""
    region = Region(build_residual())

    assert region.members == ["conv0", "conv1", "join", "conv2"]
    assert region.list_fp32(chosen) == fp32
    assert region.count_crossings(chosen) == crossings


def test_time_left_is_told_now_and_then() -> None:
    """Every five seconds at most, in seconds or minutes."""
    told: list[str] = []
    watch = Watch(60, told.append, clock=Clock(1))

    assert list(watch.track(range(12), 12, "step")) == list(range(12))
    assert told
    assert all(line.startswith("step: ") and line.endswith(" left") for line in told)
    with pytest.raises(TimeIsUp):
        list(Watch(0.1, clock=Clock(1)).track(range(12), 12, "step"))


def test_speed_is_the_shortest_time_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor's own time, in turn; what disturbs one run does not count."""
    clock = Clock()
    monkeypatch.setattr("converter.int8.speed.time.thread_time", clock)
    durations = {"int8": iter([9.0, 2.0] + [3.0] * 20), "fp32": iter([9.0, 8.0, 6.0] + [7.0] * 20)}

    def make_model(name: str) -> Any:
        model = Mock()
        model.run = lambda image: setattr(clock, "now", clock.now + next(durations[name]))
        return model

    assert compare_speed(make_model("int8"), make_model("fp32"), SETS.calibration.pixels[0]) == 3
