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


def check_keys(document: Any, needed: set[str], possible: set[str] | None = None) -> None:
    """Checks that a document is an object with all the needed keys, and no other than these and the possible ones.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(document, dict):
        raise ValueError("a part is not an object")
    if missing := needed - document.keys():
        raise ValueError(f"{', '.join(sorted(missing))} is missing")
    if unknown := document.keys() - needed - (possible or set()):
        raise ValueError(f"{min(unknown)[:40]!r} is not known")


def read_list(value: Any, most: int) -> list[Any]:
    """A list of 1 to ``most`` entries.

    Raises:
        ValueError: it is not.
    """
    if not (isinstance(value, list) and 1 <= len(value) <= most):
        raise ValueError(f"a list does not have 1 to {most} entries")
    return value


def read_number(value: Any) -> float:
    """A number as a float.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number is of the wrong type")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a number is too large") from None


def is_whole(value: Any) -> bool:
    """Whether it is an int, which ``bool`` is not meant to be."""
    return isinstance(value, int) and not isinstance(value, bool)
