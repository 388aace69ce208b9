"""Curves and tables of a run as PNG files; ``write_plots`` draws everything that an evaluation gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from training.evaluation.figures import Band, ClassFigures, Confusion, Epoch, Evaluation, Predictions
from training.report.drawing import BLUE, GREY, VERMILLION, draw, shorten
from training.report.galleries import ReadImages, plot_errors, plot_predictions
from training.report.tables import state


def write_plots(
    folder: Path,
    evaluation: Evaluation,
    predictions: Predictions,
    read_images: ReadImages,
    labels: tuple[str, str],
    seed: int = 7,
) -> None:
    """Draws curves, confusion matrix and galleries into a folder, under the names that the report looks for.

    Args:
        folder: an existing folder.
        evaluation: what is drawn.
        predictions: the answers that it is of.
        read_images: from positions in ``predictions`` [n] to the images, uint8 [n, H, W].
        labels: what the negative and the positive labels are called together.
        seed: of the choice of images.
    """
    threshold = evaluation.slices.threshold
    plot_roc(folder / "roc.png", evaluation, predictions)
    plot_precision_recall(folder / "precision_recall.png", evaluation, predictions)
    plot_confusion(folder / "confusion.png", evaluation, labels)
    if evaluation.classes:
        plot_classes(folder / "classes.png", evaluation.classes)
    plot_reliability(folder / "reliability.png", evaluation)
    plot_decision(folder / "decision_curve.png", evaluation)
    plot_predictions(folder / "gallery.png", predictions, read_images, threshold, labels, seed)
    plot_errors(folder / "errors.png", predictions, read_images, threshold, labels)


def plot_curve(path: Path, history: Sequence[Epoch], quantity: str, best_epoch: int) -> None:
    """Draws ``accuracy`` or ``loss`` over the epochs, of training and validation images, with the epoch kept marked."""
    with draw(path, (6, 4)) as drawing:
        axes = drawing.add_subplot()
        epochs = [line.epoch for line in history]
        for name, prefix, colour, style in (("training", "", BLUE, "-"), ("validation", "val_", VERMILLION, "--")):
            values = [getattr(line, prefix + quantity) for line in history]
            axes.plot(epochs, values, color=colour, linestyle=style, marker="o", markersize=4, label=name)
        axes.axvline(best_epoch, color=GREY, linestyle=":", label="epoch kept")
        axes.set(xlabel="epoch", ylabel=quantity, title=f"{quantity.capitalize()} over the epochs")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        # Limits first: setting one end stops Matplotlib from leaving room at the other.
        axes.set_ylim(0, 1.02 if quantity == "accuracy" else 1.1 * axes.get_ylim()[1])
        finish(axes)


def plot_roc(path: Path, evaluation: Evaluation, predictions: Predictions | None = None) -> None:
    """Draws sensitivity over 1 - specificity with its band; the trivial score's curve too with ``predictions``."""
    figures = evaluation.slices.figures
    with draw(path, (5.6, 6.6)) as drawing:
        axes = drawing.add_subplot()
        draw_band(axes, evaluation.roc, f"model: AUC {state(figures.get('auc'))}")
        if predictions is not None and separable(predictions):
            from sklearn.metrics import roc_curve

            false_share, true_share, _ = roc_curve(predictions.positive, predictions.trivial)
            label = f"{evaluation.baselines.trivial_name}: AUC {state(evaluation.baselines.trivial_auc)}"
            axes.plot(false_share, true_share, color=VERMILLION, linestyle="--", label=label)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance: AUC 0.5")
        mark_point(axes, 1 - value_of(evaluation, "specificity"), value_of(evaluation, "sensitivity"), evaluation)
        axes.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC, slices")
        finish_square(drawing, axes)


def plot_precision_recall(path: Path, evaluation: Evaluation, predictions: Predictions | None = None) -> None:
    """Draws PPV over sensitivity with its band; chance is the share of positive images."""
    slices = evaluation.slices
    with draw(path, (5.6, 6.6)) as drawing:
        axes = drawing.add_subplot()
        score = state(slices.figures.get("average_precision"))
        draw_band(axes, evaluation.precision_recall, f"model: average precision {score}")
        if predictions is not None and separable(predictions):
            from sklearn.metrics import average_precision_score, precision_recall_curve

            precision, recall, _ = precision_recall_curve(predictions.positive, predictions.trivial)
            score = average_precision_score(predictions.positive, predictions.trivial)
            label = f"{evaluation.baselines.trivial_name}: average precision {score:.3f}"
            # Its last point is (0, 1) by definition, which nothing reaches.
            axes.plot(recall[:-1], precision[:-1], color=VERMILLION, linestyle="--", label=label)
        prevalence = slices.positives / slices.count
        axes.axhline(prevalence, color=GREY, linestyle=":", label=f"chance: prevalence {prevalence:.3f}")
        mark_point(axes, value_of(evaluation, "sensitivity"), value_of(evaluation, "ppv"), evaluation)
        axes.set(xlabel="sensitivity (recall)", ylabel="PPV (precision)", title="Precision and recall, slices")
        finish_square(drawing, axes)


def plot_confusion(path: Path, evaluation: Evaluation, labels: tuple[str, str]) -> None:
    """Draws counts and percentages of each row; of slices, and of patients where they are known.

    Args:
        path: PNG file to write.
        evaluation: what is drawn.
        labels: the negative and the positive label.
    """
    levels = [("slices", evaluation.slices)]
    if evaluation.patients is not None:
        levels.append(("patients", evaluation.patients))
    with draw(path, (4.2 * len(levels), 3.9)) as drawing:
        for axes, (name, level) in zip(np.atleast_1d(drawing.subplots(1, len(levels))), levels, strict=True):
            draw_confusion(axes, level.confusion, tuple(shorten(label) for label in labels))
            axes.set_title(f"{level.count:,} {name}, p > {level.threshold:.3g}")


