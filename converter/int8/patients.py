"""Which slices a folder has for a calibration, what they show and of whom, and two sets of them without a person in
common."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.errors import ConversionError
from server.errors import ImageError
from server.images.dicom.identity import read_identities
from server.images.image_folder import ImageFolder
from server.images.slice_table import (
    PATIENT_PATTERN,
    PERSON_COLUMNS,
    TABLE_NAME,
    are_patient_folders,
    find_patients,
    read_table,
)


@dataclass(frozen=True)
class KnownSlice:
    """One file of a folder and what is said about it."""

    path: Path

    label: str | None
    """None where neither a folder nor the table says one of the model's labels."""

    patient: str | None
    """None where nothing says who it is."""


def read_slices(folder: Path, found: ImageFolder, labels: Sequence[str]) -> list[KnownSlice]:
    """Finds out what the images of a folder show, and of whom: by ``labels.csv``, by what DICOM files
    say, by their names, or by their folders.

    Args:
        folder: what was listed.
        found: its images.
        labels: those of the model.

    Raises:
        ConversionError: there is a ``labels.csv`` that cannot be read.
    """
    rows = read_rows(folder, found)
    files = [path.relative_to(folder).parts for path in found.images]
    shown: list[str | None] = []
    below: list[str | None] = []
    for path, parts in zip(found.images, files, strict=True):
        # The deepest folder counts: a class may have a wrapper around it that bears a name of its own.
        depth = next((i for i in range(len(parts) - 2, -1, -1) if parts[i] in labels), None)
        written = rows[path].get("label") if path in rows else None
        shown.append(written if written in labels else None if depth is None else parts[depth])
        below.append(parts[depth + 1] if depth is not None and len(parts) > depth + 2 else None)
    people: list[str | None] = [
        next((row[name] for name in PERSON_COLUMNS if row.get(name)), None)
        for row in (rows.get(path, {}) for path in found.images)
    ]
    if not any(people):
        people = find_patients([parts[-1] for parts in files], PATIENT_PATTERN)
        told = read_people(folder, found)
        if told:
            people = [told.get(path, person) for path, person in zip(found.images, people, strict=True)]
        elif are_patient_folders(below, shown, people):
            people = below
    return [KnownSlice(path, label, person) for path, label, person in zip(found.images, shown, people, strict=True)]


def read_people(folder: Path, found: ImageFolder) -> dict[Path, str | None]:
    """Returns who DICOM files show, as hashes; nothing where there are none.

    Raises:
        ConversionError: there are, and nothing to read them with.
    """
    try:
        return {path: identity.person for path, identity in read_identities(found.images).items()}
    except ImageError:
        raise ConversionError(f"{folder} has DICOM files, for which pydicom is needed: make install") from None


def read_rows(folder: Path, found: ImageFolder) -> dict[Path, dict[str, str]]:
    """Returns what ``labels.csv`` says of each image that it names; nothing where there is no such file."""
    table = folder / TABLE_NAME
    if not table.is_file():
        return {}
    try:
        _, rows = read_table(table)
    except (ValueError, OSError) as error:
        raise ConversionError(f"--calibrate: {error}") from None
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in found.images:
        by_name[path.name].append(path)
    images, named = set(found.images), {}
    for _, row in rows:
        file = row.get("file", "")
        same = by_name[file.rpartition("/")[2]]
        path = folder / file
        if path not in images and len(same) == 1:
            path = same[0]
        if path in images:
            named[path] = row
    return named


def part_patients(
    slices: Sequence[KnownSlice], *, is_labelled: bool
) -> tuple[list[list[KnownSlice]], list[list[KnownSlice]]]:
    """Deals about a third of the slices of each class into one set and the rest into another, whole patients each.

    In the order of the names: of patients with one slice each, the first third of each class is the first set.

    Args:
        slices: a slice without a patient counts as a patient.
        is_labelled: whether classes are looked at.

    Returns:
        The two sets, each as one list a class, or one list where classes are not looked at.
    """
    people: dict[str, list[KnownSlice]] = defaultdict(list)
    for item in slices:
        people[str(item.path) if item.patient is None else f"patient {item.patient}"].append(item)
    classes = {item.label if is_labelled else None: None for item in slices}
    wanted = Counter(item.label if is_labelled else None for item in slices)
    have: Counter[str | None] = Counter()
    first: list[KnownSlice] = []
    rest: list[KnownSlice] = []
    for owned in people.values():
        counts = Counter(item.label if is_labelled else None for item in owned)
        is_needed = any(have[label] < wanted[label] // 3 for label in counts)
        takes = is_needed and all(have[label] + counts[label] < wanted[label] for label in counts)  # some are to judge
        (first if takes else rest).extend(owned)
        have += counts if takes else Counter()

    def group(chosen: list[KnownSlice]) -> list[list[KnownSlice]]:
        return [[item for item in chosen if not is_labelled or item.label == label] for label in classes]

    return group(first), group(rest)


def describe_parting(slices: Sequence[KnownSlice]) -> str:
    """Says whether the held-out slices are other patients'."""
    unknown = sum(item.patient is None for item in slices)
    if not unknown:
        return "held-out slices are other patients'"
    return (
        f"it is not known of {'' if unknown == len(slices) else f'{unknown:,} of '}{len(slices):,} slices who they "
        "show: held-out slices may be of the same patients"
    )
