"""The subgroups that columns of ``labels.csv`` make: site, sex, age band and the like."""

from __future__ import annotations

from collections.abc import Sequence

from training.data.labels import ImageSet
from training.data.table import LABELS_FILE, read_cells
from training.errors import TrainingError

NOT_KNOWN = "not known"
"""Group of the images whose cell is empty."""

MOST_GROUPS = 20
"""Of a column: more are no groups but numbers, dates or names, and no table of them could be read."""

LONGEST_NAME = 60
NAMING = ("file", "patient", "study")
"""Columns that say who it is; nothing about one person belongs into a report."""


def read_subgroups(images: ImageSet, columns: Sequence[str]) -> dict[str, list[str]]:
    """Returns what columns say of each image: [N] texts by column, one spelling for each whatever the case.

    Raises:
        TrainingError: naming the column, when there is none of that name, or it makes no groups of people.
    """
    if not columns:
        return {}
    naming = [name for name in columns if name.casefold() in NAMING]
    if naming:
        raise TrainingError(f"--subgroup {naming[0]} would make a group of each {naming[0]}; take what groups them")
    cells = read_cells(images.root, images.files, columns, "--subgroup")
    return {name: name_groups(name, values, images) for name, values in cells.items()}


def name_groups(column: str, values: Sequence[str], images: ImageSet) -> list[str]:
    """Returns the group [N] of each image by what a column says of it."""
    spellings: dict[str, str] = {}
    texts = (" ".join(value.split()) or NOT_KNOWN for value in values)
    named = [spellings.setdefault(text.casefold(), text) for text in texts]
    where = f"{LABELS_FILE}: the column {column}, which --subgroup names,"
    if len(spellings) > MOST_GROUPS:
        raise TrainingError(
            f"{where} says {len(spellings):,} different things; a subgroup has at most {MOST_GROUPS}: make bands of it"
        )
    if any(len(name) > LONGEST_NAME for name in spellings):
        raise TrainingError(f"{where} has texts of more than {LONGEST_NAME} characters; it names no groups")
    people = {(name, patient or file) for name, patient, file in zip(named, images.patients, images.files, strict=True)}
    if len(spellings) > 1 and len(people) == len(spellings):
        raise TrainingError(f"{where} says something else of each person; it names no groups")
    return named
