"""The settings of each command, once: field, default and description are also the flag, its default and its help.

Nothing here imports TensorFlow, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import re
import types
import typing
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from server.contract import is_identifier
from training.augment import AUGMENTATIONS
from training.errors import TrainingError
from training.models import MODELS
from training.recipe import PARTS

PRECISIONS = ("float32", "mixed_bfloat16")
DEFAULT_PATIENT_PATTERN = r"(?P<patient>.+) \(\d+\)\.\w+"
"""``<patient> (<slice>).jpg``, how the public sets name their slices."""

Config = TypeVar("Config")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of ``python -m training``.

    Raises:
        TrainingError: naming the flag, when a value is out of range.
    """

    data: Path
    """Folder with one folder of PNG or JPEG slices per class; the folders' names are the labels."""

    out: Path
    """Run folder to write; it must not exist."""

    model: str = field(default="cnn", metadata={"choices": tuple(MODELS)})
    """Network to train."""

    epochs: int = 20
    """Most passes over the training images."""

    batch_size: int = 16
    """Images a step."""

    learning_rate: float = 3e-4
    """Step size of Adam at the start; it falls along a cosine to 0 over the epochs."""

    seed: int = 7
    """Seed of split, initial weights, order and augmentation."""

    patience: int = 5
    """Epochs without a lower validation loss after which training stops."""

    augment: str = field(default="paper", metadata={"choices": tuple(AUGMENTATIONS)})
    """How training images are varied."""

    lesion_weight: float = 3.0
    """Weight in the loss of each auxiliary head that learns lesion masks, where DATA has them; 0 for none."""

    precision: str = field(default="float32", metadata={"choices": PRECISIONS})
    """Arithmetic of the training; the saved model is float32 either way. mixed_bfloat16 is faster only with AMX."""

    validation: float = 0.15
    """Share of the images that chooses the best epoch."""

    test: float = 0.15
    """Share of the images that is held out for the figures of the report."""

    patient_pattern: str = DEFAULT_PATIENT_PATTERN
    """Regular expression that matches a whole file name; its group 'patient' (or its first group) is the patient."""

    one_image_per_patient: bool = False
    """States that no two images show the same person, as with synthetic slices; file names are not searched."""

    positive: str = "stroke"
    """Label that is answered when its probability exceeds the threshold."""

    threshold: float = 0.05
    """Decision threshold on the probability of the positive label."""

    name: str = "stroke-cnn"
    """Name of the model in its spec."""

    version: str = "1"
    """Version of the model in its spec."""

    notes: tuple[str, ...] = ()
    """Text for the spec and the report, such as what the model must not be used for."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            require(getattr(self, name) >= 1, name, "must be at least 1")
        require(self.seed >= 0, "seed", "must not be negative")
        require(self.learning_rate > 0, "learning_rate", "must be positive")
        require(self.lesion_weight >= 0, "lesion_weight", "must not be negative")
        for name in ("validation", "test"):
            require(0 < getattr(self, name) < 0.5, name, "must be between 0 and 0.5")
        require(0 <= self.threshold <= 1, "threshold", "must be in [0, 1]")
        for name in ("name", "version"):
            require(is_identifier(getattr(self, name)), name, "must be made of letters, digits, '-', '_' and '.'")
        for name, choices in (("model", MODELS), ("augment", AUGMENTATIONS), ("precision", PRECISIONS)):
            require(getattr(self, name) in choices, name, f"must be one of {', '.join(choices)}")
        try:
            groups = re.compile(self.patient_pattern).groups
        except re.error as error:
            raise TrainingError(f"--patient-pattern is not a regular expression: {error}") from None
        require(groups >= 1, "patient_pattern", "needs a group (...) around the patient")


@dataclass(frozen=True)
class PhantomConfig:
    """Settings of ``python -m training phantom``."""

    out: Path
    """Folder to write; it must not exist or be empty."""

    count: int
    """Number of slices, half of each class."""

    seed: int = 7
    """Seed of all slices: the same seed and count give the same files."""

    size: int = 256
    """Side of a slice, in pixels."""

    processes: int | None = None
    """Processes that draw slices; as many as there are processors unless told."""

    slices_per_patient: int = 1
    """Slices of each drawn head; with more than one, files are named '<patient> (<slice>).png'."""

    without: tuple[str, ...] = field(default=(), metadata={"choices": PARTS})
    """Parts of the generator to leave out, for an ablation."""

    def __post_init__(self) -> None:
        require(self.slices_per_patient >= 1, "slices_per_patient", "must be at least 1")
        for name in self.without:
            require(name in PARTS, "without", f"must be one of {', '.join(PARTS)}, not {name!r}")
        require(self.count >= 2, "count", "must be at least 2")
        require(self.seed >= 0, "seed", "must not be negative")
        require(32 <= self.size <= 8192, "size", "must be between 32 and 8192")
        require(self.processes is None or self.processes >= 1, "processes", "must be at least 1")


@dataclass(frozen=True)
class ScoreConfig:
    """Settings of ``python -m training score``."""

    predictions: Path
    """JSON lines, as `python -m client DIR --json` prints them."""

    labels: Path
    """CSV file with a header line and one line per image."""

    file_column: str = "file"
    """Column with the file's name; folders before it are ignored."""

    label_column: str = "label"
    """Column with 1 or the positive label for positive images, anything else for the others."""

    exclude_column: str | None = None
    """Column that marks images to leave out with 1."""

    trivial_column: str | None = None
    """Column with a number that needs no model, such as the share of brain: the baseline to beat."""

    positive: str = "stroke"
    """Label whose probability is judged."""

    out: Path | None = None
    """Markdown file to write as well."""


def require(condition: bool, name: str, demand: str) -> None:
    """Raises the error for one field unless its condition holds."""
    if not condition:
        raise TrainingError(f"{flag_of(name)} {demand}")


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def describe_fields(config: type) -> dict[str, str]:
    """Returns the docstring below each field. They exist in the source only, so they are read from there."""
    definition = ast.parse(inspect.getsource(config)).body[0]
    assert isinstance(definition, ast.ClassDef)
    return {
        ast.unparse(above.target): inspect.cleandoc(ast.literal_eval(below.value))
        for above, below in itertools.pairwise(definition.body)
        if isinstance(above, ast.AnnAssign) and isinstance(below, ast.Expr)
    }


def add_flags(parser: argparse.ArgumentParser, config: type) -> None:
    """Adds one flag per field of a config dataclass; fields without a default are required."""
    hints, descriptions = typing.get_type_hints(config), describe_fields(config)
    for config_field in fields(config):
        required = config_field.default is MISSING
        options: dict[str, Any] = {"help": descriptions[config_field.name].replace("%", "%%"), "required": required}
        if not required:
            options["default"] = config_field.default
            if config_field.default not in (None, False, ()):
                options["help"] += " (default: %(default)s)"
        if hints[config_field.name] is bool:
            options["action"] = "store_true"
        elif config_field.default == ():
            options |= {"nargs": "+", "metavar": "TEXT"}
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
