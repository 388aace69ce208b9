"""The peak of one core, measured: the fastest large matrix product that the libraries at hand reach.

fp32 is the better of NumPy (OpenBLAS) and ONNX Runtime (MLAS); int8 is ONNX Runtime's MatMulInteger, unsigned by
signed, which uses VNNI or AMX where the processor has them. Runs in a process of its own, because OpenBLAS reads its
number of threads once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from server.flags import LineParser
from server.process.children import run

ROOT = Path(__file__).resolve().parents[2]
SIDE = 512
"""Of the square matrices: 1 MB each in fp32, so that the work stays in a core's caches, as a good kernel's does."""


def time_best(works: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Returns the shortest time of each work, in seconds. Noise only ever adds, and in turns it meets all alike."""
    best = dict.fromkeys(works, float("inf"))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, work in works.items():
            started = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def make_product(operation: str) -> Callable[[], object]:
    """A matrix product in ONNX Runtime on one thread, with constant weights, which it packs beforehand."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    kinds = {"MatMul": (np.float32, np.float32), "MatMulInteger": (np.uint8, np.int8)}
    left, right = kinds[operation]
    random = np.random.default_rng(0)
    weights = random.integers(-50, 50, (SIDE, SIDE)).astype(right)
    inputs = random.integers(0, 50, (SIDE, SIDE)).astype(left)
    result = TensorProto.FLOAT if operation == "MatMul" else TensorProto.INT32
    graph = helper.make_graph(
        [helper.make_node(operation, ["a", "b"], ["c"])],
        "peak",
        [helper.make_tensor_value_info("a", helper.np_dtype_to_tensor_dtype(np.dtype(left)), [SIDE, SIDE])],
        [helper.make_tensor_value_info("c", result, [SIDE, SIDE])],
        [numpy_helper.from_array(weights, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": inputs})


def measure_here(seconds: float) -> dict[str, float]:
    """Billions of operations a second, by precision; a multiply-add counts as two."""
    import numpy as np

    matrix = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    out = np.empty_like(matrix)
    best = time_best(
        {
            "numpy": lambda: np.matmul(matrix, matrix, out=out),
            "onnxruntime": make_product("MatMul"),
            "int8": make_product("MatMulInteger"),
        },
        seconds,
    )
    operations = 2 * SIDE**3
    return {
        "fp32": 1e-9 * operations / min(best["numpy"], best["onnxruntime"]),
        "int8": 1e-9 * operations / best["int8"],
    }


def measure_peak(seconds: float) -> dict[str, float]:
    """``measure_here`` in another process, with libraries held to one thread."""
    command = [sys.executable, "-m", "bench.serving.peak", "--seconds", str(seconds)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    output = run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=120)
    peak: dict[str, float] = json.loads(output.stdout)
    return peak


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the peak as JSON."""
    parser = LineParser("python -m bench.serving.peak", "Prints the peak of one core as JSON.")
    parser.add_argument("--seconds", type=float, default=1.5)
    print(json.dumps(measure_here(parser.parse_args(argv).seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
