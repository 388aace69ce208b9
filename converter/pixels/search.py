"""Finds what an author did to pixels: the combination whose answers are those that the author got for the same files.

Values and order of channels weigh most and the size changes little of that, so they are tried first, at the usual
resize; the best of them are then tried with every resize. No combination is judged by the files alone that chose it:
the best are compared on more, and the winner, exported, on all of them (``converter.pixels.reference.check_served``).
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.config import ConvertOptions
from converter.errors import OutputValuesError
from converter.pixels.preprocess import CHANNEL_ORDERS, Preprocess, list_possible
from converter.pixels.reference import BOUND, Closeness, Reference
from converter.pixels.sampling import spread_evenly
from converter.source import SourceModel
from server.images.fit import FITS
from server.images.preprocess import InputFormat
from server.images.resample import RESAMPLE_FILTERS
from server.models.contract import COLOURS, ModelSpec

FIRST_FILES = 8
"""Files on which every combination is tried."""

LAST_FILES = 64
"""Files on which the best are."""

KEPT_VALUES = 3
"""Values and orders that are tried with every resize."""

KEPT = 8
"""Combinations that are compared on more files, and shown."""

TELL_SECONDS = 10
"""Between two words of progress."""

SAME = 1e-6
"""Two combinations whose mean differences are nearer than this cannot be told apart."""


@dataclass(frozen=True)
class Combination:
    """One way of pixels from file to model."""

    preprocess: Preprocess
    input_format: InputFormat

    def describe(self) -> dict[str, str]:
        """Its flags."""
        return {
            "preprocess": self.preprocess.values,
            "channel_order": self.preprocess.channel_order,
            "colour": self.input_format.colour,
            "resample": self.input_format.resample,
            "fit": self.input_format.fit,
        }


@dataclass(frozen=True)
class Ranked:
    """Combinations that make the same pixels of the files on which they were tried, and how near their answers come."""

    combinations: tuple[Combination, ...]
    close: Closeness


@dataclass(frozen=True)
class Found:
    """The outcome of a search: what came nearest, best first, on the same files."""

    ranking: tuple[Ranked, ...]
    files: int
    tried: int

    @property
    def best(self) -> Combination:
        """The one that came nearest."""
        return self.ranking[0].combinations[0]

    @property
    def rivals(self) -> tuple[Combination, ...]:
        """Others that give the author's answers too, though with other pixels."""
        return tuple(one.combinations[0] for one in self.ranking[1:] if one.close.is_close)

    def render(self) -> str:
        """The ranking as a table."""
        heading = ["preprocess", "order", "colour", "resample", "fit", "same label", "mean |Δp|", "largest"]
        rows = [
            [
                *one.combinations[0].describe().values(),
                f"{one.close.same_label:.1%}",
                f"{one.close.mean_difference:.2g}",
                f"{one.close.largest_difference:.2g}",
            ]
            for one in self.ranking
        ]
        widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
        return "\n".join(
            "  " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (heading, *rows)
        )

    def to_document(self) -> list[dict[str, Any]]:
        """The ranking for machines."""
        return [{**one.combinations[0].describe(), **asdict(one.close)} for one in self.ranking]


