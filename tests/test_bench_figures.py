"""Figures, arithmetic of a graph, and what is read from processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.processes import Service, list_tree, measure_installed_mb
from bench.report.figures import describe_latencies, divide, summarise, take
from bench.serving.settings import count_flops, describe_images
from tests.fakes import BUNDLED, ROOT, encode, make_slice


def test_percentiles_are_those_of_all_latencies() -> None:
    """Of 0 to 100 ms, the 99th percentile is 99 ms."""
    figures = describe_latencies([float(value) for value in range(101)])

    assert figures == {"count": 101, "p50_ms": 50, "p90_ms": 90, "p99_ms": 99}


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that is twice as slow in the second round changes no ratio."""
    server = [{"rate": 80.0}, {"rate": 40.0}]
    limit = [{"rate": 100.0}, {"rate": 50.0}]

    assert divide(take(server, "rate"), take(limit, "rate")) == [0.8, 0.8]


def test_sides_with_different_rounds_are_no_ratio() -> None:
    """A round that is missing on one side must not shift the others."""
    with pytest.raises(ValueError, match="shorter"):
        divide([1.0, 2.0], [1.0])


def test_summary_is_median_with_minimum_and_maximum() -> None:
    """One bad round does not move the figure, and is not hidden."""
    assert summarise([1.0, 9.0, 2.0]) == "2.00 (1.00 to 9.00)"


def write_graph(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, tuple[int, ...]]) -> Path:
    """A graph from ``x`` float [N, 3, 8, 8] to ``y``, with zero weights of these shapes."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_flops_of_a_convolution(tmp_path: Path) -> None:
    """Two for each multiply-add: 4 x 6 x 6 outputs of 3 x 3 x 3 products."""
    path = write_graph(tmp_path / "m.onnx", [helper.make_node("Conv", ["x", "w"], ["y"])], {"w": (4, 3, 3, 3)})

    assert count_flops(path) == 2 * (4 * 6 * 6) * (3 * 3 * 3)


def test_flops_of_a_matrix_product(tmp_path: Path) -> None:
    """192 inputs to 10 outputs."""
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]

    assert count_flops(write_graph(tmp_path / "m.onnx", nodes, {"w": (192, 10)})) == 2 * 192 * 10


def test_bundled_network_has_the_papers_arithmetic() -> None:
    """0.95 GFLOP at 256 x 256: the paper's Table 1 by hand, with one grey channel where it has three (1.02 GFLOP)."""
    sides, filters = (254, 125, 60, 28, 12, 4), (32, 64, 64, 64, 64, 64)
    convolutions = sum(
        2 * side**2 * outputs * 9 * inputs for side, inputs, outputs in zip(sides, (1, *filters), filters, strict=False)
    )

    flops = count_flops(BUNDLED / "model.onnx")

    score = 2 * 128 * 128  # of the outlier score, which is no part of the paper's network
    assert flops == convolutions + 2 * (2 * 2 * 64 * 64 + 64 * 2) + score


def test_memory_and_cpu_are_those_of_a_whole_process_tree() -> None:
    """A server that works in child processes is not measured by its parent alone."""
    child = "import sys; block = bytearray(50_000_000); sum(range(3_000_000)); print(flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        service = Service(process.pid, "")

        assert len(list_tree(process.pid)) == 2
        assert service.resident_mb() > 50
        assert service.cpu_seconds() > 0
        process.stdin.close()


def test_a_process_that_has_ended_costs_nothing() -> None:
    """Workers that end while they are measured do not end the measurement."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()

    assert Service(process.pid, "").cpu_seconds() == 0
    assert Service(process.pid, "").resident_mb() == 0


def test_installed_size_leaves_out_pip_and_links(tmp_path: Path) -> None:
    """What every virtual environment brings along is not the server's."""
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name, size in (("package/module.py", 2_000_000), ("pip/module.py", 5_000_000), ("single.py", 1_000_000)):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_bytes(bytes(size))
    os.symlink(packages / "single.py", packages / "package" / "link.py")

    assert measure_installed_mb(tmp_path) == 3
    assert measure_installed_mb(tmp_path / "missing") is None


def test_images_outside_the_project_stay_unnamed(tmp_path: Path) -> None:
    """A report says nothing of the machine's folders."""
    (tmp_path / "scan.png").write_bytes(encode(make_slice(side=64)))

    described = describe_images(tmp_path)

    assert described["images"] == "own images"
    assert described["image_size"] == "64 x 64"
    assert str(tmp_path) not in str(described)
    assert describe_images(ROOT / "samples")["images"] == "samples"
