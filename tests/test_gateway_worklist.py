"""The worklist: the most urgent study first, whatever a queue holds; and the file that the server shows."""

from __future__ import annotations

import csv
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.results.settings import ResultSettings
from gateway.worklist import publish
from gateway.worklist.order import COLUMNS, read_worklist
from gateway.worklist.publish import MOST_STUDIES, WorklistFile
from server.web.worklist import content
from server.web.worklist.content import Worklist, parse_worklist
from tests.results_of_studies import NEGATIVE, NOT_ANALYSED, make

START = datetime(2026, 11, 30, 8, tzinfo=UTC)


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """A queue with an answer of each kind, as they were made."""
    folder = tmp_path / "queue"
    for state in ("results", "receiving", "waiting"):
        (folder / state).mkdir(parents=True)
    (tmp_path / "study").mkdir()
    for name, fields in (("rest", NEGATIVE), ("none", NOT_ANALYSED), ("positive", {})):
        record = make(tmp_path / "study", ResultSettings(results=()), **fields).record
        add(folder, name, record | {"study_instance_uid": f"1.2.{name}"})
    return folder


def add(queue: Path, name: str, record: dict[str, Any], **changes: Any) -> None:
    """Puts an answer into a queue."""
    (queue / "results" / f"{name}.json").write_text(json.dumps(record | changes), "utf-8")


