"""Is there a head to judge, and enough of it? Cheap checks in front of the model, on the pixels that it sees.

A classifier of brain slices answers whatever it is shown: an all-black slice, an inverted export and a photo get a
label like any other image. These checks find what cannot be judged. They look at a grid of at most 64 x 64 pixels and
cost 0.05 ms an image.

A slice shows bright tissue in one piece or few pieces on black ground, around the middle. What is bright and what is
dark is told by the image's own range. Each limit stands beside what 1,200 synthetic slices show (``training.phantom``,
``tests/test_server_checks.py`` holds the limits to it): far outside for
an image to be refused, close by to be called inverted. docs/limits.md has the figures, those on real slices too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from server.images.bits import find_layout, pack
from server.images.preprocess import Pixels

GRID = 64
"""Most pixels a side that are looked at."""

FRAME = 2
"""Width of the frame, in pixels of the grid."""

LEAST_RANGE = 24
"""Grey levels between the darkest and the brightest pixel, less is blank. Synthetic slices: at least 244."""

BRIGHT = 0.15
"""Share of the range above which a pixel is bright: with a brain window below all brain and above air and its noise."""

WHITE = 0.6
"""Share of the range above which a pixel is as bright as bone."""

STEP = 0.2
"""Share of the range that is a step between two pixels of the grid: at skin and bone there is one."""

FIELD_OF_VIEW = 0.97
"""Radius of a round one, as a share of half the side."""

BLOCKS = 8
"""Blocks a side, among which the one with most bright pixels is looked for."""

CUT_OFF = 0.4
"""Bright stretch of the first row, or of the first or last column, as a share of it, from which on the head is cut off.
Synthetic slices: at most 0.33; real ones: 0.17. The last row is not looked at, for a head lies on a rest."""

SOFT = 0.9
"""Share of the range below which a bright pixel is tissue, and no bone."""

LEAST_SOFT = 0.001
"""Share of all pixels that are tissue, less is no brain: 4 of 4,096. Of synthetic and of real slices one in 1,000 has
less, at the vertex."""

LARGE, SATURATED = 0.15, 0.1
"""Where more than ``LARGE`` of all pixels are bright, and less than ``SATURATED`` of these are tissue, grey levels are
lost in white. Synthetic slices: at least 0.44; real ones: 0.15."""

SPARSE = 0.05
"""With a smaller share of bright pixels an image may be a few letters: then strokes and solid areas are told apart."""


@dataclass(frozen=True)
class Reason:
    """Why an image was not analysed: machine-readable, and as a sentence for people."""

    reason: str
    message: str


BLANK = Reason("IMAGE_BLANK", "The image is blank: it shows nothing that could be judged.")
INVERTED = Reason(
    "IMAGE_INVERTED", "The image is inverted: it is white where a CT slice is black. Export it with bone in white."
)
NO_HEAD = Reason(
    "NO_HEAD", "Nothing in the image could be a head: send one slice of a head CT in a brain window, on black ground."
)


POOR = "INSUFFICIENT_QUALITY"
CLIPPED = Reason(POOR, "The head is cut off at the edge of the image: send the whole slice.")
NO_BRAIN = Reason(POOR, "There is hardly any brain in the image: send a slice between skull base and vertex.")
WHITE_OUT = Reason(
    POOR, "The image is saturated: nearly all that is not black is white. Export it in a brain window (40, 80)."
)


@dataclass(frozen=True)
class Limits:
    """What a slice of a head must show. Behind each: the least or most that synthetic slices show."""

    dark_frame: float
    """Least share of the frame that is dark. 0.877."""

    area: float
    """Least share of all pixels that is bright. 0.026, at the vertex."""

    white: float
    """Most of all pixels that lies above ``WHITE`` of the range: bone and bleeding. 0.28."""

    steps: float
    """Least number of steps from pixel to pixel that a row has, on average. 0.7; a smooth gradient has none."""

    pieces: float
    """Most bright stretches that a line has, rows or columns, on average. 5.5, at the skull base; text has 6 to 20."""

    block: float
    """Least share of the brightest block that is bright. 0.70."""

    offset: float
    """Most that the middle of the bright pixels lies aside, as a share of the side. 0.11."""

    top: float
    """Least distance of that middle from the upper edge, as a share of the side. 0.42: a head lies on a rest."""

    solid: float
    """Of few bright pixels, the least share in the midst of 3 x 3 bright ones. 0.66; letters have 0.00 to 0.04."""


COULD_BE = Limits(
    dark_frame=0.75, area=0.001, white=0.42, steps=0.12, pieces=8.0, block=0.0, offset=0.25, top=0.2, solid=0.066
)
IS_SURELY = Limits(
    dark_frame=0.85, area=0.02, white=0.35, steps=0.6, pieces=6.0, block=0.5, offset=0.13, top=0.38, solid=0.5
)


class Grid:
    """The pixels that are looked at.

    Attributes:
        levels: uint8 [height, width], at least ``2 * FRAME + 1`` a side.
        low, high: the least and the most of them.
        bright: which of them are bright, and ``bits`` the same, of which ``layout`` says where each is.
    """

    def __init__(self, levels: NDArray[np.uint8], level: float, low: int, high: int) -> None:
        self.levels, self.low, self.high = levels, low, high
        self.bright = levels >= level
        self.bits, self.layout = pack(self.bright), find_layout(*levels.shape, FRAME)

    def find_level(self, share: float) -> float:
        """The grey level at a share of the range."""
        return self.low + share * (self.high - self.low)


def find_reasons(pixels: Pixels) -> tuple[Reason, ...]:
    """Returns why an image cannot be judged; nothing for one that could be a slice of a head."""
    image = pixels.content
    grey = image[:, :, image.shape[2] // 2]  # of three channels green, which is most of the brightness
    step = -(-max(grey.shape) // GRID)
    levels = np.ascontiguousarray(grey[step // 2 :: step, step // 2 :: step])
    low, high = int(levels.min()), int(levels.max())
    if high - low < LEAST_RANGE:
        return (BLANK,)
    if min(levels.shape) <= 2 * FRAME:  # a strip
        return (NO_HEAD,)
    level = low + BRIGHT * (high - low)
    grid = Grid(levels, level, low, high)
    if shows_head(grid, COULD_BE, lambda: measure_solid(grey >= level)):
        return find_faults(grid)
    upright = invert(levels, level)
    inverted = Grid(upright, level - low, int(upright.min()), int(upright.max()))
    if shows_head(inverted, IS_SURELY, lambda: measure_solid(grey <= high - level + low)):
        return (INVERTED,)
    return (NO_HEAD,)


def find_faults(grid: Grid) -> tuple[Reason, ...]:
    """Returns what makes a slice of a head one that cannot be judged.

    Motion is not looked for: what blurs a slice no more than that lies among slices of soft kernels.
    """
    bright, bits, layout = grid.bright, grid.bits, grid.layout
    edges = ((layout.top, bright[0]), (layout.left, bright[:, 0]), (layout.right, bright[:, -1]))
    for edge, line in edges:
        if (bits & edge).bit_count() >= CUT_OFF * len(line) and find_longest(line) >= CUT_OFF * len(line):
            return (CLIPPED,)
    area, tissue = bits.bit_count(), (bits & pack(grid.levels < grid.find_level(SOFT))).bit_count()
    if tissue < LEAST_SOFT * bright.size:
        return (NO_BRAIN,)
    if area > LARGE * bright.size and tissue < SATURATED * area:
        return (WHITE_OUT,)
    return ()


def find_longest(line: NDArray[np.bool_]) -> int:
    """Returns the length of the longest stretch of true values."""
    ends = np.flatnonzero(np.diff(line.astype(np.int8), prepend=0, append=0))
    return int((ends[1::2] - ends[::2]).max(initial=0))


def shows_head(grid: Grid, limits: Limits, measure: Callable[[], float]) -> bool:
    """Returns whether an image keeps to ``limits``.

    Args:
        grid: its pixels, inverted or not.
        limits: what to keep to.
        measure: returns what ``measure_solid`` says of the whole image.
    """
    size, bits, layout = grid.levels.size, grid.bits, grid.layout
    area, inside = bits.bit_count(), (bits & layout.inside).bit_count()
    frame_size = size - layout.inside.bit_count()
    if area < limits.area * size or area - inside > (1 - limits.dark_frame) * frame_size:
        return False
    if np.count_nonzero(grid.levels >= grid.find_level(WHITE)) > limits.white * size:
        return False
    column, row = layout.find_middle(bits)
    if abs(column / layout.width - 0.5) > limits.offset or row / layout.height < limits.top:
        return False
    rises = zip(layout.count_rises(bits), layout.count_lines(bits), strict=True)
    if max(count / lines for count, lines in rises) > limits.pieces:
        return False
    if count_steps(grid.levels, grid.high - grid.low) < limits.steps:
        return False
    if limits.block and find_densest(grid.bright) < limits.block:
        return False
    return area >= SPARSE * size or measure() >= limits.solid


def count_steps(levels: NDArray[np.uint8], span: int) -> float:
    """Returns how often in a row two pixels beside each other differ by more than ``STEP`` of the range ``span``."""
    before, after = levels[:, :-1], levels[:, 1:]
    large = np.maximum(before, after) - np.minimum(before, after) > STEP * span
    return int(np.count_nonzero(large)) / len(levels)


def find_densest(bright: NDArray[np.bool_]) -> float:
    """Returns the share of bright pixels in the block that has most of them."""
    height, width = (side // BLOCKS for side in bright.shape)
    if not height or not width:
        return 0.0
    blocks = bright[: height * BLOCKS, : width * BLOCKS].reshape(BLOCKS, height, BLOCKS, width)
    return float(blocks.mean(axis=(1, 3)).max())


def measure_solid(bright: NDArray[np.bool_]) -> float:
    """Returns the share of the bright pixels around which all 3 x 3 are bright."""
    flat = bright[1:-1] & bright[:-2] & bright[2:]
    core = int(np.count_nonzero(flat[:, 1:-1] & flat[:, :-2] & flat[:, 2:]))
    return core / max(int(np.count_nonzero(bright)), 1)


def invert(grid: NDArray[np.uint8], level: float) -> NDArray[np.uint8]:
    """Returns the grid as it was if the image has been inverted. Black bars, and the black outside a round field of
    view, came later: bars are cut off, the outside stays black."""
    bright = grid >= level
    rows, columns = (find_stretch(np.logical_or.reduce(bright, axis)) for axis in (1, 0))
    part = grid[rows, columns]
    if min(part.shape) <= 2 * FRAME:
        part = grid
    high = np.uint8(grid.max())
    upright: NDArray[np.uint8] = high - np.where(find_outside(*part.shape) & (part < level), high, part)
    return upright


def find_stretch(lines: NDArray[np.bool_]) -> slice:
    """Returns the stretch between dark ends, without the lines beside these, which are part of both."""
    first, last = np.flatnonzero(lines)[[0, -1]]
    end = len(lines) - 1
    return slice(int(first) + (first > 0), int(last) + (last == end))


@lru_cache(maxsize=16)
def find_outside(height: int, width: int) -> NDArray[np.bool_]:
    """Returns what lies outside the largest ellipse."""
    rows, columns = np.linspace(-1, 1, height), np.linspace(-1, 1, width)
    return np.hypot(rows[:, np.newaxis], columns) > FIELD_OF_VIEW
