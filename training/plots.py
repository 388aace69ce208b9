"""Curves of a run as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from training.monitor import Epoch

DOTS_PER_INCH = 120


def plot_curve(path: Path, history: Sequence[Epoch], quantity: str, best_epoch: int) -> None:
    """Draws ``accuracy`` or ``loss`` over the epochs, of training and validation images, with the epoch kept marked."""
    # Figure without pyplot: no window system, no global state.
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    epochs = [line.epoch for line in history]
    axes.plot(epochs, [getattr(line, quantity) for line in history], marker=".", label="training")
    axes.plot(epochs, [getattr(line, f"val_{quantity}") for line in history], marker=".", label="validation")
    axes.axvline(best_epoch, color="grey", linestyle=":", label="epoch kept")
    axes.set(xlabel="epoch", ylabel=quantity.capitalize(), title=f"{quantity.capitalize()} over the epochs")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if quantity == "accuracy":
        axes.set_ylim(0, 1.02)
    else:
        axes.margins(y=0.1)
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=DOTS_PER_INCH)
