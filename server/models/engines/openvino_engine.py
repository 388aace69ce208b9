"""OpenVINO: the only place that knows it. An extra that the serving installation does not need."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.errors import ModelFileError
from server.machine.native_thread import NativeThread
from server.models.engines.engine import EngineOptions, Port

# It imports its developer tools, and these a telemetry client; where that is missing, they take a stub of their own.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
try:
    import openvino
except ImportError:
    raise ModelFileError(
        "RUNTIME_MISSING",
        "--runtime openvino: OpenVINO is not installed; install it with "
        "'pip install --require-hashes -r requirements/extras/openvino.lock', or serve with --runtime onnxruntime",
    ) from None


THREAD = NativeThread("openvino")


class OpenVinoEngine:
    """See ``server.models.engines.engine.Engine``. Its models are compiled and dropped in ``THREAD``."""

    name = "openvino"
    version = openvino.__version__.partition("-")[0]

    def __init__(self, data: bytes, options: EngineOptions) -> None:
        """See ``server.models.runtime.open_engine``."""
        # Only the list is held here: what is in it must not die with this object, in whatever thread that is.
        self._requests: list[Requests] = []
        requests = self._requests
        self.inputs, self.outputs = THREAD.call(lambda: compile_models(data, options, requests))
        THREAD.drop_with(self, requests)

    def run(self, pixels: NDArray[np.uint8], outputs: Sequence[str], *, busy: bool) -> list[NDArray[np.float32]]:
        """See ``server.models.engines.engine.Engine``."""
        return self._requests[-1 if busy else 0].run(pixels, outputs)


class Requests:
    """Inference requests of one compiled model, as many as there are runs at the same time: each does one at a time."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._compiled = compiled
        self._idle: list[openvino.InferRequest] = []

    def run(self, pixels: NDArray[np.uint8], outputs: Sequence[str]) -> list[NDArray[np.float32]]:
        """The outputs of these names for a batch."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            answers = request.infer([pixels])
            return [np.array(answers[name], dtype=np.float32) for name in outputs]
        finally:
            self._idle.append(request)


def compile_models(data: bytes, options: EngineOptions, held: list[Requests]) -> tuple[list[Port], list[Port]]:
    """Puts ``Requests`` for each number of threads into ``held``, and returns the inputs and outputs of the graph."""
    core = get_core()
    model = core.read_model(data)
    try:
        for threads in dict.fromkeys((options.threads, options.busy_threads)):
            held.append(Requests(compile_model(core, model, threads, options.workers)))
    except BaseException:
        held.clear()
        raise
    return [to_port(port) for port in model.inputs], [to_port(port) for port in model.outputs]


@functools.cache
def get_core() -> openvino.Core:
    """The one of the process. Never dropped: with its last model it would take the signal stack of ``THREAD`` away."""
    return openvino.Core()


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
