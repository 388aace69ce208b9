"""The author's own answers for image files, as a table, and how near served answers come to them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converter.errors import OutputValuesError, SourceError
from converter.heads import expect_probabilities
from converter.pixels.sampling import spread_evenly
from server.errors import ImageError
from server.images.image_folder import list_folder
from server.images.preprocess import InputFormat, load_pixels
from server.models.contract import ModelSpec
from server.models.runtime import OnnxModel

FILE_COLUMNS = ("file", "filename", "file_name", "image", "path", "name")
LEAST_FILES = 4
MOST_FILES = 512
"""Files that are compared, spread evenly over the table: by then no figure changes any more."""

MOST_TABLE_BYTES = 64 * 1024 * 1024
LEAST_AGREEMENT = 0.99
MOST_MEAN_DIFFERENCE = 0.01
MOST_DIFFERENCE = 0.1
"""What the served answers may differ from the author's."""

BOUND = f"at least {LEAST_AGREEMENT:.0%} the same label, mean |Δp| {MOST_MEAN_DIFFERENCE}, largest {MOST_DIFFERENCE}"


@dataclass(frozen=True)
class Closeness:
    """How near answers come to the author's."""

    same_label: float
    """Share of files with the same label at the threshold; those whose answer by the author lies within the bound of
    the mean difference from it count as the same."""

    mean_difference: float
    """Mean, over files, of the largest absolute difference of a probability."""

    largest_difference: float

    @property
    def is_close(self) -> bool:
        """Whether the bound is kept. So written that NaN is not."""
        return (
            self.same_label >= LEAST_AGREEMENT
            and self.mean_difference <= MOST_MEAN_DIFFERENCE
            and self.largest_difference <= MOST_DIFFERENCE
        )

    def __str__(self) -> str:
        return (
            f"same label {self.same_label:.1%}, |Δp| mean {self.mean_difference:.2g}, "
            f"largest {self.largest_difference:.2g}"
        )


@dataclass(frozen=True)
class Reference:
    """The author's answers for files that are here."""

    path: Path
    files: tuple[Path, ...]
    answers: NDArray[np.float64]
    """[N, classes]."""

    missing: int
    """Rows of the table whose file is not in the folder."""

    def choose(self, chosen: Sequence[int]) -> Reference:
        """Some of its rows."""
        return Reference(self.path, tuple(self.files[i] for i in chosen), self.answers[list(chosen)], self.missing)

    def compare(self, answers: NDArray[np.floating], spec: ModelSpec) -> Closeness:
        """How near answers [N, classes] to its files come. A label is the same one also where the author's answer lies
        so near to another one that it may as well be that."""
        threshold, rows = spec.threshold, np.arange(len(answers))
        wanted, given = spec.positive_scores(self.answers), spec.positive_scores(answers)
        is_same_side = (wanted > threshold) == (given > threshold)
        is_same = is_same_side | (np.abs(wanted - threshold) <= MOST_MEAN_DIFFERENCE)
        ours, theirs = spec.find_labels(answers), spec.find_labels(self.answers)
        lead = self.answers[rows, theirs] - self.answers[rows, ours]
        is_same &= ~is_same_side | (ours == theirs) | (lead <= MOST_MEAN_DIFFERENCE)
        differences = np.abs(answers - self.answers).max(axis=1)
        return Closeness(float(is_same.mean()), float(differences.mean()), float(differences.max()))

    def load(self, input_format: InputFormat) -> NDArray[np.uint8]:
        """Decodes its files as the server does: [N, height, width, channels].

        Raises:
            SourceError: one cannot be decoded.
        """
        return np.stack([load_file(path, input_format) for path in self.files])


def load_file(path: Path, input_format: InputFormat) -> NDArray[np.uint8]:
    """Decodes a file as the server does, uint8 [height, width, channels].

    Raises:
        SourceError: it cannot be decoded.
    """
    try:
        return load_pixels(path.read_bytes(), input_format).array
    except ImageError as error:
        raise SourceError(f"{path}: {error.message} [{error.reason}]") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None


