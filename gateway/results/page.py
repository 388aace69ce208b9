"""The answer as a page of pixels, for viewers that show no structured report: black, with white letters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gateway.results.answer import NOTICE, SOFTWARE, Answer
from gateway.results.identity import to_ascii
from gateway.results.urgency import Urgency
from proto import __version__

SIDE = 1024
"""Pixels of the page's height and width."""

_MARGIN = 56
_LARGE, _MEDIUM, _SMALL = 88, 38, 27
"""Heights of letters; the smallest can be read where the page is shown at half its size."""

_WHITE, _GREY = 255, 190
_GAP = 1.3  # of lines, in heights of letters


def draw_page(answer: Answer) -> NDArray[np.uint8]:
    """Draws the page, uint8 [SIDE, SIDE]. It has nothing by which a patient could be known."""
    page = Page()
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
    return page.finish()


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
    """Writes lines from the top down; what finds no room is left out, which the last line says."""

    def __init__(self) -> None:
        self._image = Image.new("L", (SIDE, SIDE), 0)
        self._draw = ImageDraw.Draw(self._image)
        self._top = float(_MARGIN)
        self._is_full = False

    def write(self, text: str, size: int, grey: int = _WHITE) -> None:
        """Writes a text, on several lines where it is long."""
        font = ImageFont.load_default(size)
        for line in self._wrap(to_ascii(text), font):
            if self._is_full or self._top + size * _GAP > SIDE - _MARGIN - _SMALL * _GAP:
                self._is_full = True
                return
            self._draw.text((_MARGIN, self._top), line, grey, font)
            self._top += size * _GAP
        self._top += size * (_GAP - 1)

    def rule(self) -> None:
        """Draws a line across."""
        self._draw.line((_MARGIN, self._top, SIDE - _MARGIN, self._top), _GREY, 2)
        self._top += _SMALL

    def finish(self) -> NDArray[np.uint8]:
        """Returns the pixels."""
        if self._is_full:
            place = (_MARGIN, SIDE - _MARGIN - _SMALL)
            self._draw.text(place, "There is more in the structured report.", _WHITE, ImageFont.load_default(_SMALL))
        return np.asarray(self._image)

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
        return font.getlength(text) <= SIDE - 2 * _MARGIN
