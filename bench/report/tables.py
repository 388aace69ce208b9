"""Pieces of a Markdown report: tables, and budgets with what was measured against them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.report.figures import summarise


@dataclass(frozen=True)
class Budget:
    """A figure with the bound that its median is meant to keep."""

    figure: str
    bound: float
    values: Sequence[float]
    """Of each round."""

    at_least: bool = True
    """Whether the bound is a floor, or else a ceiling."""

    unit: str = ""

    form: str = ".2f"
    """How its figures are written."""

    @property
    def is_met(self) -> bool:
        median = statistics.median(self.values)
        return median >= self.bound if self.at_least else median <= self.bound


def render_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render_budgets(budgets: Iterable[Budget]) -> str:
    """A table of budgets."""
    rows = []
    for budget in budgets:
        wanted = f"{'at least' if budget.at_least else 'at most'} {budget.bound:.3g}{budget.unit}"
        measured = f"{summarise(budget.values, budget.form)}{budget.unit}"
        rows.append((budget.figure, wanted, measured, "met" if budget.is_met else "missed"))
    return render_table(("budget", "wanted", "measured", ""), rows)
