"""Flags, environment names, ranges, help and documentation of a program, all from the fields of frozen dataclasses.

Precedence: flag, then environment, then default. What cannot be used ends the process with exit code 2 and one line.
"""

from __future__ import annotations

import argparse
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar

from proto import __version__
from server.process.console import complain, say
from server.process.environment import PREFIX, find_settings, find_warnings
from server.process.numbers import format_number, read_number, read_whole

REQUIRED: Any = MISSING
"""Default of a setting that has none."""

MOST_SHOWN = 60
"""Characters of a wrong value that an error shows."""


class Settings(Protocol):
    """A dataclass whose fields are made by ``setting``."""

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


@dataclass(frozen=True)
class Details:
    """What ``setting`` has been told of a field."""

    text: str
    bounds: Range | None
    choices: tuple[str, ...]
    metavar: str
    short: str
    separator: str
    is_positional: bool


def setting(
    default: Any,
    text: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: Sequence[str] = (),
    metavar: str = "",
    short: str = "",
    separator: str = "",
    positional: bool = False,
) -> Any:
    """Makes a field with its meaning and what it may be; help, documentation and errors say the same.

    Its annotation says what is read: ``str``, ``int``, ``float``, ``Path``, ``bool`` (a flag without a value), each
    with ``| None`` where there may be none, or ``tuple[str, ...]`` and the like for several values.

    Args:
        default: ``REQUIRED`` where there is none.
        text: what it means.
        least: smallest number, together with ``most``; a setting that is a number needs both.
        most: largest number.
        choices: words that it may be; text with a range is a number or one of them.
        metavar: what stands for the value in the help; the choices, or the last word of the name, unless given.
        short: a second flag, such as ``-o``, or the name that it had before.
        separator: what is between several values; each is a word of its own unless given.
        positional: it is an argument without a flag.
    """
    bounds = Range(least, most) if least is not None and most is not None else None
    details = Details(text, bounds, tuple(choices), metavar, short, separator, positional)
    return field(default=default, metadata={"setting": details})


