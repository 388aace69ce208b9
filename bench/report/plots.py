"""The report's plots."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display on a box
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator

from bench.report.figures import take

COLOURS = {"int8": "#1b6ca8", "fp32": "#c4622d"}
MARKER = "."
RESOLUTION = 130
"""Dots per inch."""


def plot_serving(section: dict[str, Any], path: Path) -> None:
    """Writes throughput against clients beside latency against offered load, for each precision."""
    figure, (throughput, latency) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    processors = str(section["machine"]["processors"])
    for precision, series in section["precisions"].items():
        draw_throughput(throughput, precision, series, processors)
        draw_latency(latency, precision, series)
    throughput.set(title="Throughput (closed loop)", xlabel="clients", ylabel="images/s", ylim=(0, None))
    throughput.legend(frameon=False)
    latency.set(
        title="Latency (open loop)",
        xlabel="offered load, share of the limit",
        ylabel="milliseconds since a request was due",
        yscale="log",  # an overloaded second is a hundred times slower, and would flatten all others
    )
    latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    latency.yaxis.set_major_formatter("{x:g}")
    latency.yaxis.set_minor_formatter("")
    latency.legend(frameon=False)
    for axes in (throughput, latency):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.suptitle(f"{section['settings']['model']}: medians of rounds, bands from minimum to maximum", fontsize=10)
    figure.savefig(path, dpi=RESOLUTION)
    plt.close(figure)


def draw_throughput(axes: Any, precision: str, series: dict[str, Any], processors: str) -> None:
    """Images a second by number of clients, and the limit as a dashed line."""
    counts = sorted(map(int, series["clients"]))
    draw_rounds(axes, counts, [take(series["clients"][str(count)], "rate") for count in counts], precision, precision)
    limit = statistics.median(take(series["bare"][processors], "rate"))
    label = f"{precision}: limit (bare loop, {processors} threads)"
    axes.axhline(limit, color=COLOURS[precision], linestyle="--", linewidth=1, label=label)
    axes.set_xticks(counts)


def draw_latency(axes: Any, precision: str, series: dict[str, Any]) -> None:
    """Median and 99th percentile by offered load; a band for the median alone, four of them would hide each other."""
    loads = sorted(series["open"], key=float)
    places = list(map(float, loads))
    medians = [take(series["open"][load], "p50_ms") for load in loads]
    draw_rounds(axes, places, medians, precision, f"{precision} median")
    tails = [statistics.median(take(series["open"][load], "p99_ms")) for load in loads]
    axes.plot(places, tails, f"{MARKER}:", color=COLOURS[precision], label=f"{precision} 99th percentile")


def draw_rounds(
    axes: Any, places: Sequence[float], rounds: Sequence[Sequence[float]], precision: str, label: str
) -> None:
    """Medians as a line, with a band from minimum to maximum."""
    medians = [statistics.median(values) for values in rounds]
    axes.plot(places, medians, f"{MARKER}-", color=COLOURS[precision], label=label)
    axes.fill_between(places, [*map(min, rounds)], [*map(max, rounds)], color=COLOURS[precision], alpha=0.15, lw=0)


def plot_peers(section: dict[str, Any], path: Path) -> None:
    """Writes the throughput of every server at 8 clients, the fastest at the top."""
    rates = {
        title: take([entry["clients"]["8"] for entry in side["rounds"]], "rate")
        for title, side in section["sides"].items()
    }
    titles = sorted(rates, key=lambda title: statistics.median(rates[title]))
    medians = [statistics.median(rates[title]) for title in titles]
    spread = [
        [median - min(rates[title]) for median, title in zip(medians, titles, strict=True)],
        [max(rates[title]) - median for median, title in zip(medians, titles, strict=True)],
    ]
    colours = [COLOURS["int8"] if section["sides"][title]["ours"] else "#b8bec5" for title in titles]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.36 * len(titles)), layout="constrained")
    axes.barh(titles, medians, xerr=spread, color=colours, ecolor="#444444", capsize=2)
    figure.suptitle("Throughput with 8 clients: medians of rounds, bars from minimum to maximum", fontsize=10)
    axes.set_xlabel("images/s")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    figure.savefig(path, dpi=RESOLUTION)
    plt.close(figure)
