"""The sections about runtimes and decoders: ratios round by round, budgets, and a short run of the decoder's."""

from __future__ import annotations

from typing import Any

from bench.report.core import list_budgets, render_decode, render_runtimes
from bench.serving.decode import DECODERS, make_files, measure, measure_distance
from tests.fakes import encode, make_slice
from tests.test_bench_report import MACHINE


def make_runtimes() -> dict[str, Any]:
    """Two rounds, the second on a machine that had become twice as slow."""
    times = {
        "ONNX Runtime fp32, as exported": [10.0, 20.0],
        "ONNX Runtime int8, as converted here": [2.5, 5.0],
        "OpenVINO int8 by NNCF": [2.0, 4.0],
    }
    model = {"model": "stroke-cnn 1", "gflop": 1.02, "ms": times, "versions": {"openvino": "1.2"}}
    models = {"cnn": model, "resnet50": {**model, "model": "resnet50 1"}}
    return {"machine": MACHINE, "settings": {"rounds": 2}, "models": models}


def test_runtimes_are_compared_round_by_round() -> None:
    """A machine that slows down between rounds changes no ratio, and the budgets are judged on the ratios."""
    budgets = {budget.figure: budget for budget in list_budgets(make_runtimes())}

    gain = budgets["stroke-cnn 1 int8 / fp32 in ONNX Runtime"]
    assert list(gain.values) == [4.0, 4.0]
    assert gain.is_met
    assert not budgets["stroke-cnn 1 int8 / OpenVINO int8 by NNCF"].is_met
    assert "resnet50 1 int8 / OpenVINO int8 by NNCF" not in budgets


def test_runtimes_section_names_machine_versions_and_random_weights() -> None:
    """What a figure was measured on stands beside it."""
    page = render_runtimes(make_runtimes())

    for words in ("A Processor", "openvino 1.2", "resnet50 1; random weights", "| OpenVINO int8 by NNCF | 3.00"):
        assert words in page


def test_decoders_see_the_same_slices_as_png_and_jpeg() -> None:
    """Each slice is decoded in both forms by every decoder, once a round, to nearly the same pixels."""
    files = make_files([encode(make_slice(level, side=64)) for level in (60, 160)])

    times = measure(files, rounds=2)

    assert [len(images) for images in files.values()] == [2, 2]
    assert all(len(values) == 2 for sides in times.values() for values in sides.values())
    assert all(sides.keys() == DECODERS.keys() for sides in times.values())
    assert all(distance < 3 for distance in measure_distance(files).values())


def test_decode_section_judges_the_mix() -> None:
    """The budget is on one PNG and one JPEG together."""
    sides = {"plain Pillow": [4.0], "server, grey model": [1.0]}
    section = {
        "machine": MACHINE,
        "images": "samples",
        "rounds": 1,
        "ms": {"PNG": sides, "JPEG": {**sides, "server, grey model": [3.0]}},
        "distance": {"PNG": 0.5},
    }

    page = render_decode(section)

    assert "| one of each, server, grey model | 4.00 (4.00 to 4.00) | 2.00 (2.00 to 2.00) |" in page
    assert "0.50 on PNG" in page
