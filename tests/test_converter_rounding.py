"""Rounding of weights: whole steps, sums kept, and nothing moved further than to the next step."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from converter.int8.rounding import round_keeping_sums, round_weights

WEIGHTS = np.random.default_rng(4).normal(0, 0.2, (16, 4, 3, 3))


def steps_of(weights: np.ndarray, steps: int = 127) -> np.ndarray:
    """Size of a step of each filter."""
    return np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / steps


@pytest.mark.parametrize("steps", [127, 64])
@pytest.mark.parametrize("axes", [(2, 3), (1, 2, 3)], ids=["each channel", "all channels"])
def test_sums_are_kept_to_half_a_step(steps: int, axes: tuple[int, ...]) -> None:
    """One by one, most sums would be further off."""
    step = steps_of(WEIGHTS, steps)

    rounded = round_keeping_sums(WEIGHTS, steps, axes)

    off = np.abs((rounded - WEIGHTS).sum(axis=axes, keepdims=True)) / step
    plain = np.abs((np.round(WEIGHTS / step) * step - WEIGHTS).sum(axis=axes, keepdims=True)) / step
    assert off.max() <= 0.5 + 1e-9
    assert plain.max() > 1


def test_weights_are_whole_steps_and_move_by_less_than_one() -> None:
    """The largest weight of a filter, which sets its scale, does not move at all."""
    step = steps_of(WEIGHTS)

    rounded = round_keeping_sums(WEIGHTS, 127, (2, 3))

    assert np.allclose(rounded / step, np.round(rounded / step))
    assert np.abs(rounded - WEIGHTS).max() < step.max()
    assert np.allclose(steps_of(rounded), step)


def test_zeros_stay_zeros() -> None:
    """Also in a filter of nothing else."""
    weights = WEIGHTS.copy()
    weights[:, :, 0] = 0
    weights[3] = 0

    rounded = round_keeping_sums(weights, 127, (1, 2, 3))

    assert not rounded[weights == 0].any()


def test_depthwise_weights_keep_their_sums_too() -> None:
    """Their filters are small, and the error of one is seen in all that follows."""
    weights = np.random.default_rng(6).normal(0, 0.2, (8, 1, 3, 3)).astype(np.float32)
    node = onnx.helper.make_node("Conv", ["x", "weights"], ["y"], name="depthwise", group=8)
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("x", "y")]
    constant = onnx.numpy_helper.from_array(weights, "weights")
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "depthwise", ports[:1], ports[1:], [constant]))

    round_weights(model, ["depthwise"], steps=127, pixel_layer="")

    rounded = onnx.numpy_helper.to_array(model.graph.initializer[0])
    step = steps_of(weights)
    assert np.allclose(rounded / step, np.round(rounded / step), atol=1e-3)
    assert (np.abs((rounded - weights).sum(axis=(2, 3), keepdims=True)) / step).max() <= 0.501
