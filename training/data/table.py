"""``labels.csv``: which images it lists, and what its columns say of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from server.images import slice_table
from server.images.image_folder import ImageFolder, list_folder
from training.data.layout import LabelledFile, Listing, name_split
from training.errors import TrainingError, count_nouns

LABELS_FILE = slice_table.TABLE_NAME
SPLIT_COLUMN = "split"
"""Column that says which part of a split an image is in, whatever its case."""

YES = ("1", "1.0", "yes", "y", "true", "x", "ja", "j")
NO = ("", "0", "0.0", "no", "n", "false", "nein")
NAMED = 3
"""Most files that an error names; it counts the rest."""


def read_table(root: Path, found: ImageFolder, label_column: str, exclude_column: str | None) -> Listing:
    """Reads ``labels.csv``: columns ``file`` and the label's, if known ``patient``, or else ``study``, and ``split``.

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
    part_column = next((name for name in columns if name.casefold() == SPLIT_COLUMN), None)
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
            file,
            label,
            (row[person_column] or None) if person_column else None,
            study=row.get("study") or None,
            part=(part_column and name_split(row[part_column])) or "",
        )
        if listed.setdefault(file, entry) != entry:
            raise TrainingError(
                f"{path}, line {line}: {file} is there already, with another label or patient, or part of a split"
            )
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


def read_cells(root: Path, files: Sequence[str], names: Sequence[str], flags: str) -> dict[str, list[str]]:
    """Returns what columns of a data folder's ``labels.csv`` say of its images.

    Args:
        root: the data folder.
        files: [N], images below it, as ``read_table`` lists them.
        names: columns.
        flags: which flags ask, for the error.

    Returns:
        By column, [N] texts.

    Raises:
        TrainingError: there is no such table or column, or two rows of one image disagree.
    """
    path = root / LABELS_FILE
    if not path.exists():
        raise TrainingError(f"{root} has no {LABELS_FILE}, which {flags} is about")
    columns, rows = read_rows(path)
    require_columns(path, columns, "file", *names)
    finder = FileFinder(root, list_folder(root).images)
    wanted, cells = set(files), dict[str, list[str]]()
    for line, row in rows:
        file = finder.find(row["file"], f"{path}, line {line}")
        said = [row[name] for name in names]
        if file in wanted and cells.setdefault(file, said) != said:
            raise TrainingError(f"{path}, line {line}: {file} is there already, with another {' or '.join(names)}")
    return {name: [cells[file][place] for file in files] for place, name in enumerate(names)}


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
