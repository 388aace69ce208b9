"""Pictures of single test images with what they show and what the model answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from training.drawing import BLUE, GREY, VERMILLION, draw, shorten
from training.evaluation import Judged

ReadImages = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""From positions in ``Judged`` [n] to the images that were judged, uint8 [n, H, W]."""

ROWS, COLUMNS = 4, 6
TILE_INCHES = 1.55
DOTS_PER_INCH = 100
"""A tile is 155 pixels wide; 24 of them, at one byte a pixel, stay below 600 kB even where they are noise."""

TITLE_POINTS = 8
LINE_INCHES = 0.16
"""Of a title, with the space between the lines."""

LONGEST_FILE = 21


@dataclass(frozen=True)
class Tile:
    """One image of a gallery."""

    image: NDArray[np.uint8]
    """[H, W]."""

    title: str
    """Actual label, mark, answered label and confidence; for errors the file too."""

    correct: bool


def choose_gallery(judged: Judged, count: int = ROWS * COLUMNS, seed: int = 7) -> NDArray[np.int64]:
    """Returns positions of images drawn at random, half of each class as far as there are enough, in file order.

    What the model answered plays no part, so that the gallery flatters nobody.
    """
    rng = np.random.default_rng(seed)
    positive, negative = (rng.permutation(np.flatnonzero(judged.positive == value)) for value in (True, False))
    share = max(count // 2, count - len(negative))
    taken = positive[:share]
    return np.sort(np.concatenate([taken, negative[: count - len(taken)]])).astype(np.int64)


def choose_errors(judged: Judged, threshold: float, *, positive: bool, count: int = COLUMNS * 2) -> NDArray[np.int64]:
    """Returns positions of the errors of one actual class, the most confident first, at most one of a person.

    Args:
        judged: the answers.
        threshold: of the decision.
        positive: actual class: True for the false negatives, False for the false positives.
        count: most of them.
    """
    called = judged.scores > threshold
    wrong = np.flatnonzero((judged.positive == positive) & (called != judged.positive))
    order = wrong[np.argsort(judged.scores[wrong] if positive else -judged.scores[wrong], kind="stable")]
    first = np.sort(np.unique(judged.groups[order], return_index=True)[1])
    return order[first[:count]].astype(np.int64)


def describe_answer(judged: Judged, index: int, threshold: float, labels: tuple[str, str]) -> str:
    """Returns the lines over an image: its actual label, and what was answered with its confidence in percent.

    Args:
        judged: the answers.
        index: which of them.
        threshold: of the decision.
        labels: the negative and the positive label.
    """
    score = float(judged.scores[index])
    called = score > threshold
    confidence = score if called else 1 - score
    mark = "✓" if called == judged.positive[index] else "✗"
    actual, answered = labels[int(judged.positive[index])], labels[int(called)]
    return f"actual: {shorten(actual)}\n{mark} predicted: {shorten(answered, 11)}\nconfidence {100 * confidence:.1f} %"


def make_tiles(
    judged: Judged,
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
        title = describe_answer(judged, int(index), threshold, labels)
        if with_files:
            title += f"\n{shorten(judged.files[index].rsplit('/', 1)[-1], LONGEST_FILE)}"
        correct = bool((judged.scores[index] > threshold) == judged.positive[index])
        tiles.append(Tile(image, title, correct))
    return tiles


def plot_gallery(path: Path, title: str, sections: Mapping[str, Sequence[Tile]], columns: int = COLUMNS) -> None:
    """Draws images under their titles; correct ones in a thin blue frame, wrong ones in a thick dashed vermillion one.

    Args:
        path: PNG file to write.
        title: over everything.
        sections: tiles by the heading over them, which may be empty; a section without tiles says so.
        columns: tiles in a row.
    """
    rows = [max(1, -(-len(tiles) // columns)) for tiles in sections.values()]
    lines = max((tile.title.count("\n") + 1 for tiles in sections.values() for tile in tiles), default=1)
    tile_height = TILE_INCHES + LINE_INCHES * lines
    heights = [count * tile_height + (0.3 if heading else 0) for count, heading in zip(rows, sections, strict=True)]
    with draw(path, (columns * TILE_INCHES + 0.3, sum(heights) + 0.4), DOTS_PER_INCH) as drawing:
        drawing.suptitle(title, size="large")
        parts = np.atleast_1d(drawing.subfigures(len(sections), 1, height_ratios=heights))
        for part, count, (heading, tiles) in zip(parts, rows, sections.items(), strict=True):
            if heading:
                part.suptitle(heading, size="medium")
            cells = part.subplots(count, columns, squeeze=False).ravel()
            for cell in cells:
                cell.axis("off")
            if not tiles:
                cells[0].text(0, 0.5, "none", color=GREY, va="center")
            for cell, tile in zip(cells, tiles, strict=False):
                draw_tile(cell, tile)


def draw_tile(axes: Axes, tile: Tile) -> None:
    axes.axis("on")
    axes.set(xticks=[], yticks=[])
    axes.imshow(tile.image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    colour = BLUE if tile.correct else VERMILLION
    axes.set_title(tile.title, size=TITLE_POINTS, linespacing=1.15, pad=3)
    for spine in axes.spines.values():
        spine.set(
            edgecolor=colour, linewidth=1 if tile.correct else 2.5, linestyle="-" if tile.correct else (0, (3, 1))
        )


def plot_predictions(
    path: Path, judged: Judged, read_images: ReadImages, threshold: float, labels: tuple[str, str], seed: int = 7
) -> None:
    """Draws a gallery of test images, half of each class, drawn at random."""
    indices = choose_gallery(judged, seed=seed)
    tiles = make_tiles(judged, indices, read_images, threshold, labels)
    wrong = sum(not tile.correct for tile in tiles)
    title = (
        f"{len(tiles)} test images drawn at random, half of each class: {len(tiles) - wrong} correct, {wrong} wrong (✗)"
    )
    plot_gallery(path, title, {"": tiles})


def plot_errors(path: Path, judged: Judged, read_images: ReadImages, threshold: float, labels: tuple[str, str]) -> None:
    """Draws the most confident false positives and false negatives."""
    sections = {}
    for name, positive in (("False positives", False), ("False negatives", True)):
        indices = choose_errors(judged, threshold, positive=positive)
        total = int(((judged.positive == positive) & ((judged.scores > threshold) != judged.positive)).sum())
        heading = f"{name}, most confident first: {len(indices)} of {total:,}"
        sections[heading] = make_tiles(judged, indices, read_images, threshold, labels, with_files=True)
    kept = ", one of a person" if judged.has_patients else ""
    plot_gallery(path, f"The worst errors{kept}", sections)
