"""The report: one JSON document of sections, and the Markdown and plots that are made from it.

Each benchmark replaces its own section and leaves the others as they were, with the date and machine of their own run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.report.client import render_client
from bench.report.core import render_decode, render_runtimes
from bench.report.dicom import render_dicom
from bench.report.figures import round_figures
from bench.report.peers import render_peers
from bench.report.protection import render_protection
from bench.report.serving import render_serving
from bench.report.study import render_study
from bench.report.web import render_web

HEAD = """\
# How fast it is

Each figure is a median over rounds with its minimum and maximum. Sides that are compared take turns within a round, and
ratios are taken round by round: the machine is shared with others, so read the ratios, not the milliseconds. This page,
[its figures](performance.json) and its plots are written by `make bench` and `make bench-peers`.
"""

SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "serving": render_serving,
    "client": render_client,
    "protection": render_protection,
    "study": render_study,
    "web": render_web,
    "peers": render_peers,
    "runtimes": render_runtimes,
    "decode": render_decode,
    "dicom": render_dicom,
}
"""Section → what writes it as Markdown, in the order of the page."""


def publish(name: str, section: dict[str, Any], out: Path | None) -> str:
    """Puts a section into ``performance.json``, ``.md`` and the plots of a folder, and returns the section's Markdown.

    Args:
        name: a key of ``SECTIONS``.
        section: what was measured.
        out: the folder; None writes nothing.
    """
    text = SECTIONS[name](section)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        path = out / "performance.json"
        document = json.loads(path.read_text("utf-8")) if path.exists() else {}
        document[name] = section
        write_report(round_figures(document), out)
    return text


def write_report(document: dict[str, Any], out: Path) -> None:
    """Writes JSON, Markdown and plots of all sections."""
    from bench.report.plots import plot_peers, plot_serving

    (out / "performance.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    texts = [render(document[name]) for name, render in SECTIONS.items() if name in document]
    (out / "performance.md").write_text("\n".join([HEAD, *texts]), "utf-8")
    if "serving" in document:
        plot_serving(document["serving"], out / "performance.png")
    if "peers" in document:
        plot_peers(document["peers"], out / "performance-peers.png")
