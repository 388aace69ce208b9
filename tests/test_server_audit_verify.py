"""Verify finds every kind of tampering and says where; what a crash leaves is told apart from it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from server.audit.chain import Position, seal
from server.audit.family import Rotated, beside, list_rotated, name_rotated
from server.audit.verify import verify
from tests.audit_logs import alter, find_faults, judged, list_events, list_faults, list_files, open_log, write_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """begin, five images, stop: lines 1 to 7 in one file."""
    write_log(tmp_path / "audit")
    return tmp_path / "audit"


def forge(lines: list[bytes], index: int) -> None:
    """Changes a line by somebody who knows how hashes are made, but leaves the lines behind it."""
    fields = json.loads(lines[index])
    position = Position(fields.pop("seq") - 1, fields.pop("prev"))
    del fields["hash"]
    lines[index] = seal(position, fields | {"label": "normal"})[0]


def test_log_that_nobody_touched_is_intact(log: Path) -> None:
    """Lines, images, files and state are counted."""
    report = verify(log)

    assert report.faults == []
    assert (report.lines, report.images, report.files, report.first_seq, report.last_seq) == (7, 5, 1, 1, 7)
    assert (report.state, report.unsecured, report.torn_bytes, report.recoveries) == ("stopped", 0, 0, 0)


def test_line_can_be_checked_by_hand(log: Path) -> None:
    """Its hash is the SHA-256 of what stands before it, the hash of the line before included."""
    first, second = log.read_text().splitlines()[:2]
    content, _, rest = second.partition(',"hash":"')

    assert hashlib.sha256(content.encode()).hexdigest() + '"}' == rest
    assert json.loads(second)["prev"] == json.loads(first)["hash"]


@pytest.mark.parametrize(
    ("change", "place", "text"),
    [
        (lambda lines: lines.pop(2), "audit:3", "line 3 is missing before line 4"),
        (lambda lines: lines.__delitem__(slice(2, 4)), "audit:3", "lines 3 to 4 are missing before line 5"),
        (lambda lines: lines.pop(0), "audit:1", "lines 1 to 1 are missing"),
        (lambda lines: lines.insert(3, lines.pop(2)), "audit:3", "line 3 is missing before line 4"),
        (lambda lines: lines.insert(4, lines[2]), "audit:5", "line 3 stands behind line 4"),
        (lambda lines: lines.insert(3, b"{}\n"), "audit:4", "it is no line of an audit log"),
        (lambda lines: lines.insert(3, b"x" * 70_000 + b"\n"), "audit:4", "it is no line of an audit log"),
        (lambda lines: lines.insert(3, b'{"seq":[' * 5000 + b"\n"), "audit:4", "it is no line of an audit log"),
        (
            lambda lines: lines.__setitem__(2, lines[2].replace(b'"stroke"', b'"normal"')),
            "audit:3",
            "content of line 3",
        ),
        (lambda lines: lines.__setitem__(2, lines[2].replace(b'"OK"', b'"Ok"')), "audit:3", "content of line 3"),
        (lambda lines: forge(lines, 2), "audit:4", "line 4 does not belong to the line before it"),
        (lambda lines: lines.pop(), "audit:6", "1 lines are missing at the end: the head tells of line 7"),
        (lambda lines: lines.__delitem__(slice(3, 7)), "audit:3", "4 lines are missing at the end"),
        (lambda lines: forge(lines, 6), "audit:7", "line 7 is not the one that the head tells of"),
        (lambda lines: lines.clear(), "audit:0", "there is no line"),
    ],
)
def test_tampering_is_found_where_it_is(
    log: Path, change: Callable[[list[bytes]], object], place: str, text: str
) -> None:
    """Removed, moved, copied, put in, changed, forged, cut off."""
    alter(log, change)

    fault = find_faults(log)[0]

    assert fault.startswith(f"{place}: ")
    assert text in fault


def test_end_that_is_rewritten_with_its_hashes_does_not_fit_the_head(log: Path) -> None:
    """Also where there are as many lines as before."""

    def rewrite(lines: list[bytes]) -> None:
        forge(lines, 2)
        for index in range(3, 7):
            fields, before = json.loads(lines[index]), json.loads(lines[index - 1])
            said = {name: value for name, value in fields.items() if name not in ("seq", "prev", "hash")}
            lines[index] = seal(Position(before["seq"], before["hash"]), said)[0]

    alter(log, rewrite)

    assert find_faults(log) == ["audit:7: line 7 is not the one that the head tells of"]


def test_whole_chain_that_is_rewritten_does_not_fit_a_head_kept_elsewhere(log: Path, tmp_path: Path) -> None:
    """Who may write all files can make another log; not one with the same hashes."""
    kept = verify(log)
    for file in tmp_path.iterdir():
        file.unlink()
    write_log(log, 7)

    assert find_faults(log) == []
    report = verify(log, Position(kept.last_seq, kept.last_hash))
    assert list_faults(report) == ["audit:9: line 7 is not the one that --head tells of"]
    assert "tells of line 99" in list_faults(verify(log, Position(99, "0" * 64)))[0]


def test_lines_of_another_log_do_not_fit(log: Path, tmp_path: Path) -> None:
    """Two logs of the same images, spliced."""
    write_log(tmp_path / "other")
    others = (tmp_path / "other").read_bytes().splitlines(keepends=True)

    alter(log, lambda lines: lines.__setitem__(slice(4, 7), others[4:7]))

    assert find_faults(log)[0].startswith("audit:5: line 5 does not belong to the line before it")


def test_head_of_another_log_or_none_is_found(log: Path, tmp_path: Path) -> None:
    """Without it nobody can say that the end is the end."""
    write_log(tmp_path / "other")
    shutil.copy(beside(tmp_path / "other", "head"), beside(log, "head"))
    assert find_faults(log) == ["audit:7: line 7 is not the one that the head tells of"]

    for text in ("", "{}", "[" * 4000):
        beside(log, "head").write_text(text)
        assert find_faults(log) == ["audit:7: its head is missing, or is none: lines may have been cut off here"]


@pytest.fixture
def rotated(tmp_path: Path) -> Path:
    """A log in several files."""
    write_log(tmp_path / "audit", 40, most_bytes=4096)
    return tmp_path / "audit"


def test_chain_goes_on_over_files(rotated: Path) -> None:
    """Each begins where the one before it ends, and none is larger than it may be."""
    report = verify(rotated)

    assert report.faults == []
    assert report.files == len(list_files(rotated)) > 4
    assert report.images == 40
    assert all(file.stat().st_size <= 4096 for file in list_files(rotated))


def test_file_that_is_rotated_while_it_is_read_is_read_once(rotated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server goes on meanwhile."""
    before = verify(rotated).lines

    def rotate(path: Path) -> list[Rotated]:
        path.rename(name_rotated(path, "20991231", 10**9))
        path.write_bytes(b"")
        return list_rotated(path)

    monkeypatch.setattr("server.audit.verify.list_rotated", rotate)

    report = verify(rotated)
    assert (report.faults, report.lines) == ([], before)


