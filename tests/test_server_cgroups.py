"""The quota of this process's control group and all above it, from trees as systems have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.machine import processors
from server.machine.processors import read_cpu_quota
from tests.fakes import ROOT

UNIFIED = "30 23 0:28 {top} /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate"
OLD = "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"


def build(root: Path, groups: str, mounts: str, quotas: dict[str, str]) -> Path:
    """Writes what the kernel would show: ``quotas`` is by folder below /sys/fs/cgroup, as in cpu.max."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups + "\n")
    (root / "proc/self/mountinfo").write_text(f"23 1 8:1 / / rw - ext4 /dev/sda1 rw\n{mounts}\n")
    for name, text in quotas.items():
        folder = root / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        if name.startswith("cpu,cpuacct"):
            quota, period = text.split()
            (folder / "cpu.cfs_quota_us").write_text(quota)
            (folder / "cpu.cfs_period_us").write_text(period)
        else:
            (folder / "cpu.max").write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "mounts", "quotas", "expected"),
    [
        ("0::/", UNIFIED.format(top="/"), {".": "150000 100000"}, 1.5),
        ("0::/", UNIFIED.format(top="/"), {".": "max 100000"}, None),
        # systemd: CPUQuota= of the service, and of a slice above it that grants less
        (
            "0::/system.slice/stroke.service",
            UNIFIED.format(top="/"),
            {"system.slice/stroke.service": "200000 100000"},
            2,
        ),
        (
            "0::/a.slice/a-b.slice/stroke.service",
            UNIFIED.format(top="/"),
            {"a.slice": "100000 100000", "a.slice/a-b.slice": "max 100000", "a.slice/a-b.slice/stroke.service": "4 1"},
            1,
        ),
        # a sibling's quota is nobody else's
        ("0::/a.slice/b", UNIFIED.format(top="/"), {"a.slice/b": "max 100000", "a.slice/c": "100000 100000"}, None),
        # the first generation, nested, beside an empty second one
        (
            "4:cpu,cpuacct:/a/b\n1:name=systemd:/a/b\n0::/",
            f"{OLD.format(top='/')}\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
            {"cpu,cpuacct/a": "50000 100000", "cpu,cpuacct/a/b": "-1 100000"},
            0.5,
        ),
        # a container that sees its own group at the mount, and its name as from outside
        ("4:cpu,cpuacct:/docker/1f", OLD.format(top="/docker/1f"), {"cpu,cpuacct": "300000 100000"}, 3),
        ("4:cpu,cpuacct:/docker/1f/x", OLD.format(top="/docker/1f"), {"cpu,cpuacct/x": "300000 100000"}, 3),
        # the group's name is from outside, the mount says nothing of it
        ("0::/kubepods/pod1/1f", UNIFIED.format(top="/"), {".": "200000 100000"}, 2),
        # a process that was moved out of its container's own group
        ("0::/../other", UNIFIED.format(top="/"), {".": "200000 100000"}, 2),
        ("0::/a", UNIFIED.format(top="/").replace("/sys/fs/cgroup", "/my\\040groups"), {}, None),
        ("garbage", "garbage - \n31 - x", {}, None),
    ],
)
def test_least_quota_of_the_group_and_those_above_counts(
    tmp_path: Path, groups: str, mounts: str, quotas: dict[str, str], expected: float | None
) -> None:
    """Each tree is that of a system; no quota anywhere is None."""
    assert read_cpu_quota(build(tmp_path, groups, mounts, quotas)) == expected


def test_system_without_groups_has_no_quota(tmp_path: Path) -> None:
    """As macOS."""
    assert read_cpu_quota(tmp_path) is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 2), (1.5, 1), (4.0, 2), (0.5, 1)])
def test_processors_are_the_smaller_of_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int
) -> None:
    """A container's share counts, not the host's processors."""
    monkeypatch.setattr(processors, "read_cpu_quota", lambda: quota)
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda pid: {0, 1})

    assert processors.count_processors() == expected


def test_processors_are_counted_in_one_place() -> None:
    """Nothing else of the project asks the system: it would be told of the host."""

    asking = {
        str(path.relative_to(ROOT))
        for package in ("server", "converter", "training", "client")
        for path in (ROOT / package).rglob("*.py")
        if any(word in path.read_text() for word in ("sched_getaffinity", "cpu_count("))
    }

    assert asking == {"server/machine/processors.py"}
