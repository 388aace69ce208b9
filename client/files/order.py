"""The order in which people count files: ``slice2.png`` before ``slice10.png``."""

from __future__ import annotations

import re
from typing import TypeAlias

_NUMBER = re.compile("([0-9]+)")

NaturalKey: TypeAlias = tuple[tuple[tuple[tuple[int, str], ...], ...], str]


def natural_key(path: str) -> NaturalKey:
    """Returns what sorts paths by their parts: folder by folder, numbers in names by their value, letters whatever
    their case. Names that differ in nothing else sort by their characters."""
    parts = path.replace("\\", "/").split("/")
    return tuple(tuple(map(_rank, _NUMBER.split(part))) for part in parts), path


def _rank(piece: str) -> tuple[int, str]:
    """The rank of a piece of a name: a number, as long as it may be, by how many digits it has, then by these."""
    if piece[:1].isdigit() and piece.isascii():
        digits = piece.lstrip("0")
        return len(digits), digits
    return 0, piece.casefold()
