"""OpenVINO: the only place that knows it. An extra that the serving installation does not need."""

from __future__ import annotations

import sys
import threading

import numpy as np
from numpy.typing import NDArray

from server.contract import METADATA_KEY, OUTPUT_NAME
from server.engine import EngineOptions, Port
from server.errors import ModelFileError

# It imports its developer tools, and these a telemetry client; where that is missing, they take a stub of their own.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
try:
    import openvino
except ImportError:
    raise ModelFileError(
        "RUNTIME_MISSING",
        "--runtime openvino: OpenVINO is not installed; install it with "
        "'pip install --require-hashes -r requirements/openvino.lock', or serve with --runtime onnxruntime",
    ) from None


class OpenVinoEngine:
    """See ``server.engine.Engine``."""

    name = "openvino"
    version = openvino.__version__.partition("-")[0]

    def __init__(self, data: bytes, options: EngineOptions) -> None:
        """See ``server.engine.open_engine``."""
        core = openvino.Core()
        model = core.read_model(data)
        key = ["framework", METADATA_KEY]
        self.metadata: dict[str, str] = (
            {METADATA_KEY: model.get_rt_info(key).astype(str)} if model.has_rt_info(key) else {}
        )
        self.inputs = [to_port(port) for port in model.inputs]
        self.outputs = [to_port(port) for port in model.outputs]
        self._alone = self._busy = Requests(compile_model(core, model, options.threads, options.workers))
        if options.busy_threads != options.threads:
            self._busy = Requests(compile_model(core, model, options.busy_threads, options.workers))

    def run(self, pixels: NDArray[np.uint8], *, busy: bool) -> NDArray[np.float32]:
        """See ``server.engine.Engine``."""
        return (self._busy if busy else self._alone).run(pixels)


class Requests:
    """Inference requests of one compiled model, one a thread: a request can do one thing at a time."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._compiled = compiled
        self._local = threading.local()

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities of a batch."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        result = request.infer([pixels])
        return np.array(result[OUTPUT_NAME], dtype=np.float32)


def compile_model(core: openvino.Core, model: openvino.Model, threads: int, workers: int) -> openvino.CompiledModel:
    """Compiles for the CPU with everything pinned that OpenVINO would otherwise choose by what it finds."""
    streams = max(1, workers // threads)  # runs at the same time; OpenVINO divides its threads among them
    return core.compile_model(
        model,
        "CPU",
        {
            # By default bf16 where the processor has it: other answers, and twice as slow where it has no AMX.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": streams * threads,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,  # a container may be moved to other processors
        },
    )


def to_port(port: openvino.Output) -> Port:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    return Port(port.any_name, str(np.dtype(port.element_type.to_dtype())), shape)
