"""The page of the ablation: variants beside the base, false positives by finding, and the learning curves."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report.machine import format_machine
from bench.report.tables import render_table
from bench.training.ablation_judge import FALSE_POSITIVE_RATE, JPEG_QUALITY
from bench.training.ablation_variants import HARD_NEGATIVES, VARIANTS, WITHOUT_FINDINGS

HEAD = """\
# What each part of the training gives

One base training on synthetic slices, and variants that differ from it in one thing each (`python -m
bench.training.ablation`, which also writes [the figures](ablation.json)). All are judged on the same held-out synthetic
slices of the whole generator, which no variant has trained on: no real slice is read here, so none of this is a result
on patients.
"""
RESOLUTION = 130
"""Dots per inch."""

PANELS = {"Training": False, "Generator": True}
"""Panel of the plot → whether it shows the variants that lack a part of the generator; the base is in both."""


def write_ablation(document: dict[str, Any], out: Path) -> None:
    """Writes ``ablation.json``, ``.md`` and ``.png``."""
    # The figures come first, and whole: hours are in them, and the rest is made from them.
    partial = out / "ablation.json.partial"
    partial.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    partial.replace(out / "ablation.json")
    (out / "ablation.md").write_text(render_ablation(document), "utf-8")
    plot_curves(document["runs"], out / "ablation.png")


def render_ablation(document: Mapping[str, Any]) -> str:
    """The page in Markdown."""
    test, runs = document["test"], order_runs(document["runs"])
    base = next((run for name, _, run in runs if name == "base"), None)
    texts = [
        HEAD.rstrip(),
        f"{format_machine(document['machine'], '')}.",
        f"Judged on {test['count']:,} slices, {test['positive']:,} of them strokes; the share of mid-grey pixels, "
        f"which needs no model, has an AUC of {format_interval(test['trivial_auc'])} there. JPEG: the same slices "
        f"compressed with quality {JPEG_QUALITY}. Intervals: 95 %, DeLong; the difference is on the same slices. They "
        "say how much other slices would change a figure, not how much another seed of the training would. The matched "
        "AUC compares slices with a similar amount of brain; the correlation (Spearman's) is that of a normal slice's "
        "score with its amount of brain, which should not matter.",
        *([f"Base: `{base['settings']}`."] if base else []),
        render_table(
            (
                *("variant", "what differs", "seed", "AUC", "difference from base", "AUC, JPEG", "difference, JPEG"),
                *("matched AUC", "correlation with brain"),
            ),
            (list_cells(name, seed, run) for name, seed, run in runs),
        ),
        render_false_positives(runs),
        "## Learning curves",
        "![AUC of validation slices over the epochs](ablation.png)",
        "The AUC is that of each variant's own validation slices, drawn as its training slices are: variants of the "
        "generator compare by the table, not by their curves.",
    ]
    return "\n\n".join(text for text in texts if text) + "\n"


def order_runs(runs: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, dict[str, Any]]]:
    """Lists (variant, seed, run) in the order of the table of variants; one that is no longer there is left out."""
    return [(name, seed, run) for name in VARIANTS for seed, run in sorted(runs.get(name, {}).items())]


def list_cells(name: str, seed: str, run: Mapping[str, Any]) -> Sequence[str]:
    """A line of the table."""
    differences = run.get("difference", {})
    cells = []
    for condition in ("plain", "jpeg"):
        cells.append(format_interval(run["auc"][condition]))
        cells.append(format_interval(differences[condition], "+.3f") if differences else "")
    return (name, run["about"], seed, *cells, f"{run['matched_auc']:.3f}", f"{run['brain_correlation']:+.2f}")


def render_false_positives(runs: Sequence[tuple[str, str, dict[str, Any]]]) -> str:
    """How often normal slices with a finding are called stroke, with and without that finding in training."""
    rows = list(list_false_positives(runs))
    if not rows:
        return ""
    about = (
        f"At the threshold at which each calls {FALSE_POSITIVE_RATE:.0%} of all normal slices stroke: the share of the "
        "normal slices with a finding that it calls stroke, trained with slices that have it or without; mean of seeds."
    )
    table = render_table(("finding", "seeds", "normal slices with it", "trained with it", "trained without it"), rows)
    return "\n\n".join(("## False positives by finding", about.replace("%", " %"), table))


def list_false_positives(runs: Sequence[tuple[str, str, dict[str, Any]]]) -> Iterator[Sequence[str]]:
    """Lines of the table of false positives."""
    bases = {seed: run["false_positives"] for name, seed, run in runs if name == "base"}
    others = {seed: run["false_positives"] for name, seed, run in runs if name == WITHOUT_FINDINGS and seed in bases}
    for finding in sorted(HARD_NEGATIVES):
        pairs = [(bases[seed][finding], own[finding]) for seed, own in others.items() if finding in own]
        if pairs:  # (called stroke, all) trained with it, and trained without it
            shares = [statistics.fmean(found / count for found, count in side) for side in zip(*pairs, strict=True)]
            yield finding, str(len(pairs)), str(pairs[0][0][1]), *(f"{share:.2f}" for share in shares)


def format_interval(figure: Sequence[float], form: str = ".3f") -> str:
    """``0.912 (0.899 to 0.925)``."""
    value, low, high = figure
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def list_lacking(lacks_part: bool) -> list[str]:
    """Lists the variants whose training slices lack a part of the generator, or those whose slices do not."""
    return [name for name, variant in VARIANTS.items() if bool(variant.without) is lacks_part]


def plot_curves(runs: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Writes the validation AUC over the epochs, the mean over seeds, in two panels that share the base."""
    import matplotlib

    matplotlib.use("Agg")  # no display on a box
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, panels = plt.subplots(1, len(PANELS), figsize=(13, 5), layout="constrained", sharey=True)
    for axes, (title, lacks_part) in zip(panels, PANELS.items(), strict=True):
        shown = [name for name in VARIANTS if name in runs and name in ("base", *list_lacking(lacks_part))]
        for index, name in enumerate(shown):
            curves = [run["curve"] for run in runs[name].values()]
            means = [statistics.fmean(values) for values in zip(*curves, strict=False)]
            style = {"color": "black", "linewidth": 2.2} if name == "base" else {"color": f"C{index}"}
            axes.plot(range(1, len(means) + 1), means, ".-", label=name, **style)
        axes.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
        axes.set(title=title, xlabel="epoch", ylabel="AUC of validation slices")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if shown:
            axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, dpi=RESOLUTION)
    plt.close(figure)
