"""The picture of an explanation: heat where it belongs, the image under it, and the notice."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server.images.overlay import LEAST_HEAT, Box, draw_overlay

SIDE = 64
WHOLE = Box(0, 0, SIDE, SIDE)
BLACK = np.zeros((SIDE, SIDE, 1), np.uint8)


def draw(
    pixels: NDArray[np.uint8] = BLACK, cells: object = ((0.0, 0.0), (0.0, 0.0)), area: Box = WHOLE
) -> NDArray[np.int64]:
    """The overlay's pixels, int64 [height, width, 3]."""
    png, _ = draw_overlay(pixels, np.array(cells, np.float32), area)
    return np.asarray(Image.open(io.BytesIO(png))).astype(np.int64)


def test_heat_is_where_its_cell_is() -> None:
    """Row and column count from the upper left; half a cell beyond it fades out."""
    picture = draw(cells=[[0, 2], [0, 0]])

    assert picture.shape == (512, 512, 3)
    assert picture[100, 400].max() > 100
    assert picture[100, 100].max() == picture[380, 100].max() == 0


def test_cells_lie_in_their_area_and_nothing_beyond_it() -> None:
    """Convolutions without padding have none at the border."""
    picture = draw(cells=np.ones((4, 4)), area=Box(16, 8, 48, 40))

    heated = picture.max(axis=2) > 0
    rows, columns = np.flatnonzero(heated[:400].any(axis=1)), np.flatnonzero(heated[:400].any(axis=0))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (64, 320, 128, 384)


def test_area_may_reach_beyond_the_image() -> None:
    """As that of ResNet-50, whose cells begin half a cell before it."""
    picture = draw(cells=np.eye(4) * 2, area=Box(-8, -8, 56, 56))

    assert picture[8, 8].max() > 100
    assert picture[480, 60].max() == 0


def test_box_is_the_area_in_pixels_of_the_picture() -> None:
    """So that the raw heatmap can be laid over it."""
    assert draw_overlay(BLACK, np.zeros((2, 2), np.float32), Box(-1, 2, 30, 40))[1] == Box(-8, 16, 240, 320)


def test_no_evidence_leaves_the_image_grey() -> None:
    """Nothing glows because nothing else is stronger."""
    grey = np.random.RandomState(0).randint(0, 256, (SIDE, SIDE, 1)).astype(np.uint8)

    picture = draw(grey)

    assert np.ptp(picture, axis=2).max() == 0
    assert picture.std() > 20


def test_weak_evidence_is_weaker_than_strong() -> None:
    """Below one in log-odds the scale is the same for all images; above it the strongest cell is full."""
    weak, full, strong = (
        draw(cells=np.full((2, 2), amount * LEAST_HEAT))[100, 100].sum() for amount in (0.2, 1.0, 30.0)
    )

    assert 0 < weak < full / 2
    assert full == strong


@pytest.mark.parametrize("level", [0, 255])
def test_notice_is_legible_on_black_and_on_white(level: int) -> None:
    """White letters with black around them, and nowhere else in the picture."""
    picture = draw(np.full((SIDE, SIDE, 3), level, np.uint8))

    strip = picture[480:]
    assert np.count_nonzero(strip == 255) > 1500
    assert np.count_nonzero(strip == 0) > 1500
    assert (picture[:470] == level).all()


def test_colour_channels_are_shown_as_one_grey() -> None:
    """What several windows show is one image for people."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[:, :, 0], pixels[:, :, 2] = 90, 210

    assert (draw(pixels)[:470] == 100).all()


@pytest.mark.parametrize(("side", "wanted"), [(32, 512), (224, 448), (256, 512), (300, 600), (1024, 1024)])
def test_every_pixel_becomes_a_whole_number_of_them(side: int, wanted: int) -> None:
    """About 512 a side, whatever the model takes."""
    png, _ = draw_overlay(np.zeros((side, side, 1), np.uint8), np.zeros((2, 2), np.float32), Box(0, 0, side, side))

    assert Image.open(io.BytesIO(png)).size == (wanted, wanted)
