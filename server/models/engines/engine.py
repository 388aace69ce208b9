"""What a runtime must do to serve a model, and what it is told. No runtime is imported here."""

from __future__ import annotations

import os
from collections.abc import Sequence
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
    """How a model is run: what the settings of a server come to, as far as its models are concerned."""

    precision: str = "fp32"
    """``fp32``, ``int8``, or, until the model is looked at, ``auto``: int8 where it has that for this processor and the
    runtime is ONNX Runtime, else fp32."""

    runtime: str = "onnxruntime"
    """One of ``RUNTIMES``."""

    threads: int = 1
    """Threads inside one run while the machine has little else to do."""

    busy_threads: int = 1
    """Threads inside one run while many images are in work."""

    workers: int = 1
    """Runs at the same time, at most."""

    cache: Path | None = None
    """Folder for optimised graphs; None: nothing is kept."""

    explains: bool = False
    """Models that can show where the evidence for their answers lies are loaded with what that takes."""

    is_aside: bool = False
    """It is opened while another model answers: at low priority, as far as the runtime lets that be."""


DEFAULT_OPTIONS = EngineOptions()


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

    def run(self, pixels: NDArray[np.uint8], outputs: Sequence[str], *, busy: bool) -> list[NDArray[np.float32]]:
        """Returns the outputs of these names; ``busy`` chooses between the two numbers of threads."""
        ...
