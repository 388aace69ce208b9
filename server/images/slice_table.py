"""What people write down about slices: a table out of a spreadsheet, and who it is in the name of a file or folder."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

TABLE_NAME = "labels.csv"
SEPARATORS = (",", ";", "\t")
"""Spreadsheets write a semicolon where the comma is the decimal sign."""

PERSON_COLUMNS = ("patient", "study")
"""The first that a table has says who it is."""

PATIENT_PATTERN = r"(?P<patient>.+) \(\d+\)\.\w+"
"""``<patient> (<slice>).jpg``, how the public sets name their slices."""


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Returns the columns of a CSV file, and its rows with their line numbers; values are stripped, never None.

    Separated by commas, semicolons or tabs, with any line ends, with or without a byte order mark; empty rows are
    skipped, and so is the first line ``sep=;``.

    Raises:
        ValueError: it is no such file, in one line.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_wide else "utf-8-sig")
        first, *rest = re.split("\r\n|\r|\n", text, maxsplit=1)
        named = re.fullmatch(r'"?sep=(.)"?', first)
        if named:
            text, separator = "".join(rest), named[1]
        else:
            separator = max(SEPARATORS, key=lambda each: len(next(csv.reader([first], delimiter=each), [])))
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="", delimiter=separator)
        columns = name_columns([name.strip() for name in reader.fieldnames or []])
        reader.fieldnames = columns
        rows = [
            (reader.line_num + bool(named), {name: (row[name] or "").strip() for name in columns}) for row in reader
        ]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}; save it as 'CSV UTF-8'") from None
    return columns, [(line, row) for line, row in rows if any(row.values())]


def name_columns(columns: list[str]) -> list[str]:
    """Returns the columns' names, those that have a meaning here in lower case: ``File`` is ``file`` where none is."""
    known = {name for name in ("file", "label", *PERSON_COLUMNS) if name not in columns}
    return [name.lower() if name.lower() in known else name for name in columns]


def find_patients(files: Sequence[str], pattern: str) -> list[str | None]:
    """Returns the patient of each file by its name, None where the pattern does not match the whole name.

    Args:
        files: paths with forward slashes; the folders are not looked at, so one id in two classes is one person.
        pattern: regular expression whose group ``patient``, or else first group, is the patient.
    """
    compiled = re.compile(pattern)
    group: str | int = "patient" if "patient" in compiled.groupindex else 1
    matches = (compiled.fullmatch(file.rsplit("/", 1)[-1]) for file in files)
    return [match.group(group) if match else None for match in matches]


def are_patient_folders(
    folders: Sequence[str | None], labels: Sequence[str | None], names: Sequence[str | None]
) -> bool:
    """Tells whether the folders between class and slice are people, as in ``stroke/P07/12.png``.

    They are where every slice lies in one, every class has more than one, and the files' names tell fewer people
    apart: ``slice (1).jpg`` in each of them is not one person.

    Args:
        folders: [N], name of the folder below its class that a slice lies in; None where it lies in the class itself.
        labels: [N], class of each slice.
        names: [N], patient by the name of the file.
    """
    in_class: dict[str | None, set[str]] = {}
    for folder, label in zip(folders, labels, strict=True):
        if folder is None:
            return False
        in_class.setdefault(label, set()).add(folder)
    return min(map(len, in_class.values()), default=0) > 1 and len(set(folders)) >= len(set(names) - {None})
