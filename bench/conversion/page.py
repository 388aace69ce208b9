"""The section about public networks in ``docs/convert.md``, made of ``convert.json`` beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.report.figures import round_figures
from bench.report.machine import format_machine
from bench.report.tables import Budget, render_budgets, render_table

TITLE = "## Public architectures"
PAGE, FIGURES = "convert.md", "convert.json"

HEAD = (
    "network",
    "s",
    "CPU s",
    "peak MB",
    "parity",
    "allowed",
    "MB",
    "INT8: same label",
    "INT8 MB",
)

ABOUT = """\
Networks of `keras.applications` at 224 x 224 and the paper's CNN, each with its own `preprocess_input`, average
pooling and one dense layer: weights random, batch statistics that have seen slices, a head fitted to synthetic slices
whose scores lie all over 0..1. That is the hardest case for INT8: such a head reads small differences of random
features, which 256 levels blur; the bundled CNN, trained, answers 99.6 % of 512 held-out slices as its fp32 model, and
98.7 to 99.4 % of thousands of others (docs/results.md). One
`python -m converter` each: seconds of wall clock and CPU from start to exit, the largest resident memory (2^20
bytes), the largest difference of a probability and what is allowed, the size of the file (10^6 bytes). INT8: how many
of the held-out slices get the same label, or why there is no variant. The machine is shared with others: where the
seconds are far above the CPU seconds, it had other work. Written by `python -m bench.conversion --out docs`, with
[its figures](convert.json)."""

NETWORK_OF_TARGETS = "ResNet50"
MOST_SECONDS = 30.0
MOST_GB = 3.0


def publish_conversion(name: str, figures: Mapping[str, Any], machine: Mapping[str, Any], out: Path | None) -> str:
    """Puts a network's figures into ``convert.json`` and the section into ``convert.md``; returns the section.

    Args:
        name: of the network; the others' figures stay as they are, and so does an INT8 variant that was not measured.
        figures: ``fp32`` and, if it was made, ``int8``: see ``bench.conversion.__main__.measure_conversion``.
        machine: see ``describe_machine``; measured by parts, the page names the last one.
        out: the folder of both, where ``convert.md`` is already; None writes nothing, and tells of this network alone.
    """
    document = read_figures(out)
    networks = document.setdefault("networks", {})
    networks[name] = {**networks.get(name, {}), **round_figures(dict(figures))}
    document["machine"] = dict(machine)
    section = render_section(document)
    write_section(document, section, out)
    return section


def read_figures(out: Path | None) -> dict[str, Any]:
    """All figures of ``convert.md`` in a folder; none where there is no folder or file."""
    if out is None or not (out / FIGURES).exists():
        return {}
    return dict(json.loads((out / FIGURES).read_text("utf-8")))


def write_section(document: Mapping[str, Any], section: str, out: Path | None) -> None:
    """Writes all figures, and a section into the page beside them; nothing without a folder."""
    if out is None:
        return
    (out / FIGURES).write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    page = out / PAGE
    page.write_text(put_section(page.read_text("utf-8"), section), "utf-8")


def put_section(page: str, section: str) -> str:
    """The page with this section in place of the one of that title, or behind all others."""
    title = section.partition("\n")[0]
    before, found, rest = page.partition(f"{title}\n")
    if not found:
        return f"{page.rstrip()}\n\n{section}"
    _, further, after = rest.partition("\n## ")
    return f"{before}{section}{further}{after}"


def render_section(document: Mapping[str, Any]) -> str:
    """Machine, what was done, a row for each network, and the targets."""
    networks = document["networks"]
    texts = [
        TITLE,
        f"{format_machine(document['machine'], '')}.",
        ABOUT,
        render_table(HEAD, (render_row(name, figures) for name, figures in networks.items())),
    ]
    taken = networks.get(NETWORK_OF_TARGETS, {}).get("fp32")
    if taken is not None:
        budgets = (
            Budget(f"{NETWORK_OF_TARGETS}, time", MOST_SECONDS, [taken["seconds"]], False, " s", ".0f"),
            Budget(f"{NETWORK_OF_TARGETS}, peak", MOST_GB, [taken["peak_mb"] / 1024], False, " GB", ".2f"),
        )
        texts.append(render_budgets(budgets))
    return "\n\n".join(texts) + "\n"


def render_row(name: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    """One network's cells; in place of those that do not exist, why."""
    fp32 = figures["fp32"]
    taken = (name, f"{fp32['seconds']:.0f}", f"{fp32['cpu_seconds']:.0f}", f"{fp32['peak_mb']:,.0f}")
    if "refused" in fp32:
        return (*taken, f"refused: {fp32['refused']}", "", "", "", "")
    parity = fp32["parity"]
    difference = max(parity["image_difference"], parity["random_difference"])
    return (
        *taken,
        f"{difference:.1e}",
        f"{parity['allowed']:.1e}",
        f"{fp32['size'] / 1e6:.1f}",
        *render_variant(figures.get("int8")),
    )


def shorten_failure(text: str) -> str:
    """The figures of a variant that failed the gate, without the names of layers and the advice."""
    figures = text.partition("is not written: ")[2].partition(" (ranges by")[0]
    return f"none: {figures}" if figures else text


def render_variant(figures: Mapping[str, Any] | None) -> tuple[str, str]:
    """Agreement and size of an INT8 variant, or why there is none."""
    if figures is None:
        return "", ""
    if (variant := figures.get("int8")) is None:
        return figures.get("refused") or shorten_failure(figures["int8_failure"]), ""
    return f"{variant['held_out']['agreement_at_threshold']:.2%}", f"{variant['size'] / 1e6:.1f}"
