"""The page about training: one JSON document with a section per bench, and the Markdown that is made from it.

All sections have one shape, so that a bench says what it measured and nothing about how that is laid out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.report.figures import round_figures, summarise
from bench.report.machine import describe_machine, format_machine
from bench.report.tables import Budget, render_budgets, render_table

PACKAGES = ("tensorflow", "keras", "onnxruntime", "scikit-learn", "pillow", "numpy")

HEAD = """\
# How fast training is, and what it takes

Each figure is a median over rounds with its minimum and maximum. Sides that are compared take turns within a round, and
ratios are taken round by round: the machine is shared with others, so read the ratios, not the seconds. This page and
[its figures](training.json) are written by `make bench-training`.
"""

TITLES = {
    "phantom": "Drawing synthetic slices",
    "input": "Waiting for the input",
    "epoch": "An epoch, beside the same fit on arrays in memory",
    "transfer": "A frozen backbone: features once, beside `fit` through it",
    "evaluation": "Evaluation",
    "memory": "Memory, and 10 times the slices",
}
"""Section → heading, in the order of the page."""


@dataclass(frozen=True)
class Series:
    """One quantity, a value for each round."""

    unit: str
    values: Sequence[float]
    form: str = ".2f"
    """How it is written."""


def make_section(about: Sequence[str], series: Mapping[str, Series], budgets: Sequence[Budget]) -> dict[str, Any]:
    """Returns what ``publish_training`` takes: the machine, and what was measured of what.

    Args:
        about: paragraphs: what was compared with what.
        series: what was measured, by name, in the order of the table.
        budgets: targets, with the figures that are held against them.
    """
    return {
        "machine": describe_machine(PACKAGES),
        "about": list(about),
        "series": {name: asdict(entry) for name, entry in series.items()},
        "budgets": [asdict(budget) for budget in budgets],
    }


def publish_training(name: str, section: dict[str, Any], out: Path | None) -> str:
    """Puts a section into ``training.json`` and ``training.md`` of a folder, and returns the section's Markdown.

    Args:
        name: a key of ``TITLES``; the other sections stay as they are.
        section: see ``make_section``.
        out: the folder; None writes nothing.
    """
    section = round_figures(section)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        path = out / "training.json"
        document = json.loads(path.read_text("utf-8")) if path.exists() else {}
        document[name] = section
        path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
        (out / "training.md").write_text(render_page(document), "utf-8")
    return render_section(name, section)


def render_page(document: Mapping[str, dict[str, Any]]) -> str:
    """The whole page."""
    return "\n".join([HEAD, *(render_section(name, document[name]) for name in TITLES if name in document)])


def render_section(name: str, section: dict[str, Any]) -> str:
    """One section: what it ran on, what was compared with what, the figures, and the targets."""
    rows = [
        (quantity, f"{summarise(entry['values'], entry['form'])} {entry['unit']}".rstrip(), str(len(entry["values"])))
        for quantity, entry in section["series"].items()
    ]
    budgets = [Budget(**budget) for budget in section["budgets"]]
    texts = [
        f"## {TITLES[name]}",
        f"{format_machine(section['machine'], '')}.",
        *section["about"],
        render_table(("", "median (minimum to maximum)", "rounds"), rows),
        *([render_budgets(budgets)] if budgets else []),
    ]
    return "\n\n".join(texts) + "\n"
