"""The section about DICOM slices: a short run of it, its table and its budgets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.dicom import syntaxes
from bench.report.dicom import NATIVE, render_codecs, render_dicom
from server.images.dicom.header import FrameShape
from server.images.dicom.syntax import COMPRESSED
from tests.fakes import ROOT
from tests.test_bench_report import MACHINE


def make_section(**beats: list[float]) -> dict[str, Any]:
    """Figures of one round."""
    figures = {"ms": [9.0], "server_ms": [1.5], "first_ms": [120.0], "decoder_ms": [7.0], "decoder_mb": [37.0]}
    native = {"ms": [0.9], "server_ms": [0.8]}
    late = {"idle": [0.1], "in decoders": [1.0], "in the server's process": [30.0], **beats}
    return {
        "machine": MACHINE,
        "rounds": 1,
        "slices": 20,
        "memory_bytes": 2**29,
        "syntaxes": {NATIVE: native, next(iter(COMPRESSED)): figures},
        "heartbeat_p99_ms": late,
    }


def test_every_syntax_is_measured_that_can_be_encoded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of High-Throughput JPEG 2000 cannot."""
    monkeypatch.setattr(syntaxes, "SHAPE", FrameShape(64, 64, 12, False))

    section = {**make_section(), **syntaxes.measure(rounds=1, slices=2)}

    assert section["syntaxes"].keys() == {NATIVE, *syntaxes.SYNTAXES}
    for syntax, figures in section["syntaxes"].items():
        assert len(figures) == (2 if syntax == NATIVE else 5)
        assert all(value > 0 for (value,) in figures.values())
    assert "| idle |" in render_dicom(section)


def test_table_names_the_decoder_of_every_syntax() -> None:
    """Those that were not measured, too."""
    table = render_codecs(make_section())

    assert "| uncompressed, little endian | .1.2, .1.2.1 | the server itself | 0.9 | 0.80 |" in table
    assert "| RLE Lossless | .1.2.5 | Pillow | 9.0 | 1.50 | 7.0 | 120 | 37 |" in table
    assert all(name in table for name in COMPRESSED.values())
    assert table.count("with a warning") == 3


def test_heartbeat_is_judged_against_the_codec_in_its_own_process() -> None:
    """Milliseconds are the machine's."""
    assert "missed" not in render_dicom(make_section())
    assert "missed" in render_dicom(make_section(**{"in decoders": [20.0]}))


def test_documentation_has_the_table_that_was_measured() -> None:
    """make bench writes it into performance.md; the page about DICOM has the same."""
    section = json.loads((ROOT / "docs" / "performance.json").read_text("utf-8"))["dicom"]

    for page in ("performance.md", "dicom.md"):
        assert render_codecs(section) in (ROOT / "docs" / page).read_text("utf-8")