def search_pixels(
    source: SourceModel,
    reference: Reference,
    spec: ModelSpec,
    options: ConvertOptions,
    tell: Callable[[str], None] = lambda step: None,
) -> Found:
    """Finds the combination whose answers come nearest to the author's.

    Args:
        source: the trained model.
        reference: the author's answers.
        spec: labels, threshold, and what is tried first of colour, resize and fit.
        options: what the user says is not searched.
        tell: called with the progress.

    Raises:
        OutputValuesError: none comes near enough; the message has the best.
    """
    usual = InputFormat(source.height, source.width, spec.colour, spec.resample, spec.fit, spec.windows)
    trial = Trial(source, spec, tell)
    few = reference.choose(spread_evenly(len(reference.files), FIRST_FILES))
    first = trial.rank(few, list_values(source, few, usual, options))
    sized = [
        Combination(one.preprocess, replace(one.input_format, resample=resample, fit=fit))
        for one, resample, fit in itertools.product(
            list_members(first[:KEPT_VALUES]),
            [options.resample] if options.resample else sort_first(RESAMPLE_FILTERS, usual.resample),
            [options.fit] if options.fit else sort_first(FITS, usual.fit),
        )
    ]
    second = trial.rank(few, sized)
    many = reference.choose(spread_evenly(len(reference.files), LAST_FILES))
    ranking = trial.rank(many, list_members(second[:KEPT]))[:KEPT]
    found = Found(tuple(ranking), len(many.files), trial.tried)
    tell(f"what was done to the pixels, on {found.files} files of {reference.path}:\n{found.render()}")
    close = ranking[0].close
    if not close.is_close:
        raise OutputValuesError(
            f"no way of pixels gives the author's answers in {reference.path}: the best of {found.tried} gives {close} "
            f"(needed: {BOUND}). Something else was done to them (a crop, a window, another normalisation), or the "
            "answers are of another model, or of classes in another order than --labels"
        )
    if found.rivals:
        tell(f"note: {len(found.rivals) + 1} of these give the author's answers; the nearest is taken")
    return found


def list_members(ranking: Sequence[Ranked]) -> list[Combination]:
    """All combinations of a ranking: more files may tell those apart that made the same pixels of fewer."""
    return [member for one in ranking for member in one.combinations]


def list_values(
    source: SourceModel, reference: Reference, usual: InputFormat, options: ConvertOptions
) -> Iterable[Combination]:
    """Combinations of what is done to the values, at the usual resize."""
    values = [options.preprocess or source.input_range] if options.preprocess or source.input_range else None
    colours = [usual.colour] if options.colour or source.channels == 1 else sort_first(COLOURS, usual.colour)
    orders = [options.channel_order] if options.channel_order else list(CHANNEL_ORDERS)
    pixels = reference.load(replace(usual, colour=colours[0]))
    if (pixels == pixels[..., :1]).all():
        colours, orders = colours[:1], orders[:1]  # which then make no difference
    for value, order, colour in itertools.product(values or list_possible(source.channels), orders, colours):
        if colour == "grey" and order != orders[0]:
            continue
        form = replace(usual, colour=colour, resample=options.resample or usual.resample, fit=options.fit or usual.fit)
        yield Combination(Preprocess(str(value), order), form)


def sort_first(names: Sequence[str], first: str) -> list[str]:
    """The names, one of them first: what comes first is taken of what cannot be told apart."""
    return sorted(names, key=lambda name: name != first)


class Trial:
    """Tries combinations, and asks a model but once where several make the same pixels."""

    def __init__(self, source: SourceModel, spec: ModelSpec, tell: Callable[[str], None]) -> None:
        self._source, self._spec, self._tell = source, spec, tell
        self.tried = 0

    def rank(self, reference: Reference, combinations: Iterable[Combination]) -> list[Ranked]:
        """The combinations with their closeness, nearest first; of equal ones in the order that they came in."""
        todo = list(combinations)
        loaded: dict[InputFormat, NDArray[np.uint8]] = {}
        members: dict[tuple[Preprocess, bytes], list[Combination]] = {}
        ranking: dict[tuple[Preprocess, bytes], Closeness] = {}
        self._tell(f"trying {len(todo)} ways of pixels on {len(reference.files)} files")
        told = time.monotonic()
        for number, one in enumerate(todo):
            if time.monotonic() > told + TELL_SECONDS:
                told = time.monotonic()
                self._tell(f"tried {number} of {len(todo)} ways of pixels")
            if one.input_format not in loaded:
                loaded[one.input_format] = reference.load(one.input_format)
            images = loaded[one.input_format]
            same = (one.preprocess, hashlib.sha256(images.tobytes()).digest())
            members.setdefault(same, []).append(one)
            if same in ranking:
                continue
            answers = replace(self._source, preprocess=one.preprocess).predict(images)
            ranking[same] = reference.compare(answers, self._spec)
        self.tried += len(todo)
        ranked = [Ranked(tuple(members[same]), close) for same, close in ranking.items()]
        # A difference below `SAME` is rounding, and decides nothing.
        return sorted(ranked, key=lambda one: np.round(np.nan_to_num(one.close.mean_difference, nan=1.0) / SAME))