def read_reference(path: Path, folder: Path, spec: ModelSpec, *, outputs: int, activation: str | None) -> Reference:
    """Reads a table of answers, CSV with a header.

    One column names the file (``file``, ``filename``, ``image``, ``path``), relative to ``folder``, or by a name that
    only one image below it has. The others are named as the labels, with or without ``p_`` before, or are as many as
    the model's outputs and in their order. They hold what ``predict`` gave: probabilities, or logits where
    ``activation`` is to turn them into such.

    Args:
        path: the CSV file; separated by commas, semicolons or tabs; with or without a byte order mark.
        folder: where the images are.
        spec: the model's labels.
        outputs: width of the model's answer.
        activation: what its answers lack, see ``converter.heads``.

    Raises:
        SourceError: it is no such table, or too few of its files are there.
    """
    header, rows = read_table(path)
    names = [name.strip().lower() for name in header]
    place = next((names.index(name) for name in FILE_COLUMNS if name in names), None)
    if place is None:
        raise SourceError(f"{path}: has no column 'file' (its columns: {', '.join(header)[:200]})")
    columns = find_columns(header, place, spec, outputs, path)
    found = find_files(folder)
    files, values, missing = [], [], 0
    for number, row in enumerate(rows, start=2):
        name = row[place].strip() if place < len(row) else ""
        file = found.get(name.replace("\\", "/").removeprefix("./")) or found.get(
            name.replace("\\", "/").rpartition("/")[2]
        )
        if file is None:
            missing += 1
            continue
        try:
            values.append([float(row[column].replace(",", ".")) for column in columns])
        except (ValueError, IndexError):
            raise SourceError(f"{path}: line {number} has no number for each of the classes") from None
        files.append(file)
    if len(files) < LEAST_FILES:
        raise SourceError(
            f"{path}: {len(files)} of its {len(files) + missing} files are images in {folder}; at least {LEAST_FILES} "
            "are needed: --images DIR says where they are"
        )
    answers = np.array(values, np.float64)
    if outputs == len(columns):
        answers = expect_probabilities(answers.astype(np.float32), activation).astype(np.float64)
    elif len(columns) == 1:  # the probability of one of two labels, named
        answers = np.concatenate([1 - answers, answers], axis=1)
    if not (np.all(answers >= -1e-6) and np.allclose(answers.sum(axis=1), 1, atol=1e-3)):
        raise SourceError(
            f"{path}: its answers are not probabilities of the classes (from {answers.min():.3g} to "
            f"{answers.max():.3g}); if they are logits, --activation softmax or sigmoid"
        )
    return Reference(path, tuple(files), answers, missing)


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file.

    Raises:
        SourceError: it cannot be read, or has no rows.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_TABLE_BYTES + 1)
        if len(data) > MOST_TABLE_BYTES:
            raise SourceError(f"{path}: is larger than {MOST_TABLE_BYTES:,} bytes, which no table of answers is")
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        first = text.partition("\n")[0]
        separator = max(",;\t", key=first.count)
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if any(row)]
    except OSError as error:
        raise SourceError(f"--reference {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: is no CSV ({error})") from None
    if len(rows) < 2:
        raise SourceError(f"{path}: needs a header and a row for each file")
    return rows[0], rows[1:]


def find_columns(header: Sequence[str], place: int, spec: ModelSpec, outputs: int, path: Path) -> list[int]:
    """Columns of the answers, in the order of the labels; one alone is the second label's.

    Raises:
        SourceError: it cannot be told which they are.
    """
    names = [name.strip().removeprefix("p_").casefold() for name in header]
    named = [names.index(label.casefold()) for label in spec.labels if label.casefold() in names]
    if len(named) == len(spec.labels):
        return named
    second = [index for index, name in enumerate(names) if name == spec.labels[-1].casefold()]
    if len(spec.labels) == 2 and len(second) == 1 and second == named:
        return second
    others = [index for index in range(len(header)) if index != place]
    if not named and len(others) == outputs:
        return others
    raise SourceError(
        f"{path}: its columns are {', '.join(header)[:200]}; beside the file there must be one for each of "
        f"{', '.join(spec.labels)}"
    )


def find_files(folder: Path) -> dict[str, Path]:
    """Images of a folder by relative path, and by name alone where that tells one from another."""
    try:
        images = list_folder(folder).images
    except OSError as error:
        raise SourceError(f"--images {folder}: {error.strerror}") from None
    by_path = {path.relative_to(folder).as_posix(): path for path in images}
    by_name: dict[str, list[Path]] = {}
    for path in images:
        by_name.setdefault(path.name, []).append(path)
    return {name: paths[0] for name, paths in by_name.items() if len(paths) == 1} | by_path


def check_served(model: OnnxModel, reference: Reference) -> Closeness:
    """Compares what is served for the files with the author's answers.

    Raises:
        OutputValuesError: they differ by more than the bound.
    """
    some = reference.choose(spread_evenly(len(reference.files), MOST_FILES))
    answers = np.concatenate([model.run(load_file(path, model.input_format)[np.newaxis]) for path in some.files])
    close = some.compare(answers, model.spec)
    if not close.is_close:
        raise OutputValuesError(
            f"the served answers are not the author's in {reference.path}: {close} on {len(some.files)} files (needed: "
            f"{BOUND}). Something was done to the pixels that is not among --preprocess, --resample and --fit (a crop, "
            "a window, another normalisation), or the answers are of another model"
        )
    return close
