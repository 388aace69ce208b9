"""Tables for Excel: with a byte order mark, and with the separator of its language."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest

from client._errors import ImageReadError
from client.cli.csv_results import CsvFormat
from client.cli.excel import ExcelFormat, choose_table
from client.cli.main import main
from client.cli.result_file import ResultFile
from client.cli.results import FileStamp, Record
from tests.client_fakes import FakeServer, wait_for
from tests.command_lines import POSITIVE
from tests.watching import make_png, watching_here

MARK = b"\xef\xbb\xbf"
NAMES = ["Schädel; links, über.png", "=cmd.png", 'x\ny";z.png', "\udcff.png", "頭.png", "'q", "a;b\r.png"]
BOTH = pytest.mark.parametrize(("name", "separator"), [("comma", ","), ("semicolon", ";")])


def read_table(data: bytes, separator: str) -> list[dict[str, str]]:
    """The rows as Excel sees them: the mark says that it is UTF-8."""
    assert data.startswith(MARK)
    text = data.decode("utf-8-sig", "surrogateescape")
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator))


@BOTH
def test_table_for_excel_has_what_any_table_has(
    cli_server: FakeServer,
    name: str,
    separator: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    """Umlauts stay, figures have their point, and a separator within a name parts nothing."""
    monkeypatch.chdir(tmp_path)
    for file in NAMES[:2]:
        Path(file).write_bytes(POSITIVE)
    command = ["--csv", "-", *NAMES[:2], "no;such.png"]

    assert main(command) == 1
    plain = list(csv.DictReader(io.StringIO(capsysbinary.readouterr().out.decode())))
    assert main([*command, "--excel", name]) == 1
    rows = read_table(capsysbinary.readouterr().out, separator)

    for row in (*plain, *rows):
        del row["request_id"]
    assert rows == plain
    assert [row["file"] for row in rows] == ["Schädel; links, über.png", "'=cmd.png", "no;such.png"]
    assert rows[0]["confidence"] == "0.973"


@BOTH
def test_table_for_excel_torn_at_any_byte_goes_on(
    name: str, separator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the mark, too: whole records stay, the rest goes, the next one follows."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    path = tmp_path / "results.csv"
    stamp = FileStamp.from_times(3, 1_700_000_000_123_456_789)

    def append(*names: str) -> list[str]:
        file = ResultFile(str(path), choose_table(name, str(path)))
        for file_name in names:
            file.write(Record(file_name, ImageReadError('bad "x",\n;y', "IMAGE_UNREADABLE"), stamp))
        file.close()
        return [fields["file"] for fields in file.records()]

    assert append(*NAMES) == NAMES
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        kept = append()
        assert kept == NAMES[: len(kept)]
        assert append("new.png") == [*kept, "new.png"]
        assert [row["error"] for row in read_table(path.read_bytes(), separator)] == ['bad "x",\n;y'] * (len(kept) + 1)


@pytest.mark.parametrize("first", [(), ("--excel", "comma"), ("--excel", "semicolon")], ids=str)
@pytest.mark.parametrize("second", [(), ("--excel", "comma"), ("--excel", "semicolon")], ids=str)
def test_table_goes_on_as_it_began(
    cli_server: FakeServer, scans: Path, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    """Whatever --resume is given: a table of two kinds would open nowhere."""
    assert main(["scans/b.png", "--csv", "r.csv", *first]) == 0
    before = Path("r.csv").read_bytes()

    assert main(["scans/b.png", "scans/c.jpeg", "--csv", "r.csv", "--resume", *second]) == 0

    data = Path("r.csv").read_bytes()
    separator = b";" if "semicolon" in first else b","
    assert data.startswith(before)
    assert data.startswith(MARK) is bool(first)
    assert len({line.count(separator) for line in data.splitlines()}) == 1
    assert [line.split(separator)[0] for line in data.splitlines()[1:]] == [b"scans/b.png", b"scans/c.jpeg"]


def test_table_that_excel_has_saved_goes_on(cli_server: FakeServer, scans: Path) -> None:
    """With its own line ends: nothing is cut off, judged again or put on another row."""
    command = ["scans/b.png", "scans/c.jpeg", "--csv", "r.csv", "--excel", "semicolon"]
    assert main(command) == 0
    saved = Path("r.csv").read_bytes().replace(b"\n", b"\r\n")
    Path("r.csv").write_bytes(saved)

    assert main([*command, "scans/a.JPG", "--resume"]) == 0

    assert len(cli_server.servicer.requests) == 3
    assert Path("r.csv").read_bytes().startswith(saved)
    files = [row["file"] for row in read_table(Path("r.csv").read_bytes(), ";")]
    assert files == ["scans/b.png", "scans/c.jpeg", "scans/a.JPG"]


def test_changed_file_is_taken_out_of_a_table_for_excel(cli_server: FakeServer, scans: Path) -> None:
    """The rewritten table is one for Excel, too."""
    command = ["scans/b.png", "scans/c.jpeg", "--csv", "r.csv", "--excel", "semicolon"]
    assert main(command) == 0
    (scans / "b.png").write_bytes(b"healthy")

    assert main([*command, "--resume"]) == 0

    rows = read_table(Path("r.csv").read_bytes(), ";")
    assert [(row["file"], row["label"]) for row in rows] == [("scans/c.jpeg", "stroke"), ("scans/b.png", "normal")]


def test_watch_writes_a_table_for_excel(server: FakeServer, hot: Path) -> None:
    """And finds in it what it has judged when it starts again."""
    table = hot.parent / "r.csv"
    (hot / "Schädel.png").write_bytes(make_png())
    for _ in range(2):
        with watching_here(hot, server.target, "--csv", str(table), "--excel", "semicolon") as watch:
            wait_for(lambda: table.exists() and table.read_bytes().count(b"\n") == 2)
            watch.let_pass()
            assert watch.stop() == 0

    assert len(server.servicer.requests) == 1
    (row,) = read_table(table.read_bytes(), ";")
    assert row["file"] == os.path.join(str(hot), "Schädel.png")


@pytest.mark.parametrize("junk", [b"hello", MARK + b"hello\n", b"file;size\na;3\n", MARK + b"file,size\n"])
def test_foreign_table_is_left_alone(
    junk: bytes, scans: Path, cli_server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of another program is not gone on with."""
    Path("r.csv").write_bytes(junk)

    assert main(["scans", "--csv", "r.csv", "--excel", "comma", "--resume"]) == 2

    assert "r.csv: line 1 is not the header of this program's tables" in capsys.readouterr().err
    assert Path("r.csv").read_bytes() == junk


def test_table_without_a_name_is_plain() -> None:
    """Nothing changes for those who do not ask for Excel."""
    assert type(choose_table(None)) is type(choose_table(None, "/no/such/file")) is CsvFormat
    assert type(choose_table("comma")) is ExcelFormat
