"""How a data folder is laid out: classes, around them wrapper folders and the folders of a split, in them patients."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from server.images.image_folder import HIDDEN, NAMELESS, NO_DICOM, ImageFolder, is_hidden, is_image, list_folder
from server.images.slice_table import TABLE_NAME
from training.errors import TrainingError, count_nouns
from training.phantom.dataset import FACTS_FILE, LESION_FOLDER

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}
"""What people call the parts of a split."""

MOST_WRAPPERS = 8
"""Folders around the data that are gone through; a link to a folder around it would never end."""

OWN = (LESION_FOLDER, TABLE_NAME, FACTS_FILE)
"""What training itself reads in a data folder."""

Parts = tuple[str, ...]


@dataclass(frozen=True)
class LabelledFile:
    """One image and what is said about it."""

    file: str
    """Path below the data folder, with forward slashes."""

    label: str

    patient: str | None = None
    """None where nothing says who it is."""

    folder: str | None = None
    """The folder below its class that it lies in, which may be the patient; None where it lies in the class itself."""

    study: str | None = field(default=None, compare=False)
    """None where nothing says which."""

    part: str = ""
    """Part of a split that labels.csv says it is in: train, validation or test; empty where it says nothing."""


@dataclass
class Listing:
    """What a data folder says."""

    files: list[LabelledFile]

    ignored: int = 0
    """Visible files that are left out because they are no images by name, or are not in labels.csv."""

    has_patients: bool = False
    """Whether the patients were read, so that file names need not be searched for them."""

    notes: list[str] = field(default_factory=list)
    """How the folder was read, where that may surprise."""

    warnings: list[str] = field(default_factory=list)
    """What may be wrong with it."""


def list_data_folder(root: Path) -> tuple[Path, ImageFolder]:
    """Lists a data folder; what training itself reads there is not counted as left out.

    Goes through folders that hold one folder and nothing else to look at, down to the classes or the table; one whose
    only folder has images but no classes is not gone into.

    Returns:
        The folder of the classes or the table, and what it holds; what lies beside it in the folders around it counts
        as left out.

    Raises:
        TrainingError: it cannot be read.
    """
    try:
        path = [root]
        while not (path[-1] / TABLE_NAME).exists():
            folders = list_subfolders(path[-1])
            if len(folders) > 1:
                break
            if not folders or has_images(path[-1]) or len(path) > MOST_WRAPPERS:
                path = [root]
                break
            path.append(path[-1] / folders[0])
        found = list_folder(path[-1], own=OWN)
        left_out = Counter(found.left_out)
        for outer, inner in pairwise(path):
            left_out.update(list_folder(outer, own=(inner.name,)).left_out)
    except OSError as error:
        raise TrainingError(f"{error.filename}: {error.strerror}") from None
    return path[-1], ImageFolder(found.images, left_out)


def list_subfolders(folder: Path) -> list[str]:
    """Returns the names of the visible folders in a folder, links among them; sorted."""
    return sorted(path.name for path in folder.iterdir() if not is_hidden(path.name) and path.is_dir())


def has_images(folder: Path) -> bool:
    """Tells whether images lie directly in a folder."""
    return any(not is_hidden(path.name) and path.is_file() and is_image(path) for path in folder.iterdir())


def name_split(folder: str = "") -> str | None:
    """Returns which part of a split a folder's name means: ``Train``, ``train_set``, ``hold-out``; None where none."""
    words = [word for word in re.split(r"[^a-z]+", folder.casefold()) if word not in ("set", "data", "images")]
    return SPLIT_NAMES.get("".join(words).removesuffix("set"))


def find_split_depth(files: Sequence[str]) -> int | None:
    """Returns at which depth all folders have names of a split: 0 around the classes, 1 below them, None at neither."""
    for depth in (0, 1):
        if files and all(name_split(*Path(file).parts[depth:-1][:1]) for file in files):
            return depth
    return None


def find_parts(files: Sequence[str]) -> tuple[str, ...]:
    """Returns which part of a split each file is in by its folders; empty where they say nothing, or one for all."""
    depth = find_split_depth(files)
    if depth is None:
        return ()
    parts = tuple(str(name_split(Path(file).parts[depth])) for file in files)
    return parts if len(set(parts)) > 1 else ()


