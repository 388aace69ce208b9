"""Which images a data folder has, and what is said about each: by a folder per class, or by a ``labels.csv``."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from server.errors import ImageError
from server.images import slice_table
from server.images.dicom.identity import Identity, read_identities
from server.images.image_folder import ImageFolder
from server.images.slice_table import are_patient_folders, find_patients
from training.data.layout import (
    LabelledFile,
    Listing,
    find_inner_classes,
    find_parts,
    list_data_folder,
    read_class_folders,
    tell_left_out,
)
from training.errors import TrainingError, count_nouns
from training.phantom.dataset import LESION_FOLDER
from training.settings.listing import DEFAULT_PATIENT_PATTERN, ListingConfig

LABELS_FILE = slice_table.TABLE_NAME
YES = ("1", "1.0", "yes", "y", "true", "x", "ja", "j")
NO = ("", "0", "0.0", "no", "n", "false", "nein")
NAMED = 3
"""Most files that an error names; it counts the rest."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled images of two classes, listed."""

    root: Path

    labels: tuple[str, ...]
    """The classes' names, sorted: the order of the model's output."""

    files: tuple[str, ...]
    """Paths below ``root`` with forward slashes, sorted."""

    targets: NDArray[np.int64]
    """[N], index into ``labels`` of each file."""

    patients: tuple[str | None, ...]
    """Who each image shows: from labels.csv, or else from a DICOM file, as a hash, or from the file's name; the image
    itself where each shows another person; None where that is not known."""

    studies: tuple[str | None, ...] = ()
    """Of which study each image is: from labels.csv, or else from a DICOM file, as a hash; None where that is not
    known; empty where it is of none."""

    parts: tuple[str, ...] = ()
    """Which part of a split each image is in, train, validation or test, where folders say it; else nothing."""

    ignored: int = 0
    """Files that were left out, see ``warnings``."""

    notes: tuple[str, ...] = ()
    """How the folder was read, where that may surprise."""

    warnings: tuple[str, ...] = ()
    """What may be wrong with it."""

    @property
    def has_patients(self) -> bool:
        """Whether it is known of every image who it shows; otherwise leakage cannot be excluded."""
        return None not in self.patients

    @property
    def has_lesions(self) -> bool:
        """Whether lesion masks lie beside the images; an image without one has no lesion."""
        return (self.root / LESION_FOLDER).is_dir()


def list_data(config: ListingConfig) -> ImageSet:
    """Lists the data of a command, and says on the terminal how they were read.

    Raises:
        TrainingError: as ``list_images``.
    """
    images = list_images(
        config.data,
        label_column=config.label_column,
        exclude_column=config.exclude_column,
        patient_pattern=config.patient_pattern,
        one_image_per_patient=config.one_image_per_patient,
    )
    for note in images.notes:
        print(note, file=sys.stderr)
    return images