@dataclass(frozen=True)
class Setting:
    """One setting of a program: what its values are, how it is named, and what may be given."""

    name: str
    kind: type
    """Type of one value: ``int`` for ``int``, ``int | None`` and ``tuple[int, ...]``."""

    is_many: bool
    default: Any
    details: Details

    @property
    def flag(self) -> str:
        """``max_image_bytes`` → ``--max-image-bytes``."""
        return flag_of(self.name)

    @property
    def variable(self) -> str:
        """``max_image_bytes`` → ``STROKE_MAX_IMAGE_BYTES``."""
        return PREFIX + self.name.upper()

    @property
    def meaning(self) -> str:
        """What it means, and its range."""
        return f"{self.details.text} ({self.details.bounds})" if self.details.bounds else self.details.text

    @property
    def help(self) -> str:
        """Its meaning and its default, where there is one that says something."""
        is_said = self.default is REQUIRED or self.default in (None, ()) or self.kind is bool
        return self.meaning if is_said else f"{self.meaning} (default: {self.shown_default})"

    @property
    def shown_default(self) -> str:
        """Its default as it could be typed."""
        if isinstance(self.default, tuple):
            return (self.details.separator or " ").join(map(str, self.default))
        return "none" if self.default in ("", None) else str(self.default)

    @property
    def label(self) -> str:
        """How an error names it."""
        return self.metavar if self.details.is_positional else self.flag

    @property
    def metavar(self) -> str:
        """What stands for its value in the help."""
        if self.details.metavar:
            return self.details.metavar
        if self.details.choices and not self.details.bounds:
            return f"{{{','.join(self.details.choices)}}}"
        return (self.name if self.details.is_positional else self.name.rpartition("_")[2]).upper()

    def check(self, value: object, label: str) -> None:
        """Checks a value, or each of several.

        Raises:
            ValueError: it is not what the setting may be; the text begins with ``label``.
        """
        if value is None and self.default is None:
            return
        bounds, choices = self.details.bounds, self.details.choices
        for one in value if isinstance(value, tuple) and self.is_many else (value,):
            if self.kind is str and (bounds or choices):
                wanted = [", ".join(choices)] if choices else []
                wanted += [str(bounds)] if bounds else []
                if one not in choices and (bounds is None or read_whole(str(one)) not in bounds):
                    one_of = "one of " if len(choices) > 1 else ""
                    raise ValueError(f"{label} must be {one_of}{' or '.join(wanted)}, got {quote(one)}")
            elif bounds is not None and one not in bounds:
                raise ValueError(f"{label} must be {bounds}, got {quote(one)}")
            elif isinstance(one, str | Path) and "\0" in str(one):
                raise ValueError(f"{label} must not hold a zero byte")

    def read(self, given: str | bool | Sequence[str], label: str) -> Any:
        """Reads what was typed: a text, several, or True for a flag without a value.

        Raises:
            ValueError: it is not what the setting may be; the text begins with ``label``.
        """
        if isinstance(given, bool):
            return given
        if not self.is_many:
            value = self.read_one(str(given), label)
        else:
            texts = [part.strip() for part in given.split(self.details.separator)] if isinstance(given, str) else given
            value = tuple(self.read_one(text, label) for text in texts)
        self.check(value, label)
        return value

    def read_one(self, text: str, label: str) -> Any:
        """Reads one value, which may still be out of range.

        Raises:
            ValueError: it is of another type.
        """
        if self.kind is Path:
            if not text:
                raise ValueError(f"{label} must not be empty")
            return Path(text)
        if self.kind is bool:
            if text not in ("true", "false"):
                raise ValueError(f"{label} must be true or false, got {quote(text)}")
            return text == "true"
        if self.kind is str:
            return text
        number = read_whole(text) if self.kind is int else read_number(text)
        if number is None:
            what = "a whole number" if self.kind is int else "a number"
            raise ValueError(f"{label} must be {what}, {self.details.bounds}, got {quote(text)}")
        return number


@cache
def list_settings(config: type[Settings]) -> tuple[Setting, ...]:
    """Returns all settings of a program, in the order of the dataclass.

    Raises:
        TypeError: one is a number without a range.
    """
    hints = typing.get_type_hints(config)
    found = []
    for config_field in fields(config):
        hint, details = hints[config_field.name], config_field.metadata["setting"]
        if isinstance(hint, types.UnionType):
            (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
        is_many = typing.get_origin(hint) is tuple
        kind = typing.get_args(hint)[0] if is_many else hint
        if kind in (int, float) and details.bounds is None:
            raise TypeError(f"{config_field.name} is a number and needs its range: least and most")
        found.append(Setting(config_field.name, kind, is_many, config_field.default, details))
    return tuple(found)


def flag_of(name: str) -> str:
    """``max_image_bytes`` → ``--max-image-bytes``."""
    return "--" + name.replace("_", "-")


def quote(value: object) -> str:
    """A wrong value as an error shows it."""
    text = str(value)
    shown = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
    return repr(shown) if isinstance(value, str) else shown


def require(condition: bool, name: str, demand: str) -> None:
    """Checks what a range cannot say, such as how two settings fit together.

    Raises:
        ValueError: naming the flag of the setting ``name``, and what is demanded of it.
    """
    if not condition:
        raise ValueError(f"{flag_of(name)} {demand}")


def check_settings(config: Settings) -> None:
    """Checks every field against what ``setting`` has been told of it.

    Raises:
        ValueError: naming the flag.
    """
    for one in list_settings(type(config)):
        one.check(getattr(config, one.name), one.label)


class ShowVersion(argparse.Action):
    """Prints the project's version and ends the process with status 0; a value, where there may be one, is kept."""

    def __call__(self, parser: argparse.ArgumentParser, options: argparse.Namespace, value: Any, *_: object) -> None:
        if not value:
            say(__version__)
            parser.exit()
        setattr(options, self.dest, value)


class LineParser(argparse.ArgumentParser):
    """A command line with ``--version``, errors in one line, and help that comes out whatever standard output is.

    argparse prints the whole usage before the error, which is lost below eleven lines of brackets.
    """

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog, None, description, epilog, formatter_class=argparse.RawDescriptionHelpFormatter)
        self._show_version = self.add_argument(
            "--version", action=ShowVersion, nargs=0, default=argparse.SUPPRESS, help="show the version"
        )
        # argparse takes words such as -1..1 for flags, but has its own reading of what is a negative number.
        self._negative_number_matcher = re.compile(r"-\d")

    def take_version(self, metavar: str, text: str) -> None:
        """Has ``--version`` take a value, for a program that has such a setting: alone it shows the version."""
        self._show_version.nargs, self._show_version.default = "?", None
        self._show_version.metavar, self._show_version.help = metavar, f"{text}; alone: show this program's version"

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


