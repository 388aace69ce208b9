"""Flags of a command line from the fields of a dataclass: field, default and description are flag, default and help.

Nothing here imports TensorFlow, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import types
import typing
from dataclasses import MISSING, field, fields
from typing import Any, TypeVar

from training.errors import TrainingError

Config = TypeVar("Config")


def require(condition: bool, name: str, demand: str) -> None:
    """Raises the error for one field unless its condition holds."""
    if not condition:
        raise TrainingError(f"{flag_of(name)} {demand}")


def number(default: Any, least: float, most: float) -> Any:
    """A field for a number and what it may be, both ends included; so neither infinity nor NaN."""
    return field(default=default, metadata={"least": least, "most": most})


def check_numbers(config: Any) -> None:
    """Checks every field that ``number`` has made; a default of None stands for no number.

    Raises:
        TrainingError: naming the flag and its bound.
    """
    for config_field in fields(config):
        value, limits = getattr(config, config_field.name), config_field.metadata
        if "least" in limits and value is not None:
            require(value >= limits["least"], config_field.name, f"must be at least {limits['least']:,}")
            require(value <= limits["most"], config_field.name, f"must be at most {limits['most']:,}")


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def describe_fields(config: type) -> dict[str, str]:
    """Returns the docstring below each field, inherited ones too. They exist in the source only, so are read there."""
    descriptions: dict[str, str] = {}
    for base in reversed(config.__mro__[:-1]):
        definition = ast.parse(inspect.getsource(base)).body[0]
        assert isinstance(definition, ast.ClassDef)
        descriptions |= {
            ast.unparse(above.target): inspect.cleandoc(ast.literal_eval(below.value))
            for above, below in itertools.pairwise(definition.body)
            if isinstance(above, ast.AnnAssign) and isinstance(below, ast.Expr)
        }
    return descriptions


def add_flags(parser: argparse.ArgumentParser, config: type) -> None:
    """Adds one flag per field of a config dataclass; fields without a default are required.

    A field whose metadata say ``positional`` is an argument without a flag.
    """
    hints, descriptions = typing.get_type_hints(config), describe_fields(config)
    for config_field in fields(config):
        required = config_field.default is MISSING
        options: dict[str, Any] = {"help": descriptions[config_field.name].replace("%", "%%")}
        if config_field.metadata.get("positional"):
            kind = value_type(hints[config_field.name])
            parser.add_argument(config_field.name, metavar=config_field.name.upper(), type=kind, **options)
            continue
        options["required"] = required
        if not required:
            options["default"] = config_field.default
            limits = config_field.metadata
            if "least" in limits:
                options["help"] += f" ({limits['least']:,} to {limits['most']:,})"
            if config_field.default not in (None, False, ()):
                options["help"] += " (default: %(default)s)"
        if hints[config_field.name] is bool:
            options["action"] = "store_true"
        elif isinstance(config_field.default, tuple):
            kind = typing.get_args(hints[config_field.name])[0]
            options |= {"nargs": "+", "type": kind, "metavar": "TEXT" if kind is str else "NUMBER"}
            if choices := config_field.metadata.get("choices"):
                options |= {"metavar": "NAME", "choices": choices}
                options["help"] += f" Names: {', '.join(choices)}."
        else:
            options["type"] = value_type(hints[config_field.name])
            options["choices"] = config_field.metadata.get("choices")
        parser.add_argument(flag_of(config_field.name), **options)


def value_type(hint: Any) -> Any:
    """Returns ``int`` for ``int`` and for ``int | None``, and so on."""
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not types.NoneType)
    return hint


def read_flags(arguments: argparse.Namespace, config: type[Config]) -> Config:
    """Makes the config from parsed flags."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(arguments).items()}
    return config(**values)
