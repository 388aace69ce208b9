"""Flags, environment names, ranges and help of a program, all from the fields of one frozen dataclass.

Precedence: flag, then environment, then default. What cannot be used ends the process with exit code 2 and one line.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar

from server.process.console import complain, say
from server.process.environment import find_settings, find_warnings

ENVIRONMENT_PREFIX = "STROKE_"
MOST_SHOWN = 60
"""Characters of a wrong value that an error shows."""


class Settings(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Config = TypeVar("Config", bound=Settings)


@dataclass(frozen=True)
class Range:
    """What a number may be, both ends included. So it is finite: neither infinity nor NaN is in a range."""

    least: float
    most: float

    def __str__(self) -> str:
        return f"{format_number(self.least)} to {format_number(self.most)}"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.least <= value <= self.most


def setting(
    default: Any,
    text: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A field with its help and what it may be; help, README and errors say the same.

    Args:
        default: its type is the setting's. Text with a range is a number or one of ``choices``.
        text: what it means.
        least: smallest number, together with ``most``.
        most: largest number.
        choices: words that it may be.
    """
    if isinstance(default, int | float) and (least is None or most is None):
        raise TypeError("a setting that is a number needs its range: least and most")
    bounds = Range(least, most) if least is not None and most is not None else None
    help_text = f"{text} ({bounds})" if bounds else text
    return field(default=default, metadata={"help": help_text, "range": bounds, "choices": tuple(choices)})


def flag_of(name: str) -> str:
    """``max_image_bytes`` → ``--max-image-bytes``."""
    return "--" + name.replace("_", "-")


def environment_name_of(name: str) -> str:
    """``max_image_bytes`` → ``STROKE_MAX_IMAGE_BYTES``."""
    return ENVIRONMENT_PREFIX + name.upper()


def describe_default(default: object) -> str:
    """A default as help and README show it."""
    return str(default) if default != "" else "none"


def format_number(number: float) -> str:
    """Without a needless point."""
    return str(int(number)) if float(number).is_integer() else f"{number:g}"


def quote(value: object) -> str:
    """A wrong value as an error shows it."""
    text = str(value)
    shown = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
    return repr(shown) if isinstance(value, str) else shown


def check_settings(config: Settings) -> None:
    """Checks every field against what ``setting`` has been told of it.

    Raises:
        ValueError: naming the flag.
    """
    for config_field in fields(config):
        check_setting(config_field, getattr(config, config_field.name), flag_of(config_field.name))


def check_setting(config_field: Field[Any], value: object, label: str) -> None:
    """Checks one value.

    Raises:
        ValueError: it is not what the setting may be.
    """
    bounds, choices = config_field.metadata.get("range"), config_field.metadata.get("choices", ())
    if isinstance(config_field.default, str) and (bounds or choices):
        wanted = [", ".join(choices)] if choices else []
        wanted += [str(bounds)] if bounds else []
        if value not in choices and (bounds is None or read_whole(str(value)) not in bounds):
            one_of = "one of " if len(choices) > 1 else ""
            raise ValueError(f"{label} must be {one_of}{' or '.join(wanted)}, got {quote(value)}")
    elif bounds is not None and value not in bounds:
        raise ValueError(f"{label} must be {bounds}, got {quote(value)}")
    elif isinstance(value, str | Path) and "\0" in str(value):
        raise ValueError(f"{label} must not hold a zero byte")


def read_setting(config_field: Field[Any], text: str, label: str) -> Any:
    """Reads a value as it was typed.

    Raises:
        ValueError: it is not what the setting may be; the text begins with ``label``.
    """
    value: Any = text
    if isinstance(config_field.default, Path):
        if not text:
            raise ValueError(f"{label} must not be empty")
        value = Path(text)
    elif isinstance(config_field.default, int | float):
        value = read_whole(text) if isinstance(config_field.default, int) else read_number(text)
    if value is None:
        what = "a whole number" if isinstance(config_field.default, int) else "a number"
        raise ValueError(f"{label} must be {what}, {config_field.metadata['range']}, got {quote(text)}")
    check_setting(config_field, value, label)
    return value


def read_whole(text: str) -> int | None:
    """A whole number in plain digits, few enough for any use; None otherwise."""
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,30}", text.strip()) else None


def read_number(text: str) -> float | None:
    """A finite number in plain digits; None otherwise."""
    if not re.fullmatch(r"[+-]?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?", text.strip()):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def read_in_range(bounds: Range, kind: type[int] | type[float]) -> Callable[[str], float]:
    """Returns a reader for an argument of ``argparse``: a number of ``kind`` within ``bounds``."""

    def read(text: str) -> float:
        value = read_whole(text) if kind is int else read_number(text)
        if value is None or value not in bounds:
            what = "a whole number, " if kind is int and value is None else ""
            raise argparse.ArgumentTypeError(f"must be {what}{bounds}, got {quote(text)}")
        return value

    return read


class LineParser(argparse.ArgumentParser):
    """A command line whose errors are one line, and whose help comes out whatever standard output is.

    argparse prints the whole usage before the error, which is lost below eleven lines of brackets.
    """

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Ends the process with exit code 2."""
        name = self.prog.removeprefix("python -m ")
        complain(f"{name}: error: {message} ({self.prog} --help shows all settings)")
        raise SystemExit(2)

    def warn(self, message: str) -> None:
        """Says what the process can do without."""
        complain(f"{self.prog.removeprefix('python -m ')}: warning: {message}")

    def _print_message(self, message: str, file: object = None) -> None:
        if message:
            say(message.removesuffix("\n"))


def add_settings(parser: argparse.ArgumentParser, config: type[Settings], names: Sequence[str]) -> None:
    """Adds the flags of some settings to a command line. Values are read by ``read_settings``."""
    for config_field in fields(config):
        if config_field.name in names:
            text = f"{config_field.metadata['help']} (default: {describe_default(config_field.default)})"
            parser.add_argument(
                flag_of(config_field.name),
                default=None,  # so that a flag that was not given leaves the word to the environment
                metavar=config_field.name.rpartition("_")[2].upper(),
                help=text.replace("%", "%%"),
            )


def read_settings(
    parser: LineParser,
    options: argparse.Namespace,
    config: type[Config],
    names: Sequence[str],
    environment: Mapping[str, str] = os.environ,
) -> Config:
    """The settings ``names`` from flags and environment, all others at their defaults; errors end the process."""
    known = {config_field.name: config_field for config_field in fields(config)}
    all_names = [environment_name_of(name) for name in known]
    for warning in find_warnings(environment, all_names):
        parser.warn(warning)
    found = find_settings(environment, all_names)
    values: dict[str, Any] = {}
    origins: list[str] = []
    try:
        for name in names:
            flag, variable = flag_of(name), environment_name_of(name)
            if (text := getattr(options, name)) is not None:
                values[name] = read_setting(known[name], text, flag)
            elif variable in found:
                values[name] = read_setting(known[name], found[variable], f"{variable} ({flag})")
                origins.append(name)
        return config(**values)
    except ValueError as error:
        # What only shows when all settings are together names flags; whoever has set a variable looks for its name.
        named = set(re.findall(r"--[a-z-]+", str(error)))
        variables = [environment_name_of(name) for name in origins if flag_of(name) in named]
        parser.error(f"{error} (set by {', '.join(variables)})" if variables else str(error))
