"""The measurement of ``bench.peers.runtimes``, in the environment that has both runtimes and NNCF. Prints JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnxruntime
import openvino

BURST = 5
"""Runs that are timed together; the first run of a turn is not, because it finds the other side's caches."""

MOST_SLICES = 128


def open_onnxruntime(file: str) -> Callable[[Any], Any]:
    """ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"image": pixels})


def open_openvino(model: Any, precision: str | None) -> Callable[[Any], Any]:
    """OpenVINO on one thread, with its inference precision as told or as it chooses."""
    config: dict[str, Any] = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    if precision:
        config["INFERENCE_PRECISION_HINT"] = precision
    request = openvino.Core().compile_model(model, "CPU", config).create_infer_request()
    return lambda pixels: request.infer({"image": pixels})


def quantise_with_nncf(file: str, slices: Any) -> Any:
    """What NNCF makes of an fp32 file with its defaults."""
    import nncf

    dataset = nncf.Dataset([slice_[np.newaxis] for slice_ in slices[:MOST_SLICES]], lambda pixels: {"image": pixels})
    return nncf.quantize(openvino.Core().read_model(file), dataset, subset_size=min(MOST_SLICES, len(slices)))


def open_side(side: dict[str, Any], slices: Any) -> Callable[[Any], Any]:
    """What a side of the comparison runs."""
    match side["runtime"]:
        case "onnxruntime":
            return open_onnxruntime(side["file"])
        case "openvino":
            return open_openvino(openvino.Core().read_model(side["file"]), side["precision"])
        case "openvino-nncf":
            return open_openvino(quantise_with_nncf(side["file"], slices), side["precision"])
    raise ValueError(side["runtime"])


def main() -> int:
    """Reads the plan, measures all sides in turns, and prints milliseconds of CPU time a run by round."""
    plan = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    slices = np.load(plan["slices"])
    colour = np.repeat(slices, 3, axis=3)
    sides = {side["name"]: open_side(side, colour if side["channels"] == 3 else slices) for side in plan["sides"]}
    feeds = {side["name"]: (colour if side["channels"] == 3 else slices)[:1] for side in plan["sides"]}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(plan["rounds"]):
        for name, run in sides.items():
            run(feeds[name])
            started = time.process_time()  # of one thread: what others do on the machine counts less
            for _ in range(BURST):
                run(feeds[name])
            times[name].append(1000 * (time.process_time() - started) / BURST)
    versions = {"onnxruntime": onnxruntime.__version__, "openvino": openvino.__version__.split("-")[0]}
    print(json.dumps({"ms": times, "versions": versions}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
