"""What a benchmark runs on, for the head of each section of the report, and how it tells of its progress."""

from __future__ import annotations

import datetime
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from server.machine.processors import count_processors

PACKAGES = ("onnxruntime", "grpcio", "protobuf", "pillow", "numpy", "openvino")
INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""Flags of /proc/cpuinfo that decide how fast matrices are multiplied."""


def describe_machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Returns date, processor, its vector instructions, processors to use, and versions; nothing that names a host."""
    cpuinfo = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    entries = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in cpuinfo}
    flags = entries.get("flags", "").split()
    return {
        "date": datetime.date.today().isoformat(),
        "processor": entries.get("model name", platform.processor()),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "processors": count_processors(),
        "python": platform.python_version(),
        "packages": read_versions(packages),
    }


def read_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of the packages that matter, of those that are installed."""
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def format_machine(machine: dict[str, Any], purpose: str = " for server and clients together") -> str:
    """The description in one line of a report; ``purpose`` says what shares the processors."""
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    return (
        f"{machine['date']}; {machine['processor']} ({', '.join(machine['instructions'])}), "
        f"{machine['processors']} processors{purpose}; Python {machine['python']}, {packages}"
    )


def say(text: str) -> None:
    """Progress, on standard error so that the report alone is on standard output."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
