"""The section about DICOM slices: which codec decodes what, in how many milliseconds, and whom that keeps waiting."""

from __future__ import annotations

import statistics
from typing import Any

from bench.report.figures import divide, summarise
from bench.report.machine import format_machine
from bench.report.tables import Budget, render_budgets, render_table
from server.images.dicom.codecs.decoders import DECODERS
from server.images.dicom.syntax import COMPRESSED, LOSSY

NATIVE = "uncompressed"
NATIVE_CEILING = 1.0
"""Milliseconds of parsing and looking up 512 x 512 uncompressed values, and resizing to a model's input."""

LATE_CEILING = 0.25
"""How late a heartbeat may be, as a share of how late it is with the codec in its own process."""

CODECS = {"PIL.Image": "Pillow", "gdcm": "GDCM (python-gdcm)", "openjpeg.utils": "OpenJPEG (pylibjpeg-openjpeg)"}
"""What people call the modules that decode."""


def render_dicom(section: dict[str, Any]) -> str:
    """Decoding of DICOM files."""
    beats = section["heartbeat_p99_ms"]
    native = section["syntaxes"][NATIVE]["server_ms"]
    texts = [
        "## DICOM slices of 512 x 512",
        f"{format_machine(section['machine'])}.",
        f"From the bytes of a file to a grey model's input of 256 x 256; {section['slices']} slices a round, "
        f"{section['rounds']} rounds; processor time in the server's process, and in a decoder's, which may have "
        f"{section['memory_bytes'] / 2**20:.0f} MB (2**20) of address space.",
        render_codecs(section),
        "How late a thread wakes up that sleeps for 1 ms, 99th percentile, while JPEG 2000 slices are decoded:",
        render_table(("codec", "ms late"), [(name, summarise(values)) for name, values in beats.items()]),
        render_budgets(
            [
                Budget("uncompressed, processor time", NATIVE_CEILING, native, at_least=False, unit=" ms"),
                Budget(
                    "heartbeat late, in decoders / in the server's process",
                    LATE_CEILING,
                    divide(beats["in decoders"], beats["in the server's process"]),
                    at_least=False,
                ),
            ]
        ),
    ]
    return "\n\n".join(texts) + "\n"


def render_codecs(section: dict[str, Any]) -> str:
    """The table that docs/dicom.md has, too: each syntax that is read, with its codec and medians."""
    rows = [("uncompressed, little endian", ".1.2, .1.2.1", "the server itself", *list_figures(section, NATIVE))]
    for syntax, name in COMPRESSED.items():
        warned = ", with a warning" if syntax in LOSSY else ""
        codec = CODECS[DECODERS[syntax].module]
        rows.append((f"{name}{warned}", syntax.removeprefix("1.2.840.10008"), codec, *list_figures(section, syntax)))
    head = (
        "transfer syntax",
        "1.2.840.10008…",
        "decoded by",
        "ms a slice",
        "of it in the server",
        "in the decoder",
    )
    return render_table((*head, "first slice", "MB a decoder"), rows)


def list_figures(section: dict[str, Any], syntax: str) -> list[str]:
    """Medians; what was not measured is left open."""
    figures = section["syntaxes"].get(syntax, {})
    forms = {"ms": ".1f", "server_ms": ".2f", "decoder_ms": ".1f", "first_ms": ".0f", "decoder_mb": ".0f"}
    return [f"{statistics.median(figures[name]):{form}}" if name in figures else "" for name, form in forms.items()]
