"""Rules of series from a file in TOML, read strictly: what is not understood is not passed over."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from server.core.study.rules import DEFAULT_RULES, SeriesRules
from server.flags import Setting, list_settings
from server.machine.bounded_file import read_regular

MOST_BYTES = 64 * 1024


class RulesFileError(Exception):
    """The file cannot be used; the text is one line, for the operator."""


def read_rules(path: Path | None) -> SeriesRules:
    """Reads a file that has any of the keys of ``SeriesRules``; what it does not say, or all, is as it is by default.

    Raises:
        RulesFileError: it cannot be read, is no TOML, has a key that is none, or a value of the wrong type or range.
    """
    if path is None:
        return DEFAULT_RULES
    try:
        document = tomllib.loads(read_regular(path, MOST_BYTES).decode("utf-8"))
        return make_rules(document)
    except OSError as error:
        raise RulesFileError(f"the rules of series cannot be read: {path}: {error.strerror}") from None
    except RecursionError:
        raise RulesFileError(f"the rules of series cannot be used: {path}: it is nested too deeply") from None
    except UnicodeDecodeError:
        raise RulesFileError(f"the rules of series cannot be used: {path}: it is not UTF-8") from None
    except ValueError as error:  # of tomllib, too
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(error))
        raise RulesFileError(f"the rules of series cannot be used: {path}: {text}") from None


def make_rules(document: dict[str, Any]) -> SeriesRules:
    """Rules of what a file holds.

    Raises:
        ValueError: a key is unknown, or a value cannot be used.
    """
    known = {one.name: one for one in list_settings(SeriesRules)}
    for key in document:
        if key not in known:
            raise ValueError(f"{key[:60]!r} is no rule; there are {', '.join(known)}")
    return SeriesRules(**{name: read_value(known[name], value) for name, value in document.items()})


def read_value(one: Setting, value: Any) -> Any:
    """A value in the type of its rule.

    Raises:
        ValueError: it is of another one.
    """
    if one.is_many:
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            return tuple(value)
        raise ValueError(f"'{one.name}' must be a list of texts")
    if one.kind is bool:
        if isinstance(value, bool):
            return value
        raise ValueError(f"'{one.name}' must be true or false")
    wanted = (int,) if one.kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise ValueError(f"'{one.name}' must be {'a whole number' if one.kind is int else 'a number'}")
    return value if one.kind is int else float(value)
