"""What kind of processor this is."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.machine import processors


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "suited"),
    [
        ("x86_64", "flags : fpu avx2 avx512_vnni", {"", "x86-vnni", "x86"}),
        ("AMD64", "flags : fpu avx2 avx_vnni", {"", "x86-vnni", "x86"}),
        ("x86_64", "flags : fpu avx2", {"", "x86"}),
        ("x86_64", None, {"", "x86"}),
        ("aarch64", "Features : fp asimd", {"", "arm64"}),
    ],
)
def test_variants_suit_the_processors_they_were_made_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, cpuinfo: str | None, suited: set[str]
) -> None:
    """Without VNNI, what was made for it is wrong; what was made without it runs everywhere on x86."""
    file = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        file.write_text(f"processor : 0\n{cpuinfo}\n")
    monkeypatch.setattr(processors, "CPU_FEATURES", file)
    monkeypatch.setattr(processors.platform, "machine", lambda: machine)

    assert {target for target in ("", "x86-vnni", "x86", "arm64", "riscv") if processors.is_suited(target)} == suited


def test_another_processor_is_described_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was optimised or measured for one is not used on another."""
    descriptions = set()
    for flags in ("fpu avx2", "fpu avx2 avx512f"):
        (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
        monkeypatch.setattr(processors, "CPU_FEATURES", tmp_path / "cpuinfo")
        descriptions.add(processors.describe_processor())

    assert len(descriptions) == 2
