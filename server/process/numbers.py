"""Numbers as people type them, and as they are shown to people."""

from __future__ import annotations

import math
import re


def format_number(number: float) -> str:
    """Without a needless point."""
    return str(int(number)) if float(number).is_integer() else f"{number:g}"


def read_whole(text: str) -> int | None:
    """A whole number in plain digits, few enough for any use; None otherwise."""
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,30}", text.strip()) else None


def read_number(text: str) -> float | None:
    """A finite number in plain digits; None otherwise."""
    if not re.fullmatch(r"[+-]?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?", text.strip()):
        return None
    number = float(text)
    return number if math.isfinite(number) else None