def read_class_folders(root: Path, found: ImageFolder) -> Listing:
    """Reads a folder that has one folder of images per class, or folders of a split with such folders in each.

    Raises:
        TrainingError: when a class folder has no images, there are none at all, or it is not clear what a class is.
    """
    files = [path.relative_to(root).as_posix() for path in found.images]
    nested = [file for file in files if "/" in file]
    if not nested:
        left_out = found.describe_left_out()
        raise TrainingError(
            f"{root} has neither a {TABLE_NAME} nor PNG, JPEG or DICOM images in folders below it, one folder per class"
            + (f" ({left_out})" if left_out else "")
        )
    depth = find_split_depth(nested)
    paths = [Path(file).parts for file in nested]
    if depth == 0:
        paths = strip_wrappers(paths)
    else:
        require_classes(root, sorted({parts[0] for parts in paths}))
    spellings: dict[str, str] = {}
    labelled = [
        LabelledFile(
            file,
            spellings.setdefault(parts[0].casefold(), parts[0]) if depth == 0 else parts[0],
            folder=next(iter(parts[1 + (depth == 1) : -1]), None),
        )
        for file, parts in zip(nested, paths, strict=True)
        if len(parts) > 1
    ]
    if not labelled:
        names = ", ".join(sorted({file.split("/")[0] for file in nested}))
        raise TrainingError(
            f"{root}: {names} are parts of a split and no classes; put one folder per class into each, or a "
            f"{TABLE_NAME} into {root}"
        )
    loose = len(files) - len(labelled)
    listing = Listing(labelled, ignored=found.others + loose)
    if depth is None and (inner := find_inner_classes(labelled)):
        listing.warnings.append(
            f"each class folder has the folders {' and '.join(inner)} in it: where those are the classes, put them at "
            f"the top of {root}, or write a {TABLE_NAME}"
        )
    if loose:
        listing.warnings.append(f"left out: {count_nouns(loose, 'image')} in no class folder")
    return listing


def find_inner_classes(labelled: Sequence[LabelledFile]) -> list[str]:
    """Returns the two folders that lie in each class folder, and so may be the classes in truth; else nothing.

    Those of patients differ from class to class, are more than two, or have numbers.
    """
    inside: dict[str, set[str | None]] = {}
    for entry in labelled:
        inside.setdefault(entry.label, set()).add(entry.folder and entry.folder.casefold())
    first, *others = inside.values()
    names = sorted(filter(None, first))
    is_same = bool(others) and all(other == first for other in others)
    return names if is_same and len(first) == len(names) == 2 and not re.search("[0-9]", "".join(names)) else []


def require_classes(root: Path, labels: Sequence[str]) -> None:
    """Raises the error where a class has no images, or a part of a split stands among classes."""
    parts = [label for label in labels if name_split(label)]
    if "train" in map(name_split, parts):
        others = [label for label in labels if label not in parts]
        raise TrainingError(
            f"{root} has {', '.join(parts)}, which is a part of a split, beside {', '.join(others)}; "
            "put classes into each part, or everything into one folder per class"
        )
    empty = sorted(set(list_subfolders(root)) - set(labels))
    if empty:
        raise TrainingError(f"{root}: the class folder {', '.join(empty)} has no PNG, JPEG or DICOM images")


def strip_wrappers(paths: list[Parts]) -> list[Parts]:
    """Takes the folder of its split off each path, and a folder that is around all classes of that split."""
    inside: dict[str, list[Parts]] = {}
    for parts in paths:
        inside.setdefault(parts[0], []).append(parts[1:])
    is_wrapped = {
        split: len({parts[0] for parts in own}) == 1 and min(map(len, own)) > 2 and len({parts[1] for parts in own}) > 1
        for split, own in inside.items()
    }
    # Of all or of none: where one part of a split lacks a class, the folder around its patients is the other class.
    strip = 1 + all(is_wrapped.values())
    return [parts[strip:] for parts in paths]


def tell_left_out(listing: Listing, found: ImageFolder, *, has_table: bool) -> None:
    """Adds what was left out of a data folder; of what somebody may have taken for an image there is a warning.

    Beside a table other files are usual, and what it names is known.
    """
    named = [kind for kind in found.left_out if kind.startswith(".") or kind in (NAMELESS, NO_DICOM)]
    if others := found.others:
        kinds = found.describe_left_out(named).removeprefix("left out: ")
        (listing.notes if has_table else listing.warnings).append(
            f"left out: {count_nouns(others, 'file')} besides the images" + (f" ({kinds})" if others > 1 else "")
        )
    if hidden := found.describe_left_out([HIDDEN]):
        listing.notes.append(hidden)
    if rest := found.describe_left_out(found.left_out.keys() - {HIDDEN, *named}):
        listing.warnings.append(rest)
