"""JSON that says one thing only: what a lenient reader would pass over is a sign of damage."""

from __future__ import annotations

import json
import math
from typing import Any


def parse_strictly(text: str | bytes) -> Any:
    """Parses JSON that has no key twice and no NaN or infinity.

    Raises:
        ValueError: it is no such JSON; the text says why in few words.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(text, object_pairs_hook=join_pairs, parse_constant=refuse, parse_float=read_float)
    except UnicodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_unicode(document: Any) -> bool:
    """Whether all text in it is Unicode: JSON can write half a surrogate pair, which no log and no message can hold."""
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def join_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose keys are all different."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key is there twice")
    return document


def refuse(literal: str) -> Any:
    """``NaN`` and ``Infinity`` are Python's extension of JSON."""
    raise ValueError(f"{literal} is not a number")


def read_float(literal: str) -> float:
    """A number that a float can hold."""
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value
