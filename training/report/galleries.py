"""Pictures of single test images with what they show and what the model answered."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from training.evaluation.figures import Predictions
from training.evaluation.positive import answer_classes
from training.report.drawing import BLUE, VERMILLION, draw, shorten

ReadImages = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""From positions in ``Predictions`` [n] to the images, uint8 [n, H, W]."""

ROWS, COLUMNS = 4, 6
TILE_INCHES = 1.55
DOTS_PER_INCH = 100
"""A tile is 155 pixels wide; 24 of them, at one byte a pixel, stay below 600 kB even where they are noise."""

TITLE_POINTS = 8
LINE_INCHES, GAP_INCHES, HEADING_INCHES = 0.155, 0.06, 0.35
"""Height of a line of a title, space between tiles, height of a heading."""

LONGEST_FILE = 21


@dataclass(frozen=True)
class Tile:
    """One image of a gallery."""

    image: NDArray[np.uint8]
    """[H, W]."""

    title: str
    """Actual label, mark, answered label and confidence; for errors the file too."""

    correct: bool


def choose_gallery(predictions: Predictions, count: int = ROWS * COLUMNS, seed: int = 7) -> NDArray[np.int64]:
    """Returns positions of images drawn at random, half of each class as far as there are enough, in file order.

    What the model answered plays no part, so that the gallery flatters nobody.
    """
    rng = np.random.default_rng(seed)
    positive, negative = (rng.permutation(np.flatnonzero(predictions.positive == value)) for value in (True, False))
    share = max(count // 2, count - len(negative))
    taken = positive[:share]
    return np.sort(np.concatenate([taken, negative[: count - len(taken)]])).astype(np.int64)


def choose_errors(
    predictions: Predictions, threshold: float, *, positive: bool, count: int = COLUMNS * 2
) -> NDArray[np.int64]:
    """Returns positions of the errors of one actual class, the most confident first, at most one of a person.

    Args:
        predictions: of the model.
        threshold: of the decision.
        positive: actual class: True for the false negatives, False for the false positives.
        count: most of them.
    """
    called = predictions.scores > threshold
    wrong = np.flatnonzero((predictions.positive == positive) & (called != predictions.positive))
    order = wrong[np.argsort(predictions.scores[wrong] if positive else -predictions.scores[wrong], kind="stable")]
    first = np.sort(np.unique(predictions.groups[order], return_index=True)[1])
    return order[first[:count]].astype(np.int64)


def describe_answer(predictions: Predictions, index: int, threshold: float, labels: tuple[str, str]) -> str:
    """Returns the lines over an image: its actual label, and what was answered with its confidence in percent.

    Args:
        predictions: of the model.
        index: which of them.
        threshold: of the decision.
        labels: the negative and the positive label.
    """
    actual, answered, confidence = read_answer(predictions, index, threshold, labels)
    mark = "✓" if actual == answered else "✗"
    return f"actual: {shorten(actual)}\n{mark} predicted: {shorten(answered, 11)}\nconfidence {100 * confidence:.1f} %"


def read_answer(
    predictions: Predictions, index: int, threshold: float, labels: tuple[str, str]
) -> tuple[str, str, float]:
    """Returns what an image shows, what was answered, and the probability of that; see ``describe_answer``."""
    if (classes := predictions.classes) is not None:
        row = classes.probabilities[[index]]
        answer = answer_classes(row, classes.positive, threshold)[0]
        return classes.labels[classes.targets[index]], classes.labels[answer], float(row[0, answer])
    score = float(predictions.scores[index])
    called = score > threshold
    return labels[int(predictions.positive[index])], labels[int(called)], score if called else 1 - score


def make_tiles(
    predictions: Predictions,
    indices: NDArray[np.int64],
    read_images: ReadImages,
    threshold: float,
    labels: tuple[str, str],
    *,
    with_files: bool = False,
) -> list[Tile]:
    """Reads the images at ``indices`` and says what was answered on each."""
    if not len(indices):
        return []
    tiles = []
    for index, image in zip(indices, read_images(indices), strict=True):
        title = describe_answer(predictions, int(index), threshold, labels)
        if with_files:
            title += f"\n{shorten(predictions.files[index].rsplit('/', 1)[-1], LONGEST_FILE)}"
        actual, answered, _ = read_answer(predictions, int(index), threshold, labels)
        tiles.append(Tile(image, title, actual == answered))
    return tiles


def plot_gallery(path: Path, title: str, sections: Mapping[str, Sequence[Tile]], columns: int = COLUMNS) -> None:
    """Draws images under their titles; correct ones in a thin blue frame, wrong ones in a thick dashed vermillion one.

    Args:
        path: PNG file to write.
        title: over everything.
        sections: tiles by the heading over them, which may be empty; a section without tiles says so.
        columns: tiles in a row.
    """
    lines = max((tile.title.count("\n") + 1 for tiles in sections.values() for tile in tiles), default=1)
    pitch = TILE_INCHES + lines * LINE_INCHES + GAP_INCHES
    width = columns * (TILE_INCHES + GAP_INCHES) + GAP_INCHES
    rows = sum(max(1, math.ceil(len(tiles) / columns)) for tiles in sections.values())
    height = HEADING_INCHES * (1 + sum(map(bool, sections))) + rows * pitch
    with draw(path, (width, height), DOTS_PER_INCH) as drawing:
        # One pair of axes in inches from the upper left, not one for each tile: those take seconds to lay out.
        drawing.set_layout_engine("none")
        axes = drawing.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        top = HEADING_INCHES
        axes.text(width / 2, top / 2, title, size="large", ha="center", va="center")
        for heading, tiles in sections.items():
            if heading:
                axes.text(GAP_INCHES, top + HEADING_INCHES / 2, heading, size="medium", weight="bold", va="center")
                top += HEADING_INCHES
            if not tiles:
                axes.text(GAP_INCHES, top + LINE_INCHES, "none", va="center")
            for place, tile in enumerate(tiles):
                row, column = divmod(place, columns)
                left = GAP_INCHES + column * (TILE_INCHES + GAP_INCHES)
                draw_tile(axes, tile, left, top + row * pitch + lines * LINE_INCHES)
            top += max(1, math.ceil(len(tiles) / columns)) * pitch


def draw_tile(axes: Axes, tile: Tile, left: float, top: float) -> None:
    """Draws one image with its frame and title; its upper left corner is at ``left``, ``top`` inches."""
    extent = (left, left + TILE_INCHES, top + TILE_INCHES, top)
    limits = axes.axis()
    axes.imshow(tile.image, cmap="gray", vmin=0, vmax=255, extent=extent, aspect="auto", interpolation="antialiased")
    axes.axis(limits)
    colour, line, style = (BLUE, 1, "-") if tile.correct else (VERMILLION, 2.5, (0, (3, 1)))
    frame = Rectangle(
        (left, top), TILE_INCHES, TILE_INCHES, fill=False, edgecolor=colour, linewidth=line, linestyle=style
    )
    axes.add_patch(frame)
    middle, above = left + TILE_INCHES / 2, top - 0.03
    axes.text(middle, above, tile.title, size=TITLE_POINTS, ha="center", va="bottom", linespacing=1.15)


def plot_predictions(
    path: Path,
    predictions: Predictions,
    read_images: ReadImages,
    threshold: float,
    labels: tuple[str, str],
    seed: int = 7,
) -> None:
    """Draws a gallery of test images, half of each class, drawn at random."""
    indices = choose_gallery(predictions, seed=seed)
    tiles = make_tiles(predictions, indices, read_images, threshold, labels)
    wrong = sum(not tile.correct for tile in tiles)
    halves = "half of them positive" if predictions.classes else "half of each class"
    title = f"{len(tiles)} test images drawn at random, {halves}: {len(tiles) - wrong} correct, {wrong} wrong (✗)"
    plot_gallery(path, title, {"": tiles})


def plot_errors(
    path: Path, predictions: Predictions, read_images: ReadImages, threshold: float, labels: tuple[str, str]
) -> None:
    """Draws the most confident false positives and false negatives."""
    sections = {}
    for name, positive in (("False positives", False), ("False negatives", True)):
        indices = choose_errors(predictions, threshold, positive=positive)
        total = int(
            ((predictions.positive == positive) & ((predictions.scores > threshold) != predictions.positive)).sum()
        )
        heading = f"{name}, most confident first: {len(indices)} of {total:,}"
        sections[heading] = make_tiles(predictions, indices, read_images, threshold, labels, with_files=True)
    kept = ", at most one of each person" if predictions.has_patients else ""
    plot_gallery(path, f"The worst errors{kept}", sections)