def plot_classes(path: Path, classes: ClassFigures) -> None:
    """Draws for how many slices of each class each was answered."""
    side = 1.9 + 1.1 * len(classes.labels)
    with draw(path, (side, side)) as drawing:
        axes = drawing.add_subplot()
        draw_matrix(axes, np.array(classes.confusion), tuple(shorten(label) for label in classes.labels))
        axes.set_title(f"{sum(classes.counts):,} slices")


def draw_confusion(axes: Axes, confusion: Confusion, labels: tuple[str, ...]) -> None:
    counts = np.array(
        [
            [confusion.true_negatives, confusion.false_positives],
            [confusion.false_negatives, confusion.true_positives],
        ]
    )
    draw_matrix(axes, counts, labels)


def draw_matrix(axes: Axes, counts: NDArray[np.int64], labels: tuple[str, ...]) -> None:
    """Draws a confusion matrix, ``counts`` [C, C], a row each actual class."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        text = f"{count:,}\n{100 * shares[row, column]:.1f} %"
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            size=13,
            color="white" if shares[row, column] > 0.6 else "black",
        )
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels, rotation=90, va="center")
    axes.set(xlabel="answered", ylabel="actual (rows sum to 100 %)")


def plot_reliability(path: Path, evaluation: Evaluation) -> None:
    """Draws the observed share of positives over the predicted probability, with Wilson bars and the bins' counts."""
    bins, figures = evaluation.reliability, evaluation.slices.figures
    filled = bins.counts > 0
    predicted, observed = bins.predicted[filled], bins.observed[filled]
    # Rounding can put an end of the bar beyond the point itself.
    bars = np.maximum([observed - bins.low[filled], bins.high[filled] - observed], 0)
    with draw(path, (5.6, 6.6)) as drawing:
        above, below = drawing.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfectly calibrated")
        above.errorbar(predicted, observed, bars, color=BLUE, marker="o", capsize=3, label="observed, 95 % (Wilson)")
        above.set(ylabel="share that is positive", ylim=(-0.02, 1.02), xlim=(-0.02, 1.02))
        above.set_title(
            f"Reliability, slices: ECE {state(figures.get('ece'))}\nBrier score {state(figures.get('brier'))}"
        )
        edges = np.linspace(0, 1, len(bins.counts) + 1)
        below.bar(edges[:-1], bins.counts, width=np.diff(edges), align="edge", color=BLUE, edgecolor="white")
        below.set(xlabel="predicted probability", ylabel="slices")
        below.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        for axes in (above, below):
            mark_threshold(axes, evaluation)
            axes.grid(alpha=0.3)
            axes.set_axisbelow(True)
        put_legend_below(drawing, above)


def plot_decision(path: Path, evaluation: Evaluation) -> None:
    """Draws the net benefit per image over the threshold, beside answering everyone or no one."""
    curve = evaluation.decision
    with draw(path, (6, 4.2)) as drawing:
        axes = drawing.add_subplot()
        axes.plot(curve.thresholds, curve.model, color=BLUE, label="model")
        axes.plot(curve.thresholds, curve.all_positive, color=VERMILLION, linestyle="--", label="all called positive")
        axes.axhline(0, color=GREY, linestyle=":", label="none called positive")
        mark_threshold(axes, evaluation)
        top = max(float(np.nanmax(curve.model)), evaluation.slices.positives / evaluation.slices.count, 0.01)
        # All called positive falls without end; what lies far below nothing at all is of no interest.
        axes.set(xlim=(0, float(np.max(curve.thresholds))), ylim=(-0.25 * top, 1.1 * top))
        axes.set(xlabel="threshold", ylabel="net benefit per slice", title="Decision curve, slices")
        finish(axes)


def draw_band(axes: Axes, band: Band, label: str) -> None:
    axes.fill_between(band.x, band.low, band.high, color=BLUE, alpha=0.2, linewidth=0, label="95 % interval")
    axes.plot(band.x, band.y, color=BLUE, label=label)


def mark_point(axes: Axes, x: float, y: float, evaluation: Evaluation) -> None:
    """Marks the operating point, unless a figure of it is not defined."""
    label = f"operating point: p > {evaluation.slices.threshold:.3g}"
    axes.plot([x], [y], color="black", marker="D", linestyle="none", label=label, clip_on=False, zorder=5)


def mark_threshold(axes: Axes, evaluation: Evaluation) -> None:
    label = f"threshold {evaluation.slices.threshold:.3g}"
    axes.axvline(evaluation.slices.threshold, color="black", linestyle="-.", linewidth=1, label=label)


def value_of(evaluation: Evaluation, name: str) -> float:
    figure = evaluation.slices.figures.get(name)
    return np.nan if figure is None else figure.value


def separable(predictions: Predictions) -> bool:
    """True when both classes occur, without which there are no such curves."""
    return bool(predictions.positive.any() and not predictions.positive.all())


def finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def finish_square(drawing: Drawing, axes: Axes) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(alpha=0.3)
    put_legend_below(drawing, axes)


def put_legend_below(drawing: Drawing, axes: Axes) -> None:
    """Puts the legend where no curve can be, however bad the model is."""
    drawing.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize="small")
