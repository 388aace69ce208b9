"""Which pixel values a model takes, where its author's own answers are not there to tell.

What its graph shows is believed, and a flag that contradicts it is refused. Where it shows nothing, answers to real
images stand side by side for every choice, for only the author knows which of them are right. One error can be seen all
the same, the classic one of this field: dividing by 255 twice, after which answers hardly depend on the image any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from converter.errors import InputRangeError
from converter.pixels.preprocess import PREPROCESS, Preprocess, list_possible
from converter.pixels.sampling import spread_evenly, take_evenly
from converter.source import SourceModel
from server.models.contract import ModelSpec

CONSTANT_SPREAD = 0.05
"""Answers to different images that differ by less are nearly constant: a trained model that was divided twice was
measured at 0.005."""

CERTAIN = 0.95

SUSPICIOUS_RATIO = 10
"""How much more the answers must differ with other values before those are taken as the right ones."""

TRIED_IMAGES = 16
SHOWN_IMAGES = 6
"""Of these, whose answers stand side by side."""


def choose_preprocess(
    source: SourceModel,
    images: NDArray[np.uint8],
    spec: ModelSpec,
    *,
    values: str | None,
    channel_order: str,
    tell: Callable[[str], None],
) -> Preprocess:
    """Returns what bytes become before they reach a model.

    Args:
        source: the trained model.
        images: real images, uint8 [N, height, width, channels].
        spec: its labels.
        values: what the user says, or None to read it from the model.
        channel_order: what the user says.
        tell: called with the answers of each choice where the model shows nothing.

    Raises:
        InputRangeError: the model or its answers contradict ``values``; or it is None, and the model shows nothing.
            That raw bytes go into a model trained on 0..1 cannot be seen in its answers: they are certain then, as a
            good model's may be.
    """
    check_flag(source, values)
    if source.input_range is not None:
        return Preprocess(source.input_range, channel_order)
    possible = {name: Preprocess(name, channel_order) for name in list_possible(source.channels)}
    if values is not None and values not in possible:
        raise InputRangeError(f"--preprocess {values} is for three channels, and the model takes one")
    some = take_evenly(images, TRIED_IMAGES)
    answers = {name: replace(source, preprocess=one).predict(some) for name, one in possible.items()}
    tell(render_choices(answers, spec, values))
    if values is None:
        raise InputRangeError(
            "which pixel values the model takes cannot be read from its layers: say --preprocess 0..255 when it was "
            "trained on raw bytes or scales them itself, --preprocess 0..1 when they were divided by 255 before "
            "training, --preprocess -1..1, caffe or torch when preprocess_input of such a mode was called; or give the "
            "author's own answers for some files: --reference"
        )
    check_spread(answers, values, len(some))
    return possible[values]


def check_flag(source: SourceModel, values: str | None) -> None:
    """Compares what the user says with what the model does to its pixels.

    Raises:
        InputRangeError: they contradict each other.
    """
    shown = source.input_range
    if values is None or shown is None or values == shown:
        return
    if shown == "0..255":
        raise InputRangeError(
            f"the model already takes bytes, as one of its layers shows, so --preprocess {values} would divide twice, "
            "or subtract twice; say --preprocess 0..255"
        )
    raise InputRangeError(
        f"the model takes {shown}, as its first layers show: they bring {shown}, not {values}, to what its weights "
        f"take; say --preprocess {shown}"
    )


def check_spread(answers: dict[str, NDArray[np.float32]], values: str, images: int) -> None:
    """Refuses values with which answers are nearly constant, where they are not with others.

    Raises:
        InputRangeError: they are.
    """
    spreads = {name: float(np.ptp(answer, axis=0).max()) for name, answer in answers.items()}
    larger = [name for name in answers if PREPROCESS[name].divisor < PREPROCESS[values].divisor]
    other = max(larger, key=lambda name: spreads[name], default=values)
    # A model may well be certain of the same answer on all images; one that was divided twice is never certain.
    is_certain = answers[values].max() >= CERTAIN
    if spreads[values] < CONSTANT_SPREAD and spreads[other] > SUSPICIOUS_RATIO * spreads[values] and not is_certain:
        raise InputRangeError(
            f"with --preprocess {values} the model gives nearly the same answer to all {images} images (they differ by "
            f"{spreads[values]:.2g}), with {other} it does not ({spreads[other]:.2g}): "
            f"it was most likely trained on other values than {values}"
        )


def render_choices(answers: dict[str, NDArray[np.float32]], spec: ModelSpec, values: str | None) -> str:
    """A warning, and what the model answers on the same images for each choice."""
    count = len(next(iter(answers.values())))
    chosen = spread_evenly(count, SHOWN_IMAGES)
    said = f"--preprocess {values} is taken as said" if values else "it has to be said"
    lines = [
        f"warning: the model does not show which pixel values it takes, and only its author knows; {said}. "
        f"P({spec.positive_text}) of {len(chosen)} images with each, and how many of {count} are above "
        f"{spec.threshold:g}:"
    ]
    for name, answer in answers.items():
        wanted = spec.positive_scores(answer)
        shown = " ".join(f"{p:.3f}" for p in wanted[chosen])
        lines.append(
            f"  {name:7} {shown}   {int((wanted > spec.threshold).sum())} {'<- taken' * (name == values)}".rstrip()
        )
    return "\n".join(lines)
