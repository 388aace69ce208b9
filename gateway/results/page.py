"""The answer as a page of pixels, for viewers that show no structured report: black, with white letters, and beside
them the slice to look at first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from client import Window
from gateway.results.answer import NOTICE, SOFTWARE, Answer, FirstLook
from gateway.results.identity import to_ascii
from gateway.results.picture import PictureError, read_picture
from gateway.results.urgency import Urgency
from proto import __version__

SIDE = 1024
"""Pixels of the height of the page, and of the width of what is written."""

PANEL = 576
"""Width of what stands beside it."""

PICTURE = 512
"""Longer side of the picture: the matrix of CT scanners, whose pixels are as they are."""

_MARGIN, _PANEL_MARGIN = 56, (PANEL - PICTURE) // 2
_LARGE, _MEDIUM, _SMALL = 88, 38, 27
"""Heights of letters; the smallest can be read where the page is shown at half its size."""

_WHITE, _GREY = 255, 190
_GAP = 1.3  # of lines, in heights of letters


def draw_page(answer: Answer, window: Window | None) -> NDArray[np.uint8]:
    """Draws the page, uint8 [SIDE, SIDE], or [SIDE, SIDE + PANEL] where there is a slice to look at first. It has
    nothing by which a patient could be known.

    Args:
        answer: what it says.
        window: in which the slice is drawn; None: it is not known.
    """
    page = Page(SIDE, _MARGIN)
    page.write(f"{SOFTWARE} {__version__}", _SMALL, _GREY)
    page.write(NOTICE, _MEDIUM)
    page.rule()
    page.write(_name_result(answer), _LARGE)
    for line in _list_figures(answer):
        page.write(line, _MEDIUM)
    page.rule()
    page.write(_describe_model(answer), _SMALL, _GREY)
    for note in answer.list_notes():
        page.write(note, _SMALL)
    if page.is_full:
        page.write_last("There is more in the structured report.", _SMALL)
    if answer.first_look is None:
        return page.pixels
    return np.hstack([page.pixels, draw_panel(answer.first_look, window)])


def draw_panel(first: FirstLook, window: Window | None) -> NDArray[np.uint8]:
    """Draws the slice to look at first, uint8 [SIDE, PANEL]; where that cannot be done it says why."""
    panel = Page(PANEL, _PANEL_MARGIN)
    panel.write(f"The slice to look at first: {first.describe()}", _SMALL)
    try:
        if window is None:
            raise PictureError("the server does not say in what window its model sees it")
        frame = first.reference.frames[0] if first.reference.frames else 0
        picture = read_picture(first.reference.instance.path, frame, window)
        panel.paste(picture.pixels)
        side = f"The patient's {picture.left} is on the left. " if picture.left else ""
        panel.write(f"{side}Window: {window}. Nothing is marked on it.", _SMALL, _GREY)
    except PictureError as error:
        panel.write(f"There is no picture of it: {error}.", _SMALL)
    return panel.pixels


def _name_result(answer: Answer) -> str:
    return "NOT ANALYSED" if answer.urgency == Urgency.NOT_ANALYSED else answer.prediction.label.upper()


def _list_figures(answer: Answer) -> list[str]:
    study, first = answer.prediction, answer.first_look
    lines = []
    if study.is_analysed:
        lines.append(f"Probability of {study.positive_text}: {study.score:.3f} (threshold {study.threshold:.3g})")
    if first is not None:
        lines.append(f"Look first at {first.describe()}, probability {first.probability:.3f}")
    if study.is_analysed:
        lines.append("This is about the study as a whole. Nothing is localised.")
    if answer.urgency == Urgency.REST:
        lines.append("A probability below the threshold excludes nothing.")
    return lines


def _describe_model(answer: Answer) -> str:
    study = answer.prediction
    if not study.model:
        return "No model has seen this study."
    score = f" Score: {answer.derivation}." if study.is_analysed else ""
    return f"Model {study.model} {study.version}, SHA-256 {study.digest[:16]}...{score}"


class Page:
    """Writes lines from the top down; what finds no room is left out.

    Args:
        width: of the page; its height is SIDE.
        margin: left and right; above and below it is that of all pages.
    """

    def __init__(self, width: int, margin: int) -> None:
        self._width, self._margin = width, margin
        self._image = Image.new("L", (width, SIDE), 0)
        self._draw = ImageDraw.Draw(self._image)
        self._top = float(_MARGIN)
        self.is_full = False

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """What has been drawn, uint8 [SIDE, width]."""
        return np.asarray(self._image)

    def write(self, text: str, size: int, grey: int = _WHITE) -> None:
        """Writes a text, on several lines where it is long."""
        font = ImageFont.load_default(size)
        for line in self._wrap(to_ascii(text), font):
            if self.is_full or self._top + size * _GAP > SIDE - _MARGIN - _SMALL * _GAP:
                self.is_full = True
                return
            self._draw.text((self._margin, self._top), line, grey, font)
            self._top += size * _GAP
        self._top += size * (_GAP - 1)

    def rule(self) -> None:
        """Draws a line across."""
        self._draw.line((self._margin, self._top, self._width - self._margin, self._top), _GREY, 2)
        self._top += _SMALL

    def write_last(self, text: str, size: int) -> None:
        """Writes into the last line, which ``write`` leaves free."""
        self._draw.text((self._margin, SIDE - _MARGIN - size), text, _WHITE, ImageFont.load_default(size))

    def paste(self, picture: NDArray[np.uint8]) -> None:
        """Puts a picture below what has been written, its longer side PICTURE."""
        factor = PICTURE / max(picture.shape)
        rows, columns = (max(1, round(side * factor)) for side in picture.shape)
        scaled = Image.fromarray(picture).resize((columns, rows), Image.Resampling.BILINEAR)
        self._image.paste(scaled, ((self._width - columns) // 2, round(self._top)))
        self._top += rows + _SMALL * (_GAP - 1)

    def _wrap(self, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
        lines, line = list[str](), ""
        for word in text.split(" "):
            while word:
                longer = f"{line} {word}" if line else word
                if self._fits(longer, font):
                    line, word = longer, ""
                elif line:
                    lines, line = [*lines, line], ""
                else:  # a word that is longer than a line
                    count = next(n for n in range(len(word), 0, -1) if n == 1 or self._fits(word[:n], font))
                    lines, word = [*lines, word[:count]], word[count:]
        return [*lines, line] if line else lines

    def _fits(self, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> bool:
        return font.getlength(text) <= self._width - 2 * self._margin