def test_missing_file_is_found(rotated: Path) -> None:
    """One in the middle, and the first."""
    first, second = list_files(rotated)[:2]
    second.unlink()
    (fault,) = find_faults(rotated)
    assert "are missing before line" in fault

    first.unlink()
    (fault,) = find_faults(rotated)
    assert fault.endswith("are missing, and none says that they were removed after their time")


def test_files_that_changed_their_names_are_found(rotated: Path) -> None:
    """Swapped, or one of another log put in its place."""
    first, second = list_files(rotated)[:2]
    first.rename(rotated.with_name("kept"))
    second.rename(first)
    rotated.with_name("kept").rename(second)

    assert len(find_faults(rotated)) >= 2


def test_file_that_ends_within_a_line_though_another_follows_is_found(rotated: Path) -> None:
    """Only the last one may."""
    first = list_files(rotated)[0]
    first.write_bytes(first.read_bytes()[:-10])

    faults = find_faults(rotated)

    assert faults[0].startswith(f"{first.name}:")
    assert "its last line has no end" in faults[0]


def test_what_a_kill_leaves_is_no_tampering(tmp_path: Path) -> None:
    """A torn line at the end, and lines that the head does not know yet."""
    path = tmp_path / "audit"
    with open_log(path) as log:
        log.note(judged())
    alter(path, lambda lines: lines.pop())  # the stop
    whole = path.read_bytes().splitlines(keepends=True)
    first = json.loads(whole[0])
    beside(path, "head").write_text(json.dumps({"seq": 1, "hash": first["hash"], "time": first["time"]}))
    path.write_bytes(b"".join(whole) + b'{"seq":3,"prev')

    report = verify(path)

    assert report.faults == []
    assert (report.state, report.torn_bytes, report.unsecured) == ("killed", 14, 1)


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, "\x1b[2J", -5, True, 10**400])
def test_fields_of_another_type_do_no_harm(log: Path, value: object) -> None:
    """Whoever can make hashes can put anything into a line; it is looked at, but not believed."""

    def put_in(lines: list[bytes]) -> None:
        position = Position(7, json.loads(lines[6])["hash"])
        for event in ("gap", "recover", "expire"):
            said = {"event": event, "lost": value, "secured_seq": value, "last_seq": value, "last_hash": value}
            line, position = seal(position, said)
            lines.append(line)

    alter(log, put_in)

    faults = find_faults(log)
    assert all(fault.isprintable() for fault in faults)
    assert verify(log).state == "killed"


def test_log_that_is_written_now_is_intact(tmp_path: Path) -> None:
    """Whatever of it is there."""
    with open_log(tmp_path / "audit"):
        assert verify(tmp_path / "audit").state == "running"
    assert verify(tmp_path / "audit").state == "stopped"
    assert list_events(tmp_path / "audit") == ["begin", "stop"]