def read(queue: Path, name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((queue / "results" / f"{name}.json").read_text("utf-8"))
    return record


def print_csv(queue: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    assert main(["worklist", str(queue), "--csv"]) == 0
    return list(csv.DictReader(capsys.readouterr().out.splitlines()))


def test_positive_studies_come_first(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Then those that were not analysed, with their reasons, then the rest."""
    rows = print_csv(queue, capsys)

    assert tuple(rows[0]) == COLUMNS
    assert [row["urgency"] for row in rows] == ["positive", "not-analysed", "rest"]
    assert [row["probability"] for row in rows] == ["0.831234", "", "0.1"]
    assert rows[0]["look_first_at"].startswith("series 2, image 6 (slice 6 of 6")
    assert rows[1]["reasons"] == "[INSUFFICIENT_QUALITY] there are too few slices"
    assert {row["accession_number"] for row in rows} == {"ACC1"}


def test_among_them_the_most_probable_then_the_one_that_waits_longest(queue: Path) -> None:
    record = read(queue, "positive")
    for number, (probability, minutes) in enumerate(((0.9, 5), (0.7, 1), (0.9, 2))):
        judged = (START + timedelta(minutes=minutes)).isoformat()
        add(queue, f"p{number}", record, probability=probability, judged_at=judged, study_instance_uid=f"1.{number}")
    for number, minutes in enumerate((9, 3)):
        judged = (START + timedelta(minutes=minutes)).isoformat()
        add(queue, f"n{number}", read(queue, "none"), judged_at=judged, study_instance_uid=f"2.{number}")

    uids = [entry.cells["study_instance_uid"] for entry in read_worklist(queue).entries]
    assert uids == ["1.2", "1.0", "1.2.positive", "1.1", "1.2.none", "2.1", "2.0", "1.2.rest"]


def test_study_that_was_judged_again_is_there_once(queue: Path) -> None:
    """By its last answer."""
    add(queue, "again", read(queue, "rest"), judged_at=(START + timedelta(hours=1)).isoformat(), probability=0.2)

    (entry,) = (one for one in read_worklist(queue).entries if one.urgency == "rest")
    assert entry.probability == 0.2


def test_files_that_are_no_answers_are_named_and_passed_over(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Torn, of another kind, or with fields missing; what is being written is not looked at."""
    bad: tuple[Any, ...] = ("{", "[]", "{}", json.dumps(read(queue, "rest") | {"urgency": "high"}), "null", "7")
    for number, text in enumerate((*bad, json.dumps(read(queue, "rest") | {"reasons": [1]}))):
        (queue / "results" / f"bad{number}.json").write_text(text)
    (queue / "results" / "new.json.0.part").write_text("{")

    assert main(["worklist", str(queue), "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 3
    assert err.splitlines() == [f"gateway worklist: warning: bad{n}.json is no answer of a study" for n in range(7)]


def test_no_cell_is_a_formula(queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What an archive has written is opened by a spreadsheet; lines and quotes stay within their cell."""
    add(queue, "positive", read(queue, "positive"), patient_id='=cmd|"/c calc"!A1', accession_number="@SUM(1)")

    first = print_csv(queue, capsys)[0]
    assert first["patient_id"] == '\'=cmd|"/c calc"!A1'
    assert first["accession_number"] == "'@SUM(1)"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere", "--csv"], "nowhere: there is no queue of the gateway here"),
        (["queue"], "--csv or --json must be given, one of them"),
        (["queue", "--csv", "--json"], "--csv or --json must be given, one of them"),
    ],
)
def test_what_cannot_be_shown_is_a_usage_error(
    queue: Path, arguments: list[str], why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(queue.parent)
    with pytest.raises(SystemExit) as ended:
        main(["worklist", *arguments])

    assert ended.value.code == 2
    assert why in capsys.readouterr().err


@pytest.fixture
def file(queue: Path) -> WorklistFile:
    """The worklist of the queue, as listen keeps it."""
    return WorklistFile(queue, queue / "worklist.json", 24)


def show(queue: Path) -> Worklist:
    """The file as the server reads it."""
    return parse_worklist((queue / "worklist.json").read_bytes())


def test_server_reads_what_the_gateway_writes(queue: Path, file: WorklistFile) -> None:
    """The same columns, studies in the same order, texts as they are, and what is not known is null."""
    file.update()
    found = show(queue)

    assert content.COLUMNS == COLUMNS
    assert [study["urgency"] for study in found.studies] == ["positive", "not-analysed", "rest"]
    assert found.count() == {"positive": 1, "not-analysed": 1, "rest": 1}
    assert (found.hours, found.waiting, found.left_out) == (24, 0, 0)
    assert abs(found.find_age(datetime.now(UTC))) < 60
    assert [study["probability"] for study in found.studies] == [0.831234, None, 0.1]
    assert found.studies[0]["accession_number"] == "ACC1"
    assert found.studies[1]["label"] is None


def test_file_is_written_when_a_study_has_come_and_once_a_minute(
    queue: Path, file: WorklistFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole each time: another file in its place, which its group may read."""
    path = queue / "worklist.json"
    clock = [time.monotonic()]
    monkeypatch.setattr(publish.time, "monotonic", lambda: clock[0])

    def find_file() -> int:
        file.update()
        return path.stat().st_ino

    first = os.open(path, os.O_RDONLY) if find_file() else -1  # held open, so that its number is not given again
    try:
        same = find_file()
        add(queue, "more", read(queue, "positive"), study_instance_uid="1.9")
        os.utime(queue / "results", ns=(0, time.time_ns() + 10**9))
        more = find_file()
        clock[0] += 61
        minute = os.open(path, os.O_RDONLY)
        later = find_file()
        os.close(minute)
    finally:
        os.close(first)
    assert same != more != later
    assert len(show(queue).studies) == 4
    assert path.stat().st_mode & 0o777 == 0o640


def test_large_queue_is_not_read_all_the_time(queue: Path, file: WorklistFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a second is done every 20 seconds, whatever comes meanwhile."""
    clock = [time.monotonic()]

    def read_slowly(queue: Path, since: float) -> Any:
        clock[0] += 1
        return read_worklist(queue, since)

    monkeypatch.setattr(publish.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(publish, "read_worklist", read_slowly)
    found = []
    for step in range(22):
        add(queue, f"more{step}", read(queue, "positive"), study_instance_uid=f"1.9.{step}")
        os.utime(queue / "results", ns=(0, time.time_ns() + step * 10**9))
        file.update()
        found.append(len(show(queue).studies))
        clock[0] += 1

    assert found == [4] * 19 + [23] * 3


def test_studies_that_are_not_judged_yet_are_counted(
    queue: Path, file: WorklistFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that arrive and those that wait: a server that is away must not look like a day without studies."""
    clock = [time.monotonic()]
    monkeypatch.setattr(publish.time, "monotonic", lambda: clock[0])
    file.update()
    for name in ("receiving/a", "waiting/b-1", "waiting/c-2", "waiting/d-3.part"):
        (queue / name).mkdir()
    for state in ("receiving", "waiting"):
        os.utime(queue / state, ns=(0, time.time_ns() + 10**9))
    clock[0] += 1
    file.update()

    assert show(queue).waiting == 3


def test_studies_leave_the_list_when_their_hours_are_over(queue: Path) -> None:
    os.utime(queue / "results" / "positive.json", (0, time.time() - 7 * 3600))
    WorklistFile(queue, queue / "worklist.json", 6).update()

    assert show(queue).count() == {"positive": 0, "not-analysed": 1, "rest": 1}


def test_most_urgent_studies_stay_where_there_are_too_many(queue: Path, file: WorklistFile) -> None:
    """And texts of any length: the server reads what comes of it."""
    record = read(queue, "rest")
    for number in range(MOST_STUDIES):
        add(
            queue, f"r{number}", record, study_instance_uid=f"3.{number}", patient_id="\u30c6" * 10_000, label="L" * 500
        )
    file.update()
    found = show(queue)

    assert [study["urgency"] for study in found.studies[:3]] == ["positive", "not-analysed", "rest"]
    assert len(found.studies) + found.left_out == MOST_STUDIES + 3
    assert found.studies[-1]["label"].endswith("...")


def test_file_that_cannot_be_written_is_told_and_tried_again(
    queue: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute later: the gateway goes on meanwhile."""
    path = tmp_path / "list.json"
    path.mkdir()
    file = WorklistFile(queue, path, 24)
    clock = [time.monotonic()]
    monkeypatch.setattr(publish.time, "monotonic", lambda: clock[0])
    file.update()
    file.update()
    assert caplog.messages == ["the worklist cannot be written: Is a directory"]

    path.rmdir()
    clock[0] += 61
    file.update()
    assert len(parse_worklist(path.read_bytes()).studies) == 3
