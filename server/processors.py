"""The processors of this machine: how many this process may use, and what kind they are.

The number is the smaller of CPU affinity and cgroup quota. Needed because ONNX Runtime and ``os.cpu_count()`` both
count those of the host, whatever the container was given.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

CGROUP_V2_QUOTA = Path("/sys/fs/cgroup/cpu.max")
CGROUP_V1_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
CGROUP_V1_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
CPU_FEATURES = Path("/proc/cpuinfo")


def count_processors() -> int:
    """Returns the number of processors to plan for, at least 1; a fraction of one counts as one."""
    # sched_getaffinity is not there on macOS and Windows
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = read_cgroup_quota()
    return max(1, allowed if quota is None else min(allowed, int(quota)))


def read_cgroup_quota() -> float | None:
    """Returns the processors that the container's quota grants, or None without a quota."""
    try:
        if CGROUP_V2_QUOTA.exists():
            quota, period = CGROUP_V2_QUOTA.read_text("ascii").split()
        else:
            quota, period = CGROUP_V1_QUOTA.read_text("ascii"), CGROUP_V1_PERIOD.read_text("ascii")
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no cgroup, or "max": no quota
        return None


def find_target() -> str:
    """The kind of this processor, one of ``server.manifest.TARGETS``: what INT8 variants are made for.

    Where the features of an x86 processor cannot be read, it is taken for one without VNNI: every other can run that.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    return "x86-vnni" if {"avx512_vnni", "avx_vnni"} & read_features() else "x86"


def is_suited(target: str) -> bool:
    """Whether what was made for ``target``, of ``server.manifest.TARGETS`` or empty, is right for this processor."""
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
