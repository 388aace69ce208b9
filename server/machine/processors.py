"""The processors of this machine: how many this process may use, and what kind they are.

The number is the smaller of CPU affinity and cgroup quota. Needed because ONNX Runtime and ``os.cpu_count()`` both
count those of the host, whatever the container was given.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from server.machine.cgroups import read_cpu_quota

CPU_FEATURES = Path("/proc/cpuinfo")


def count_processors() -> int:
    """Returns the number of processors to plan for, at least 1; of a fraction the whole part counts."""
    # sched_getaffinity is not there on macOS and Windows
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = read_cpu_quota()
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def find_target() -> str:
    """The kind of this processor, one of ``server.models.manifest.TARGETS``: what INT8 variants are made for.

    Where the features of an x86 processor cannot be read, it is taken for one without VNNI: every other can run that.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    return "x86-vnni" if {"avx512_vnni", "avx_vnni"} & read_features() else "x86"


def is_suited(target: str) -> bool:
    """Whether what was made for ``target``, of ``manifest.TARGETS`` or empty, is right for this processor."""
    here = find_target()
    return target in ("", here) or (target, here) == ("x86", "x86-vnni")


def describe_processor() -> str:
    """A text that is another one where optimised graphs or measured speeds are no longer valid."""
    return f"{platform.machine()} {' '.join(sorted(read_features()))}"


def read_features() -> frozenset[str]:
    """The instruction sets of the processor as Linux names them; empty elsewhere."""
    try:
        lines = CPU_FEATURES.read_text("ascii", "replace").splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(found.partition(":")[2].split())
