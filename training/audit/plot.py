"""The picture of an audit: slices per patient, brightness by class, and the leakage test."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from training.audit.facts import Audit
from training.audit.inspection import FileFacts
from training.audit.shortcuts import SUSPICIOUS_AUC
from training.report.drawing import DOTS_PER_INCH

BINS = 32
COLOURS = ("tab:blue", "tab:orange", "tab:cyan", "tab:brown", "tab:olive", "tab:pink", "black")
"""Of the classes, the first of which stay apart for the colour-blind; they begin again where there are more."""


def plot_audit(path: Path, audit: Audit, facts: Sequence[FileFacts], targets: NDArray[np.int64]) -> None:
    """Draws four panels about a data set; ``targets`` [N] are the classes of the images that ``facts`` are about."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    (slices, brightness), (leakage, shortcuts) = figure.subplots(2, 2)
    plot_slices(slices, audit)
    values = np.array([fact.brightness for fact in facts])
    edges = np.linspace(values.min(), max(values.max(), values.min() + 1), BINS + 1)
    for index, count in enumerate(audit.classes):
        chosen = values[targets == index]
        share = np.full(len(chosen), 1 / len(chosen))
        brightness.hist(
            chosen, edges, weights=share, alpha=0.6, label=draw_label(count.label), color=find_colour(index)
        )
    brightness.set(xlabel="mean grey value of an image", ylabel="share of the class", title="Brightness by class")
    brightness.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    brightness.set_ylim(top=1.3 * brightness.get_ylim()[1])  # room for the legend above the bars
    brightness.legend(loc="upper right")
    plot_leakage(leakage, audit)
    ordered = audit.shortcuts[::-1]
    bars = shortcuts.barh(
        [draw_label(shortcut.name) for shortcut in ordered],
        [shortcut.auc for shortcut in ordered],
        color=["tab:red" if shortcut.is_suspicious else "tab:grey" for shortcut in ordered],
    )
    plate = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    shortcuts.bar_label(bars, [f"{shortcut.auc:.2f}" for shortcut in ordered], padding=3, bbox=plate)
    shortcuts.axvline(SUSPICIOUS_AUC, color="black", linestyle=":", label="suspicious from here")
    shortcuts.set(xlim=(0.5, 1.08), xlabel="AUC of the label by this property alone (0.5: chance)", title="Shortcuts")
    shortcuts.legend(loc="lower right")
    figure.savefig(path, dpi=DOTS_PER_INCH)


def find_colour(index: int) -> str:
    """Returns the colour of a class."""
    return COLOURS[index % len(COLOURS)]


def draw_label(label: str) -> str:
    """Returns a label that is drawn as it is: no formula between dollars, and no underscore in front, which hides it
    from a legend."""
    plain = "".join(character if character.isprintable() else "?" for character in label)
    return re.sub("^_", "\N{ZERO WIDTH SPACE}_", plain.replace("$", r"\$"))


def plot_slices(axes: Axes, audit: Audit) -> None:
    """Draws how many slices patients have; how many images there are where patients are not known."""
    colours = [find_colour(index) for index in range(len(audit.classes))]
    if not audit.has_patients:
        axes.bar(
            [draw_label(count.label) for count in audit.classes],
            [count.images for count in audit.classes],
            color=colours,
        )
        axes.set(ylabel="images", title="Images (patients are not known)")
        return
    fewest = min(count.slices_per_patient[0] for count in audit.classes)
    most = max(count.slices_per_patient[-1] for count in audit.classes)
    step = -(-(most - fewest + 1) // BINS)
    edges = np.arange(fewest - 0.5, most + 0.5 + step, step)
    axes.hist(
        [count.slices_per_patient for count in audit.classes],
        edges.tolist(),
        label=[f"{draw_label(count.label)}: {count.patients:,} patients" for count in audit.classes],
        color=colours,
    )
    axes.set(xlabel="slices of a patient", ylabel="patients", title="Slices per patient")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])  # room for the legend above the bars
    axes.legend(loc="upper left")


def plot_leakage(axes: Axes, audit: Audit) -> None:
    """Draws the nearest neighbour's accuracy under both splits beside the majority rate."""
    axes.set(title="Leakage test: nearest neighbour on 32 x 32 pixels")
    if not audit.leakage:
        axes.text(0.5, 0.5, "not possible without\nenough known patients", ha="center", va="center")
        axes.set_axis_off()
        return
    test = audit.leakage
    names = ["random slices\n(leaks)", "patients\nheld out", "majority\nclass"]
    bars = axes.bar(names, [test.random, test.grouped, test.majority], color=["tab:red", "tab:green", "tab:grey"])
    axes.bar_label(bars, fmt="{:.1%}", padding=2)
    axes.set(ylim=(0, 1.1), ylabel="accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
