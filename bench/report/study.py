"""The section of the report about studies."""

from __future__ import annotations

from typing import Any

from bench.report.figures import divide, summarise
from bench.report.machine import format_machine
from bench.report.tables import Budget, render_budgets, render_table

CEILING = 1.3
"""A study's time over that of its slices by PredictBatches."""


def render_study(section: dict[str, Any]) -> str:
    """A study beside its slices."""
    sides: dict[str, dict[str, list[float]]] = section["sides"]
    names = {"study": "PredictStudy", "batches": "PredictBatches"}
    rows = [(names[side], *(summarise(values[key]) for key in ("seconds", "cpu_s"))) for side, values in sides.items()]
    budgets = [
        Budget(f"PredictStudy / PredictBatches, {text}", CEILING, divide(study, batches), at_least=False, unit=" x")
        for text, study, batches in (
            ("the server's CPU time", sides["study"]["cpu_s"], sides["batches"]["cpu_s"]),
            ("time", sides["study"]["seconds"], sides["batches"]["seconds"]),
        )
    ]
    texts = [
        "## A study",
        f"{format_machine(section['machine'])}.",
        f"{section['slices']} slices, uncompressed DICOM files of {section['slice_kb']:.0f} kB, as one study and one "
        f"by one over the same connection; {section['rounds']} rounds.",
        render_table(("", "s", "CPU s of the server"), rows),
        render_budgets(budgets),
    ]
    return "\n\n".join(texts) + "\n"
