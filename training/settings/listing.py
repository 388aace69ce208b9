"""Settings that commands share: which slices a folder has, whose they are, and how CT values are seen."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from server.flags import REQUIRED, check_settings, require, setting
from server.images.dicom.window import Window, read_windows
from server.images.slice_table import PATIENT_PATTERN

MOST_SEED = 2**32 - 1
"""What all generators of random numbers take."""

DEFAULT_PATIENT_PATTERN = PATIENT_PATTERN


MOST_COLUMNS = 6
"""Of --subgroup: their tables fill half of the bytes that a model card may have."""


@dataclass(frozen=True, kw_only=True)
class ListingConfig:
    """What says which slices a data folder has, and of whom.

    Raises:
        ValueError: naming the flag, when a value is out of range.
    """

    data: Path = setting(
        REQUIRED,
        "Folder with one folder of PNG, JPEG or DICOM slices per class, whose names are the labels, or with a "
        "labels.csv (columns file, label, and if known patient and study). Around the classes there may be train, val "
        "and test, and in them a folder per patient.",
    )
    label_column: str = setting("label", "Column of labels.csv with the label.")
    exclude_column: str | None = setting(None, "Column of labels.csv that marks images to leave out with 1.")
    patient_pattern: str = setting(
        DEFAULT_PATIENT_PATTERN,
        "Regular expression that matches a whole file name; its group 'patient' (or its first group) is the "
        "patient. Not looked at where labels.csv has a column 'patient', nor, unless given, of DICOM files, which say "
        "whose they are.",
    )
    one_image_per_patient: bool = setting(
        False,
        "States that no two images show the same person, as with synthetic slices; file names are not searched.",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        try:
            groups = re.compile(self.patient_pattern).groups
        except re.error as error:
            raise ValueError(f"--patient-pattern is not a regular expression: {error}") from None
        require(groups >= 1, "patient_pattern", "needs a group (...) around the patient")


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """What commands see of CT values that bring no window of a model with them."""

    window: tuple[str, ...] = setting(
        ("40,80",),
        "Window in which CT values of DICOM files are seen, in Hounsfield units; three windows are three channels. "
        "PNG and JPEG files are taken as they are.",
        metavar="LEVEL,WIDTH",
    )

    @property
    def windows(self) -> tuple[Window, ...]:
        """``window``, read."""
        return read_windows(self.window)

    def check_windows(self) -> None:
        """Checks that there are as many as a network has channels.

        Raises:
            ValueError: naming the flag.
        """
        require(len(self.windows) in (1, 3), "window", f"must be one or three, not {len(self.windows)}")


@dataclass(frozen=True, kw_only=True)
class SubgroupConfig:
    """By what the figures are given besides for all."""

    subgroup: tuple[str, ...] = setting(
        (),
        "Columns of labels.csv by which every figure is given besides, such as site,sex,age_band: each group with its "
        "intervals, the smallest, and how far the groups are apart. An empty cell is a group of its own.",
        separator=",",
        metavar="COLUMN[,COLUMN...]",
    )

    def check_subgroups(self) -> None:
        """Checks that there are not more than a model card has room for.

        Raises:
            ValueError: naming the flag.
        """
        require(len(self.subgroup) <= MOST_COLUMNS, "subgroup", f"takes at most {MOST_COLUMNS} columns")
        require(all(self.subgroup), "subgroup", "needs the names of columns, with a comma between them")


@dataclass(frozen=True, kw_only=True)
class DataConfig(ListingConfig):
    """Settings of every command that judges labelled slices.

    Raises:
        ValueError: naming the flag, when a value is out of range.
    """

    positive: tuple[str, ...] = setting(
        ("stroke",),
        "Labels that count as positive: the most probable of them is answered when their probabilities together exceed "
        "the threshold.",
        metavar="LABEL",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.positive), "positive", "needs a label")
        require(len(set(self.positive)) == len(self.positive), "positive", "names a label twice")
