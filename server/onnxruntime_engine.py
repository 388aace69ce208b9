"""ONNX Runtime: the only place that knows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from server.contract import INPUT_NAME, OUTPUT_NAME
from server.engine import EngineOptions, Port
from server.graph_cache import LARGE_MODEL_BYTES, GraphCache

onnxruntime.set_default_logger_severity(3)  # errors only: warnings about the graph are the converter's business
# One arena for all sessions of the process: two sessions of a model do not each keep room for its activations.
onnxruntime.create_and_register_allocator_v2(
    "CPUExecutionProvider",
    onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    ),
    {},
    onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1}),  # by what is needed, not to the next power of two
)

DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxRuntimeEngine:
    """See ``server.engine.Engine``. A pair of sessions over one graph, or one where both would be alike."""

    name = "onnxruntime"
    version = onnxruntime.__version__

    def __init__(self, data: bytes, digest: str, options: EngineOptions) -> None:
        """See ``server.engine.open_engine``."""
        graph = None
        if options.cache is not None and len(data) >= LARGE_MODEL_BYTES:
            cache = GraphCache(options.cache, f"{self.name}-{self.version}", digest)
            graph = cache.find() or cache.build(lambda path: write_optimised(data, path))
        self._alone = open_session(graph or data, options.threads)
        self._busy = self._alone
        if options.busy_threads != options.threads:
            self._busy = open_session(graph or data, options.busy_threads)
        self.metadata: dict[str, str] = self._alone.get_modelmeta().custom_metadata_map
        self.inputs = [to_port(port) for port in self._alone.get_inputs()]
        self.outputs = [to_port(port) for port in self._alone.get_outputs()]

    def run(self, pixels: NDArray[np.uint8], *, busy: bool) -> NDArray[np.float32]:
        """See ``server.engine.Engine``."""
        session = self._busy if busy else self._alone
        (probabilities,) = session.run([OUTPUT_NAME], {INPUT_NAME: pixels})
        return np.asarray(probabilities, dtype=np.float32)


def open_session(model: bytes | Path, threads: int) -> onnxruntime.InferenceSession:
    """A session over the bytes of a model, or over the file of an optimised graph, which is taken as it is."""
    options = make_options(threads)
    if isinstance(model, Path):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def make_options(threads: int) -> onnxruntime.SessionOptions:
    """Options that all sessions share. Threads are explicit: ONNX Runtime ignores the limits of containers."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread is fast on a quiet box and doubles the latency and the CPU of everything on a busy one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    return options


def write_optimised(data: bytes, path: Path) -> None:
    """Optimises a model for this processor and writes it to ``path``, its weights beside it to ``path`` + ".weights".

    Weights in a file of their own are mapped, not read: sessions share them, and loading takes no time.
    """
    options = make_options(1)
    options.optimized_model_filepath = str(path)
    for key, value in (("file_name", f"{path.name}.weights"), ("min_size_in_bytes", "1024")):
        options.add_session_config_entry(f"session.optimized_model_external_initializers_{key}", value)
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def to_port(port: onnxruntime.NodeArg) -> Port:
    return Port(
        port.name, DTYPES.get(port.type, port.type), tuple(n if isinstance(n, int) else None for n in port.shape)
    )
