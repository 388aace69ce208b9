"""A connection to a Ray cluster, or a small one on this machine that ends with it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server.machine.processors import count_processors

ROOT = Path(__file__).resolve().parent.parent
OBJECT_BYTES = 100 * 1024 * 1024
"""Of Ray's object store on this machine: what passes through it are numbers of partitions and counts."""


def quieten() -> None:
    """Has Ray tell nobody outside what it is used for, and report on the terminal nothing but errors. Before Ray is
    imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ writes to the terminal, whatever Python's level
    # Ray would otherwise warn that it will one day leave this variable alone where nobody asks for accelerators.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@contextmanager
def connect(address: str, processors: int = 0) -> Iterator[int]:
    """Connects, and disconnects at the end of the block. Returns how many processors there are.

    Args:
        address: of a cluster, whose machines get this project's code; empty: one is started here.
        processors: of that one; 0: those that this process may use.

    Raises:
        ConnectionError: there is no such cluster, or none can be started.
    """
    quieten()
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        options["address"] = address
        options["runtime_env"] = {
            "py_modules": [str(ROOT / name) for name in ("proto", "server", "cluster")],
            "excludes": ["**/__pycache__/"],
        }
    else:
        options["num_cpus"] = processors or count_processors()
        options["include_dashboard"] = False
        options["object_store_memory"] = OBJECT_BYTES
    try:
        ray.init(**options)
    except Exception as error:  # of any kind: a start that takes too long is a bare Exception
        raise ConnectionError(f"Ray cannot be used: {error}") from error
    try:
        yield int(ray.cluster_resources().get("CPU", 0))
    finally:
        ray.shutdown()
