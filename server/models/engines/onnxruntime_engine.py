"""ONNX Runtime: the only place that knows it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from server.machine.memory import trim_memory
from server.machine.priority import call_here, call_in_thread, call_quietly, lower_priority
from server.models.contract import INPUT_NAME
from server.models.engines.engine import EngineOptions, Port
from server.models.engines.graph_cache import LARGE_MODEL_BYTES, CachedGraph, GraphCache
from server.models.onnx_header import MalformedError, has_inner_graph, list_external

logger = logging.getLogger(__name__)

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
    """See ``server.models.engines.engine``. A pair of sessions over one graph, or one where both would be alike."""

    name = "onnxruntime"
    version = onnxruntime.__version__

    def __init__(self, data: bytes, digest: str, options: EngineOptions) -> None:
        """See ``server.models.runtime.open_engine``."""
        self._weights: Weights | None = None  # must live as long as the sessions, which use its memory
        numbers = dict.fromkeys((options.threads, options.busy_threads))
        cache = choose_cache(data, digest, options)
        call = call_quietly if options.is_aside else call_here
        graph = call(lambda: cache.open(lambda path: write_optimised(data, path))) if cache is not None else None
        sessions: list[onnxruntime.InferenceSession] = []
        if cache is not None and graph is not None:
            try:
                self._weights = Weights(graph)
                sessions = [open_optimised(self._weights, threads, options.is_aside) for threads in numbers]
                self._weights.drop_copied()
            except Exception as error:  # the exception types of the runtime are private and many
                logger.warning("an optimised graph in the cache does not load (%s): removed", type(error).__name__)
                cache.discard()
                sessions = []
        del graph
        if not sessions:
            self._weights = None
            sessions = [open_session(data, threads, options.is_aside) for threads in numbers]
        else:
            trim_memory()
        self._alone, self._busy = sessions[0], sessions[-1]
        self.inputs = [to_port(port) for port in self._alone.get_inputs()]
        self.outputs = [to_port(port) for port in self._alone.get_outputs()]

    def run(self, pixels: NDArray[np.uint8], outputs: Sequence[str], *, busy: bool) -> list[NDArray[np.float32]]:
        """See ``server.models.engines.engine.Engine``."""
        session = self._busy if busy else self._alone
        return [np.asarray(answer, dtype=np.float32) for answer in session.run(outputs, {INPUT_NAME: pixels})]


class Weights:
    """A cached graph with its weights as values that sessions take, one copy in memory for all of them.

    Those that are computed with as they are, the float32 ones, are used where they lie. ONNX Runtime packs quantised
    ones for its kernels, for each session, and then needs them no longer: these are dropped (``drop_copied``).
    """

    def __init__(self, graph: CachedGraph) -> None:
        """Makes values of the weights that lie in the file.

        Raises:
            MalformedError: a weight does not lie within the weights' file.
        """
        self.graph = graph.graph
        self.values: dict[str, onnxruntime.OrtValue] = {}
        self.shared: dict[str, onnxruntime.OrtValue] = {}
        tensors = list_external(graph.graph)
        is_mostly_shared = 2 * sum(t.length for t in tensors if t.dtype == "float32") > len(graph.weights)
        for tensor in tensors:
            part = graph.weights[tensor.offset : tensor.offset + tensor.length]
            try:
                array = part.view(tensor.dtype).reshape(tensor.shape)
            except ValueError:
                raise MalformedError(f"weight {tensor.name[:100]!r} is not within its file") from None
            if tensor.dtype == "float32":
                # A view holds the memory of the whole file, so the few of a quantised model are copied out of it.
                array = array if is_mostly_shared else array.copy()
                self.shared[tensor.name] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
            else:
                self.values[tensor.name] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        self.values |= self.shared

    def drop_copied(self) -> None:
        """Lets go of what the sessions have copied."""
        self.graph, self.values = b"", {}


def choose_cache(data: bytes, digest: str, options: EngineOptions) -> GraphCache | None:
    """The place of a model's optimised graph; None for a model that gains nothing, or without a cache.

    Weights of a graph within the graph, such as those of a cascade's second network, cannot be given as values.
    """
    if options.cache is None or len(data) < LARGE_MODEL_BYTES or os.name != "posix" or has_inner_graph(data):
        return None
    return GraphCache(options.cache, f"{OnnxRuntimeEngine.name}-{OnnxRuntimeEngine.version}", digest, len(data))


def open_session(model: bytes, threads: int, is_aside: bool) -> onnxruntime.InferenceSession:
    """A session over the bytes of a model."""
    return make_session(model, make_options(threads), is_aside)


def make_session(model: bytes, options: onnxruntime.SessionOptions, is_aside: bool) -> onnxruntime.InferenceSession:
    """A session. Aside, its threads have the usual priority, for they will answer; optimising its graph has a low one.

    The runtime first makes the threads and reads the graph; then it goes through the names of the optimisers that are
    not wanted, and optimises. That is the moment to lower the priority of the thread in which it does all that.
    """
    providers = ["CPUExecutionProvider"]
    if not is_aside:
        return onnxruntime.InferenceSession(model, options, providers=providers)

    def list_unwanted() -> Iterator[str]:
        lower_priority()
        yield from ()

    return call_in_thread(
        lambda: onnxruntime.InferenceSession(model, options, providers=providers, disabled_optimizers=list_unwanted())
    )


def open_optimised(weights: Weights, threads: int, is_aside: bool) -> onnxruntime.InferenceSession:
    """A session over an optimised graph, which is taken as it is."""
    options = make_options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # The first says what the values are, and copies them; the second, that these are to be used where they lie.
    options.add_external_initializers(list(weights.values), list(weights.values.values()))
    for name, value in weights.shared.items():
        options.add_initializer(name, value)
    return make_session(weights.graph, options, is_aside)


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

    Weights in a file of their own can be shared by sessions; within the graph each would have its copy.
    """
    options = make_options(1)
    options.optimized_model_filepath = str(path)
    for key, value in (("file_name", f"{path.name}.weights"), ("min_size_in_bytes", "1024")):
        options.add_session_config_entry(f"session.optimized_model_external_initializers_{key}", value)
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def to_port(port: onnxruntime.NodeArg) -> Port:
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in port.shape)
    return Port(port.name, DTYPES.get(port.type, port.type), shape)
