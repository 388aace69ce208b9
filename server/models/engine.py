"""What a runtime must do to serve a model. The engines themselves are imported only when they are chosen."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

# ONNX Runtime's Linux wheels since 1.29 send telemetry unless this is set before they are imported, which is later, and
# elsewhere too. A hospital box talks to nobody.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

RUNTIMES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class EngineOptions:
    """How an engine uses the machine."""

    threads: int = 1
    """Threads inside one run while the machine has little else to do."""

    busy_threads: int = 1
    """Threads inside one run while many images are in work."""

    workers: int = 1
    """Runs at the same time, at most."""

    cache: Path | None = None
    """Folder for optimised graphs; None: nothing is kept."""


class Port(NamedTuple):
    """An input or output of a graph."""

    name: str
    dtype: str
    """NumPy's name of it."""

    shape: tuple[int | None, ...]
    """None where any size goes."""


class Engine(Protocol):
    """A loaded graph. ``run`` may be called from many threads at once."""

    name: str
    """One of ``RUNTIMES``."""

    version: str
    inputs: list[Port]
    outputs: list[Port]

    def run(self, pixels: NDArray[np.uint8], *, busy: bool) -> NDArray[np.float32]:
        """Returns the probabilities; ``busy`` chooses between the two numbers of threads."""
        ...


def open_engine(runtime: str, data: bytes, digest: str, options: EngineOptions) -> Engine:
    """Loads the bytes of an ONNX file.

    Args:
        runtime: one of ``RUNTIMES``.
        data: the file.
        digest: its SHA-256.
        options: threads and cache.

    Raises:
        ModelFileError: reason RUNTIME_MISSING, when the package of the runtime is not installed.
        Exception: the runtime cannot load it; the types are its own.
    """
    if runtime == "openvino":
        from server.models.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(data, options)
    from server.models.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(data, digest, options)


def discard_cached(runtime: str, data: bytes, digest: str, options: EngineOptions) -> bool:
    """Removes what ``open_engine`` caches for the same arguments. Returns whether it caches anything for them."""
    if runtime != "onnxruntime":
        return False
    from server.models.onnxruntime_engine import choose_cache

    cache = choose_cache(data, digest, options)
    if cache is not None:
        cache.discard()
    return cache is not None
