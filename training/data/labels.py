"""Which images a data folder has, and what is said about each: by a folder per class, or by a ``labels.csv``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.errors import ImageError
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
from training.data.table import LABELS_FILE, read_table
from training.errors import TrainingError, count_nouns
from training.phantom.dataset import LESION_FOLDER
from training.settings.listing import DEFAULT_PATIENT_PATTERN, ListingConfig

MOST_CLASSES = 20
"""Folders beyond that are patients, not classes, and a table of them could not be read."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled images of two or more classes, listed."""

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
    """Which part of a split each image is in, train, validation or test, where labels.csv or folders say it: empty text
    where labels.csv says it of others only. Nothing where neither does."""

    parts_source: str = ""
    """What says it."""

    subgroups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """[N] by column of labels.csv: what it says of each image, where subgroups were asked for."""

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

    def require(self, positive: Sequence[str]) -> None:
        """Makes sure that there are images of every label that counts as positive, and of others.

        Raises:
            TrainingError: there are not.
        """
        for label in positive:
            if label not in self.labels:
                raise TrainingError(f"--positive {label} is not among the labels: {', '.join(self.labels)}")
        if set(positive) == set(self.labels):
            raise TrainingError(f"--positive names all labels, {', '.join(self.labels)}; one at least is negative")

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
        TrainingError: when it is not such a folder, or of one class alone, or of more than ``MOST_CLASSES``.
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
    if len(labels) < 2:
        raise TrainingError(f"{root} has 1 class ({labels[0]}); the networks tell two or more apart")
    if len(labels) > MOST_CLASSES:
        inner = "" if has_table else " and ".join(find_inner_classes(labelled))
        hint = f"; in each of them are {inner}: where those are the classes, put them at the top" if inner else ""
        names = ", ".join(labels[:5])
        raise TrainingError(
            f"{root} has {len(labels)} classes ({names}, …); at most {MOST_CLASSES} are told apart{hint}"
        )
    files = [entry.file for entry in labelled]
    identities = find_identities(root, found)
    patients = find_people(
        listing, labelled, identities, patient_pattern=patient_pattern, one_image_per_patient=one_image_per_patient
    )
    studies = [
        entry.study or (identities[entry.file].study if entry.file in identities else None) for entry in labelled
    ]
    source, parts = "the column split of labels.csv", tuple(entry.part for entry in labelled)
    if len(set(parts)) < 2:
        source, parts = "folders", find_parts(files)
    if parts:
        counts = ", ".join(f"{count:,} {part or 'in none'}" for part, count in Counter(parts).items())
        no_classes = ", which are no classes" if source == "folders" else ""
        listing.notes.append(f"{source} give{'s' * (source != 'folders')} a split{no_classes}: {counts}")
    return ImageSet(
        root,
        labels=tuple(labels),
        files=tuple(files),
        targets=np.array([labels.index(entry.label) for entry in labelled], np.int64),
        patients=tuple(patients),
        studies=tuple(studies),
        parts=parts,
        parts_source=source if parts else "",
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
