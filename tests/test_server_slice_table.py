"""Tables as spreadsheets write them, and people in names."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.images.slice_table import are_patient_folders, read_table

ROWS = [(2, {"file": "a.png", "label": "Hämorrhagie"}), (3, {"file": "b, c.png", "label": ""})]


@pytest.mark.parametrize(
    "text",
    [
        'file,label\na.png,Hämorrhagie\n"b, c.png",\n',
        "\ufefffile;label\r\na.png;Hämorrhagie\r\nb, c.png;\r\n",
        "file\tlabel\ra.png\tHämorrhagie\rb, c.png\r",
        ' file ; label \n a.png ;Hämorrhagie\n"b, c.png"; \n;;\n\n',
    ],
    ids=["commas", "mark, semicolons and CR LF", "tabs and CR", "spaces and empty rows"],
)
def test_table_is_read_as_spreadsheets_write_it(tmp_path: Path, text: str) -> None:
    """Separator, line ends, byte order mark and spaces around values do not matter."""
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8", newline="")

    assert read_table(tmp_path / "labels.csv") == (["file", "label"], ROWS)


def test_columns_with_a_meaning_may_be_in_capitals(tmp_path: Path) -> None:
    """Where the table has none in lower case; others stay as they are."""
    (tmp_path / "labels.csv").write_text("File,LABEL,Patient,study,Study,Age\n")

    assert read_table(tmp_path / "labels.csv")[0] == ["file", "label", "patient", "study", "Study", "Age"]


def test_unicode_text_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    """UTF-16 with tabs."""
    text = "file\tlabel\r\na.png\tHämorrhagie\r\nb, c.png\t\r\n"
    (tmp_path / "labels.csv").write_bytes(text.encode("utf-16"))

    assert read_table(tmp_path / "labels.csv") == (["file", "label"], ROWS)


def test_line_that_names_the_separator_is_skipped(tmp_path: Path) -> None:
    """Line numbers are those of the file."""
    (tmp_path / "labels.csv").write_text("sep=;\nfile;label\na.png;Hämorrhagie\nb, c.png;\n", encoding="utf-8")

    columns, rows = read_table(tmp_path / "labels.csv")

    assert columns == ["file", "label"]
    assert rows == [(line + 1, row) for line, row in ROWS]


def test_table_in_another_encoding_is_one_line(tmp_path: Path) -> None:
    """It says how to save it."""
    (tmp_path / "labels.csv").write_bytes("file,label\na.png,Hämorrhagie\n".encode("cp1252"))

    with pytest.raises(ValueError, match=r"is not a CSV file in UTF-8: .*; save it as 'CSV UTF-8'"):
        read_table(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("folders", "names", "are"),
    [
        (["1", "2", "3", "4"], [None] * 4, True),
        (["1", "2", "3", None], [None] * 4, False),
        (["1", "2", "3", "3"], [None] * 4, False),
        (["1", "2", "3", "4"], ["slice"] * 4, True),
        (["1", "2", "1", "2"], ["7", "8", "9", "10"], False),
    ],
    ids=["each in one", "one in none", "one folder in a class", "the same name in each", "names tell more apart"],
)
def test_folders_are_people_where_nothing_speaks_against_it(
    folders: list[str | None], names: list[str | None], are: bool
) -> None:
    """Two slices of each class."""
    assert are_patient_folders(folders, ["a", "a", "b", "b"], names) == are
