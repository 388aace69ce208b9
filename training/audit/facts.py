"""What an audit has found: plain data that ``examine`` computes, and ``page`` and ``plot`` show."""

from __future__ import annotations

from dataclasses import dataclass

from training.audit.shortcuts import Shortcut
from training.evaluation.nearest import LeakageTest


@dataclass(frozen=True)
class ClassCount:
    """What there is of one class."""

    label: str
    images: int
    patients: int | None
    """None where people are not known, and so the next."""

    slices_per_patient: tuple[int, ...]
    """Sorted."""


@dataclass(frozen=True)
class Duplicates:
    """Pairs of images that are the same, or look the same."""

    pairs: int
    across_patients: int
    """Pairs of different people, or of people who are not known."""

    across_classes: int
    examples: tuple[tuple[str, str], ...]
    """Of those across classes or patients, across classes first."""


@dataclass(frozen=True)
class Audit:
    """Everything that the page shows."""

    data: str
    classes: tuple[ClassCount, ...]
    patients_in_both_classes: int
    """Of more than two classes: in several."""

    has_patients: bool
    sizes: dict[str, int]
    modes: dict[str, int]
    unreadable: tuple[tuple[str, str], ...]
    exact: Duplicates
    near: Duplicates
    shortcuts: tuple[Shortcut, ...]
    leakage: LeakageTest | None
    """None where people are not known, or too few to hold any out."""

    notes: tuple[str, ...]
    warnings: tuple[str, ...]
