"""The processors of this machine: how many this process may use, and what kind they are.

The number is the smaller of CPU affinity and of the quota that Linux grants: the least of this process's control group
and all above it. Needed because ONNX Runtime and ``os.cpu_count()`` both count those of the host, whatever the
container was given.

A quota may be anywhere: at a container's own group, at a slice of systemd (CPUQuota=) in which the service is one of
many, or at a Kubernetes pod around several containers. Both generations are looked at, for a machine may have both at
once (cgroups(7)).
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CPU_FEATURES = Path("/proc/cpuinfo")
ROOT = Path("/")
"""Tests put a tree of their own in its place."""


def count_machine_processors() -> int:
    """Returns how many the machine has, whatever this process may use of them."""
    return os.cpu_count() or 1


def count_processors() -> int:
    """Returns the number of processors to plan for, at least 1; of a fraction the whole part counts."""
    # sched_getaffinity is not there on macOS and Windows
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count_machine_processors()
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


@dataclass(frozen=True)
class Mount:
    """Where a hierarchy of groups can be seen."""

    top: PurePosixPath
    """The group that is seen at ``folder``: in a container often not the top of all."""

    folder: Path
    is_unified: bool
    """Whether it is of the second generation."""


def read_cpu_quota(root: Path = ROOT) -> float | None:
    """Returns the processors that are granted; None without any quota, and where there are no control groups."""
    groups = read_groups(root)
    quotas = [
        quota
        for mount in list_mounts(root)
        for folder in list_folders(mount, groups.get(mount.is_unified))
        if (quota := read_quota(folder, mount.is_unified)) is not None
    ]
    return min(quotas, default=None)


def read_groups(root: Path) -> dict[bool, PurePosixPath]:
    """Returns the group of this process in either generation: True is the second one's."""
    groups = {}
    for line in read_lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers or "cpu" in controllers.split(","):
            groups[not controllers] = PurePosixPath(path)
    return groups


def list_mounts(root: Path) -> Iterator[Mount]:
    """The hierarchies that can hold a quota (proc_pid_mountinfo(5))."""
    for line in read_lines(root / "proc/self/mountinfo"):
        place, _, kind = line.partition(" - ")
        fields, kinds = place.split(" "), kind.split(" ")
        if len(fields) < 5 or len(kinds) < 3:
            continue
        is_unified = kinds[0] == "cgroup2"
        if is_unified or (kinds[0] == "cgroup" and "cpu" in kinds[2].split(",")):
            top, folder = unescape(fields[3]), unescape(fields[4])
            yield Mount(PurePosixPath(top), root / folder.lstrip("/"), is_unified)


def list_folders(mount: Mount, group: PurePosixPath | None) -> Iterator[Path]:
    """A group's folder and those above it, up to the mount's own.

    A group that is not below what is mounted lies outside of this container, or is named as seen from outside of it.
    Then what is mounted is all that can be known.
    """
    yield mount.folder
    if group is None:
        return
    try:
        steps = group.relative_to(mount.top).parts
    except ValueError:
        # As seen from outside: the parts of the name that are here are those at its end.
        steps = group.parts[1:]
        while steps and not mount.folder.joinpath(*steps).is_dir():
            steps = steps[1:]
    if ".." in steps:
        return
    folder = mount.folder
    for step in steps:
        folder /= step
        yield folder


def read_quota(folder: Path, is_unified: bool) -> float | None:
    """The quota of one group, in processors; None without one."""
    try:
        if is_unified:
            quota, period = (folder / "cpu.max").read_text("ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text("ascii")
            period = (folder / "cpu.cfs_period_us").read_text("ascii")
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or "max": no quota
        return None


def read_lines(path: Path) -> list[str]:
    """The lines of a file of the kernel; none where it is not there."""
    try:
        return path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []


def unescape(text: str) -> str:
    """Spaces and the like in names of mounts are octal: ``\\040``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
