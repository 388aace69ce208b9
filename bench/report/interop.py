"""The table of docs/interop.md: what another project's load generator finds, beside what this project's own does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.report.figures import divide, round_figures, summarise, take
from bench.report.machine import format_machine
from bench.report.tables import render_table

OURS = "`python -m client bench`, stroke.v1"
THEIRS = "perf_analyzer 2.51, ModelInfer"
THEIRS_HTTP = "perf_analyzer 2.51, HTTP v2"
"""Names of the load generators."""

CLIENTS = (1, 4, 8)

BEGIN, END = "<!-- begin: python -m bench.serving.interop --out docs -->", "<!-- end -->"
"""Between these the page is written by the benchmark, and by nobody else."""


def render_interop(section: Mapping[str, Any]) -> str:
    """The section as Markdown."""
    settings = section["settings"]
    texts = [
        format_machine(section["machine"]) + ".",
        f"{settings['model']} {settings['precision']}; {settings['image_count']} images ({settings['images']}) of "
        f"{settings['image_size']} pixels and {settings['image_kb']:.0f} kB on average; {settings['rounds']} rounds, "
        f"in which the three take turns on one server, each for {settings['seconds']:g} s with as many requests on "
        "their way as there are clients. Medians with minimum and maximum; ratios are to the first row of the same "
        "round. perf_analyzer is written in C++ and leaves more of the processors, which it shares with the server, "
        "than a client in Python does.",
        *(render_loops(section["loops"], str(count)) for count in CLIENTS),
    ]
    return "\n\n".join(texts) + "\n"


def render_loops(loops: Mapping[str, Mapping[str, list[dict[str, float]]]], clients: str) -> str:
    """A row for each load generator."""
    rows = []
    for name, loop in loops.items():
        cells = [name]
        for key, form in (("rate", ".0f"), ("p50_ms", ".1f")):
            own, other = take(loop[clients], key), take(loops[OURS][clients], key)
            cells += [summarise(own, form), summarise(divide(own, other))]
        rows.append([*cells, *(summarise(take(loop[clients], key), ".1f") for key in ("p90_ms", "p99_ms"))])
    heading = f"{clients} client{'s' * (clients != '1')}"
    return render_table((heading, "images/s", "ratio", "p50 ms", "ratio", "p90 ms", "p99 ms"), rows)


def publish_interop(section: Mapping[str, Any], out: Path | None) -> str:
    """Puts the section into ``interop.md`` of a folder, between its marks, and its figures into ``interop.json``.

    Args:
        section: what was measured.
        out: the folder; None writes nothing.

    Returns:
        The section as Markdown.
    """
    text = render_interop(section)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "interop.json").write_text(json.dumps(round_figures(dict(section)), indent=1) + "\n", "utf-8")
        page = out / "interop.md"
        page.write_text(embed(page.read_text("utf-8") if page.exists() else "", text), "utf-8")
    return text


def embed(page: str, text: str, begin: str = BEGIN) -> str:
    """Returns the page with ``text`` between its marks, or with marks and text at its end where it has none."""
    marked = f"{begin}\n\n{text}\n{END}"
    if begin not in page:
        return f"{page}\n{marked}\n" if page else f"{marked}\n"
    return re.sub(f"{re.escape(begin)}.*?{re.escape(END)}", lambda _: marked, page, count=1, flags=re.DOTALL)
