"""Files of results: what a crash may leave in them, and who may write them."""

from __future__ import annotations

import csv
import errno
import io
import os
from pathlib import Path

import pytest

from client import Prediction, Timings
from client._errors import ImageReadError
from client.cli.csv_results import CSV_COLUMNS, DICOM_COLUMNS, STATUS_COLUMNS, CsvFormat
from client.cli.excel import choose_table
from client.cli.result_file import ResultFile
from client.cli.results import FileStamp, JsonLinesFormat, Record, ResultFileError, ResultFormat, StreamWriter

BOTH_FORMATS = pytest.mark.parametrize("result_format", [JsonLinesFormat(), CsvFormat()], ids=["jsonl", "csv"])


@pytest.mark.parametrize("junk", [b"hello", b"hello\n", b"\x89PNG\r\n\x1a\n....", b'{"files": 1}\n'])
@BOTH_FORMATS
def test_foreign_file_is_left_alone(result_format: ResultFormat, junk: bytes, tmp_path: Path) -> None:
    """--resume with a scan or a text by mistake does not cut it."""
    path = tmp_path / "file"
    path.write_bytes(junk)

    with pytest.raises(ResultFileError, match=r"file: line 1 is .*: name another file"):
        ResultFile(str(path), result_format)

    assert path.read_bytes() == junk


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    """What no crash of the client can leave is not repaired by guess."""
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"file": "a"}\n{"fi\n{"file": "b"}\n')

    with pytest.raises(ResultFileError, match="line 2 is no result"):
        ResultFile(str(path), JsonLinesFormat())


@BOTH_FORMATS
def test_file_torn_at_any_byte_goes_on(
    result_format: ResultFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a crash cuts the file, whole records stay, the rest goes, the next one follows; names survive."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # thousands of them take seconds
    path = tmp_path / "results"
    names = ["a,b.png", "=cmd", "'q", 'x\ny"z.png', "r\rx", "\udcff.png", "-", "\x85\u2028", "頭.png"]
    stamp = FileStamp.from_times(3, 1_700_000_000_123_456_789)

    def read() -> list[str]:
        file = ResultFile(str(path), result_format)
        file.close()
        return [fields["file"] for fields in file.records()]

    def append(name: str) -> None:
        file = ResultFile(str(path), result_format)
        file.write(Record(name, ImageReadError('bad "x",\ny', "IMAGE_UNREADABLE"), stamp))
        file.close()

    for name in names:
        append(name)
    whole = path.read_bytes()
    lengths = set()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        append("last")
        found = read()
        assert found == [*names[: len(found) - 1], "last"]
        lengths.add(len(found))

    assert lengths == set(range(1, len(names) + 2))


@BOTH_FORMATS
def test_two_runs_do_not_write_one_file(result_format: ResultFormat, tmp_path: Path) -> None:
    """The second is refused until the first has ended, also after the first has rewritten the file."""
    path = str(tmp_path / "results")
    first = ResultFile(path, result_format)
    with pytest.raises(ResultFileError, match="being written by another run"):
        ResultFile(path, result_format)
    first.keep_only(lambda fields: True)
    with pytest.raises(ResultFileError, match="being written by another run"):
        ResultFile(path, result_format)
    first.close()

    ResultFile(path, result_format).close()


def make_prediction(labels: tuple[str, ...] = ("normal", "stroke")) -> Prediction:
    """A judgement with equal scores."""
    return Prediction(
        labels[-1],
        1 / len(labels),
        dict.fromkeys(labels, 1 / len(labels)),
        0.05,
        "stroke-cnn",
        "1",
        "ab" * 32,
        "cd" * 32,
        Timings(1, 2, 3),
        (),
        "r-1",
        "a.png",
        positive_label=labels[-1],
        positive_probability=1 / len(labels),
    )


FAILURE = ImageReadError("no such file", "IMAGE_UNREADABLE")


def test_columns_of_classes_come_with_the_first_judgement(tmp_path: Path) -> None:
    """Failures before it are on the disk at once, and in the same table afterwards; so is what a resumed run adds."""
    path = tmp_path / "results.csv"
    file = ResultFile(str(path), CsvFormat())
    file.write(Record("b,1.png", FAILURE))
    assert b"b,1.png" in path.read_bytes()
    file.write(Record("c.png", make_prediction()))
    file.close()
    for outcome in (FAILURE, make_prediction()):
        file = ResultFile(str(path), CsvFormat())
        file.write(Record("d.png", outcome))
        file.close()

    with path.open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["file"] for row in rows] == ["b,1.png", "c.png", "d.png", "d.png"]
    assert [row["p_stroke"] for row in rows] == ["", "0.5", "", "0.5"]
    assert all(None not in row and None not in row.values() for row in rows)  # as many cells as columns
    assert list(rows[0])[-2:] == ["p_normal", "p_stroke"]


def test_tables_for_excel_have_the_columns_of_classes_too(tmp_path: Path) -> None:
    """Mark and separator stay when the header becomes longer, and when another run goes on."""
    path = tmp_path / "results.csv"
    for outcomes in ((FAILURE, make_prediction()), (FAILURE, make_prediction())):
        file = ResultFile(str(path), choose_table("semicolon", str(path)))
        for outcome in outcomes:
            file.write(Record("b;1.png", outcome))
        file.close()

    with path.open(newline="", encoding="utf-8-sig") as table:
        rows = list(csv.DictReader(table, delimiter=";"))
    assert [(row["file"], row["p_stroke"]) for row in rows] == [("b;1.png", ""), ("b;1.png", "0.5")] * 2
    assert path.read_bytes().startswith(b"\xef\xbb\xbffile;")


@pytest.mark.parametrize(
    "columns",
    [
        CSV_COLUMNS,
        (*CSV_COLUMNS, *STATUS_COLUMNS, "p_normal", "p_stroke"),
        (*CSV_COLUMNS, *STATUS_COLUMNS, *DICOM_COLUMNS, "p_normal", "p_stroke"),
    ],
)
def test_tables_of_earlier_versions_are_gone_on_with(tmp_path: Path, columns: tuple[str, ...]) -> None:
    """They keep the columns that they have."""
    path = tmp_path / "results.csv"
    old = ",".join(columns) + "\n" + "a.png,normal" + "," * (len(columns) - 2) + "\n"
    path.write_text(old)

    file = ResultFile(str(path), CsvFormat())
    file.write(Record("b.png", make_prediction()))
    file.close()

    assert path.read_text().startswith(old + "b.png,stroke,0.5,")
    with path.open(newline="") as table:
        assert [len(row) for row in csv.reader(table)] == [len(columns)] * 3


@pytest.mark.parametrize("columns", [(*CSV_COLUMNS, "p_normal"), (*CSV_COLUMNS, "outlier_score"), STATUS_COLUMNS])
def test_tables_of_other_programs_are_not_gone_on_with(tmp_path: Path, columns: tuple[str, ...]) -> None:
    """Their columns are none that any version has written."""
    path = tmp_path / "results.csv"
    path.write_text(",".join(columns) + "\n")

    with pytest.raises(ResultFileError):
        ResultFile(str(path), CsvFormat())


def test_classes_may_have_any_name(tmp_path: Path) -> None:
    """Commas, quotes and line ends in a label do not break the table, wherever a crash cuts it."""
    path = tmp_path / "results.csv"
    labels = ("a,b", 'say "x"', "two\nlines")
    file = ResultFile(str(path), CsvFormat())
    file.write(Record("a.png", make_prediction(labels)))
    file.close()
    whole = path.read_bytes()

    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        file = ResultFile(str(path), CsvFormat())
        file.write(Record("b.png", make_prediction(labels)))
        file.close()
        assert [fields["file"] for fields in file.records()] == ["b.png"]
    with path.open(newline="") as table:
        (row,) = csv.DictReader(table)
    assert [row[f"p_{label}"] for label in labels] == ["0.333333"] * 3


def test_printed_table_has_the_columns_of_classes_too() -> None:
    """Failures before the first judgement wait for them; without one there is a header all the same."""
    for outcomes in ([FAILURE, make_prediction()], [FAILURE], []):
        stream = io.BytesIO()
        writer = StreamWriter(stream, CsvFormat())
        for number, outcome in enumerate(outcomes):
            writer.write(Record(f"{number}.png", outcome))
        writer.close()
        writer.close()

        rows = list(csv.DictReader(io.StringIO(stream.getvalue().decode(), newline="")))
        assert stream.getvalue().startswith(b"file,label,confidence,")
        assert [row["file"] for row in rows] == [f"{number}.png" for number in range(len(outcomes))]
        assert [row.get("p_stroke", "") for row in rows] == ["", "0.5"][: len(outcomes)]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP])
@BOTH_FORMATS
def test_share_without_fsync_takes_results(
    result_format: ResultFormat, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written while the run goes on, at its end, and where records are taken out again."""
    fail_to_sync(number, monkeypatch)
    file = ResultFile(str(tmp_path / "results"), result_format)
    for name in ("a.png", "b.png"):
        file.write(Record(name, ImageReadError("bad", "IMAGE_UNREADABLE")))
    file.keep_only(lambda fields: fields["file"] == "b.png")
    file.sync()
    file.close()

    assert [fields["file"] for fields in file.records()] == ["b.png"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_disk_that_fails_at_fsync_is_named(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written may not be there after a power cut: that is said, with the file's name."""
    path = str(tmp_path / "results.jsonl")
    file = ResultFile(path, JsonLinesFormat())
    fail_to_sync(number, monkeypatch)

    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        file.close()

    assert (caught.value.errno, caught.value.filename) == (number, path)


def fail_to_sync(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fail)