def add_settings(parser: LineParser, config: type[Settings], names: Sequence[str] | None = None) -> None:
    """Adds settings to a command line, all unless ``names`` says which. Values are read by ``read_settings``."""
    for one in list_settings(config):
        if names is not None and one.name not in names:
            continue
        # No default, so that a flag that was not given leaves the word to the environment.
        options: dict[str, Any] = {"default": None, "help": one.help.replace("%", "%%")}
        if one.details.is_positional:
            options["nargs"] = None if one.default is REQUIRED else "?"
            parser.add_argument(one.name, metavar=one.metavar, **options)
            continue
        if one.name == "version":
            parser.take_version(one.metavar, options["help"])
            continue
        if one.kind is bool:
            options["action"] = "store_true"
        else:
            options |= {"required": one.default is REQUIRED, "metavar": one.metavar}
            if one.is_many and not one.details.separator:
                options |= {"nargs": "+", "action": "extend"}  # several values, or the flag several times
        flags = sorted(filter(None, (one.flag, one.details.short)), key=lambda flag: flag.startswith("--"))
        parser.add_argument(*flags, dest=one.name, **options)


def read_settings(
    parser: LineParser,
    options: argparse.Namespace,
    config: type[Config],
    names: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Reads what ``add_settings`` has added; all other settings are at their defaults. Errors end the process.

    Args:
        parser: says what is wrong.
        options: what ``parser`` has read.
        config: the dataclass.
        names: settings that the command line has; all unless given.
        environment: where settings may come from as well, by their ``STROKE_*`` names; nowhere unless given.
    """
    known = list_settings(config)
    variables = [one.variable for one in known]
    for warning in find_warnings(environment or {}, variables):
        parser.warn(warning)
    found = find_settings(environment or {}, variables)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    try:
        for one in known:
            if names is not None and one.name not in names:
                continue
            if (given := getattr(options, one.name)) is not None:
                values[one.name] = one.read(given, one.label)
            elif one.variable in found:
                values[one.name] = one.read(found[one.variable], f"{one.variable} ({one.flag})")
                origins[one.flag] = one.variable
        return config(**values)
    except ValueError as error:
        # What only shows when all settings are together names flags; whoever has set a variable looks for its name.
        set_by = [origins[flag] for flag in origins if flag in re.findall(r"--[a-z-]+", str(error))]
        parser.error(f"{error} (set by {', '.join(set_by)})" if set_by else str(error))


def parse_settings(parser: LineParser, config: type[Config], argv: Sequence[str] | None = None) -> Config:
    """Reads a command line that has the settings of one dataclass; errors end the process."""
    add_settings(parser, config)
    return read_settings(parser, parser.parse_args(argv), config)


def render_table(config: type[Settings]) -> str:
    """The settings as a table in Markdown, for the documentation."""
    rows = ["| flag | environment | default | meaning |", "| --- | --- | --- | --- |"]
    rows += [
        f"| `{one.flag}` | `{one.variable}` | {one.shown_default} | {one.meaning} |" for one in list_settings(config)
    ]
    return "\n".join(rows)
