"""Files of results: what a crash may leave in them, and who may write them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from client._errors import ImageReadError
from client.cli.result_file import ResultFile
from client.cli.results import CsvFormat, FileStamp, JsonLinesFormat, Record, ResultFileError, ResultFormat

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