def list_images(
    root: Path,
    *,
    label_column: str = ListingConfig.label_column,
    exclude_column: str | None = None,
    patient_pattern: str = DEFAULT_PATIENT_PATTERN,
    one_image_per_patient: bool = False,
) -> ImageSet:
    """Lists a folder that has a ``labels.csv``, or one folder of images per class.

    Args:
        root: the folder.
        label_column: column of labels.csv with the label.
        exclude_column: column of labels.csv that marks images to leave out with 1.
        patient_pattern: finds the patient in a file's name, where labels.csv does not say who it is.
        one_image_per_patient: states that no two images show the same person.

    Raises:
        TrainingError: when it is not such a folder, or not of two classes with images.
    """
    if not root.is_dir():
        raise TrainingError(
            f"{root} is not a folder; --data needs one with a labels.csv or with a folder of images per class"
        )
    given = root
    root, found = list_data_folder(given)
    has_table = (root / LABELS_FILE).exists()
    if has_table:
        listing = read_table(root, found, label_column, exclude_column)
    elif exclude_column or label_column != ListingConfig.label_column:
        raise TrainingError(f"{root} has no {LABELS_FILE}, which --label-column and --exclude-column are about")
    else:
        listing = read_class_folders(root, found)
    tell_left_out(listing, found, has_table=has_table)
    if root != given:
        listing.notes.insert(0, f"the data are in {root}, all that {given} holds")
    labelled = sorted(listing.files, key=lambda entry: entry.file)
    labels = sorted({entry.label for entry in labelled})
    if len(labels) != 2:
        classes = f"1 class ({labels[0]})" if len(labels) == 1 else f"{len(labels)} classes ({', '.join(labels[:5])})"
        inner = "" if has_table else " and ".join(find_inner_classes(labelled))
        hint = f"; in each of them are {inner}: where those are the classes, put them at the top" if inner else ""
        raise TrainingError(f"{root} has {classes}; the networks tell two apart{hint}")
    files = [entry.file for entry in labelled]
    identities = find_identities(root, found)
    patients = find_people(
        listing, labelled, identities, patient_pattern=patient_pattern, one_image_per_patient=one_image_per_patient
    )
    studies = [
        entry.study or (identities[entry.file].study if entry.file in identities else None) for entry in labelled
    ]
    parts = find_parts(files)
    if parts:
        counts = ", ".join(f"{count:,} {part}" for part, count in Counter(parts).items())
        listing.notes.append(f"folders give a split, which are no classes: {counts}")
    return ImageSet(
        root,
        labels=tuple(labels),
        files=tuple(files),
        targets=np.array([labels.index(entry.label) for entry in labelled], np.int64),
        patients=tuple(patients),
        studies=tuple(studies),
        parts=parts,
        ignored=listing.ignored,
        notes=tuple(listing.notes),
        warnings=tuple(listing.warnings),
    )


def find_identities(root: Path, found: ImageFolder) -> dict[str, Identity]:
    """Returns whose each DICOM file is, by its path below ``root``; of all that are there, labelled or not.

    Raises:
        TrainingError: there are DICOM files, and nothing to read them with.
    """
    try:
        return {path.relative_to(root).as_posix(): who for path, who in read_identities(found.images).items()}
    except ImageError:
        raise TrainingError(f"{root} has DICOM files, for which pydicom is needed: make install") from None


def find_people(
    listing: Listing,
    labelled: Sequence[LabelledFile],
    identities: Mapping[str, Identity],
    *,
    patient_pattern: str,
    one_image_per_patient: bool,
) -> list[str | None]:
    """Returns who each image shows, and notes in the listing where that may surprise.

    DICOM files say it themselves, unless a pattern was given: they are often written anew with one id for all.
    """
    files = [entry.file for entry in labelled]
    if listing.has_patients:
        return [entry.patient for entry in labelled]
    if one_image_per_patient:
        return list(files)
    patients = find_patients(files, patient_pattern)
    if patient_pattern != DEFAULT_PATIENT_PATTERN:
        return patients
    folders = [entry.folder for entry in labelled]
    if not identities and are_patient_folders(folders, [entry.label for entry in labelled], patients):
        listing.notes.append(
            f"patients are the {len(set(folders)):,} folders below the classes; where they are not, say who it is "
            "by --patient-pattern or a labels.csv"
        )
        return folders
    told = {file: identities[file].person for file in files if file in identities}
    if told:
        people = count_nouns(len(set(told.values())), "patient")
        listing.notes.append(f"{count_nouns(len(told), 'DICOM file')} say whose they are: {people}, named by hashes")
    return [told.get(file, name) for file, name in zip(files, patients, strict=True)]


def read_table(root: Path, found: ImageFolder, label_column: str, exclude_column: str | None) -> Listing:
    """Reads ``labels.csv``: columns ``file`` and the label's, and if known ``patient``, or else ``study``.

    A file is a path below ``root`` with forward slashes. Where there is none, the one image of that name anywhere below
    ``root`` is meant: public sets keep their table beside a folder of images.

    Raises:
        TrainingError: when a column is missing, a row cannot be used, two rows of one image disagree, or images are
            missing.
    """
    path = root / LABELS_FILE
    columns, rows = read_rows(path)
    require_columns(path, columns, "file", label_column, *([exclude_column] if exclude_column else []))
    person_column = next((name for name in slice_table.PERSON_COLUMNS if name in columns), None)
    finder = FileFinder(root, found.images)
    listed: dict[str, LabelledFile] = {}
    spellings: dict[str, str] = {}
    variants: set[str] = set()
    excluded: set[str] = set()
    for line, row in rows:
        file = finder.find(row["file"], f"{path}, line {line}")
        if exclude_column and is_marked(row[exclude_column], f"{path}, line {line}: {exclude_column}"):
            excluded.add(file)
            continue
        if not row[label_column]:
            raise TrainingError(f"{path}, line {line}: {row['file'] or 'a row without a file'} has no {label_column}")
        label = spellings.setdefault(row[label_column].casefold(), row[label_column])
        variants |= {row[label_column]} - {label}
        entry = LabelledFile(
            file, label, (row[person_column] or None) if person_column else None, study=row.get("study") or None
        )
        if listed.setdefault(file, entry) != entry:
            raise TrainingError(f"{path}, line {line}: {file} is there already, with another label or patient")
    finder.require_all(path)
    if not listed:
        raise TrainingError(f"{path} lists no images" + (f" that {exclude_column} does not exclude" * bool(excluded)))
    named = listed.keys() | excluded
    ignored = sum(image.relative_to(root).as_posix() not in named for image in found.images)
    notes = [f"labels are those of {path}, column {label_column}; the names of folders are not looked at"]
    if variants:
        notes.append(f"taken for the same label whatever their case: {', '.join(sorted(variants))}")
    if excluded:
        notes.append(f"left out: {count_nouns(len(excluded), 'image')} whose {exclude_column} is 1")
    if person_column == "study":
        notes.append("the table has studies, no patients: each study is taken for a patient")
    warnings = [f"left out: {count_nouns(ignored, 'image')} not named in {LABELS_FILE}"] if ignored else []
    return Listing(list(listed.values()), ignored, person_column is not None, notes, warnings)


def is_marked(value: str, where: str) -> bool:
    """Tells whether a cell says yes.

    Raises:
        TrainingError: it says neither yes nor no.
    """
    if (word := value.casefold()) in YES or word in NO:
        return word in YES
    raise TrainingError(f"{where} is {value!r}, neither 1 nor 0, yes nor no")


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Returns the columns of a CSV file, and its rows with their line numbers; values are stripped, never None."""
    try:
        return slice_table.read_table(path)
    except ValueError as error:
        raise TrainingError(str(error)) from None


def require_columns(path: Path, columns: Sequence[str], *names: str) -> None:
    """Raises the error for columns that a table lacks."""
    missing = [name for name in names if name not in columns]
    if missing:
        there = ", ".join(columns) or "nothing at all"
        raise TrainingError(f"{path} has no column {' and no column '.join(missing)}; it has {there}")


class FileFinder:
    """Finds the images that a table names, below one folder; remembers those that are missing."""

    def __init__(self, root: Path, images: Iterable[Path]) -> None:
        self._root = root
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for image in images:
            self._by_name[image.name].append(image.relative_to(root).as_posix())
        self._missing: list[str] = []

    def find(self, name: str, where: str) -> str:
        """Returns the path below the folder, with forward slashes; the name itself where there is no such file."""
        path = PurePosixPath(name)
        if not name or path.is_absolute() or ".." in path.parts or "\\" in name:
            raise TrainingError(f"{where}: {name!r} is not a path below the data folder with forward slashes")
        if (self._root / path).is_file():
            return path.as_posix()
        found = self._by_name[path.name]
        if len(found) > 1:
            raise TrainingError(f"{where}: {name} is not there, and {len(found)} files have its name: {found[0]}, …")
        if not found:
            self._missing.append(name)
        return found[0] if found else name

    def require_all(self, path: Path) -> None:
        """Raises the error for all missing files at once."""
        if self._missing:
            count = len(self._missing)
            names = ", ".join(self._missing[:NAMED]) + (", …" if count > NAMED else "")
            raise TrainingError(f"{path}: missing below {path.parent}: {count_nouns(count, 'image')}: {names}")
