"""The worklist: the most urgent study first, whatever a queue holds; and the page that shows it."""

from __future__ import annotations

import csv
import http.client
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.results.settings import ResultSettings
from gateway.worklist.order import COLUMNS, read_worklist
from gateway.worklist.page import WorklistServer, find_address
from tests.results_of_studies import NEGATIVE, NOT_ANALYSED, make

START = datetime(2026, 11, 30, 8, tzinfo=UTC)
MARKUP = "<script>alert(1)</script>"


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """A queue with an answer of each kind, as they were made."""
    folder = tmp_path / "queue"
    (folder / "results").mkdir(parents=True)
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
        (["queue"], "--csv or --json or --http must be given, one of them"),
        (["queue", "--csv", "--json"], "--csv or --json or --http must be given, one of them"),
        (["queue", "--http", "0.0.0.0:80"], "--http must be an address of this machine alone"),
        (["queue", "--http", "8090"], "--http must be an address and a port"),
        (["queue", "--http", "a@127.0.0.1:80"], "--http must be an address and a port"),
        (["queue", "--http", "127.0.0.1:99999"], "--http must be an address and a port"),
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
def page(queue: Path) -> Iterator[WorklistServer]:
    """The page of the queue, at any port."""
    with WorklistServer(queue, find_address("127.0.0.1:0"), 15) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: WorklistServer, path: str = "/", host: str = "127.0.0.1") -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=30)
    try:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def test_page_shows_the_worklist_as_it_is_now(page: WorklistServer, queue: Path) -> None:
    _, _, before = get(page)
    assert "1 positive, 1 not analysed, 1 below the threshold" in before
    assert before.index(">Positive<") < before.index(">Not analysed<") < before.index(">Below the threshold<")

    add(queue, "more", read(queue, "positive"), study_instance_uid="1.9")
    _, _, after = get(page)
    assert "2 positive, 1 not analysed" in after


def test_page_runs_nothing_of_what_an_archive_has_written(page: WorklistServer, queue: Path) -> None:
    """It is text; and the policy would not let it run, nor ask anybody else."""
    add(queue, "positive", read(queue, "positive"), patient_id=MARKUP, label=MARKUP, accession_number="{{ROWS}}")
    status, headers, text = get(page)

    assert status == 200
    assert MARKUP not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ROWS}}" in text
    assert text.count("<script>") == 1
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; connect-src 'self'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert headers["cache-control"] == "no-store"


def test_page_is_for_this_machine(page: WorklistServer) -> None:
    """Another site's name that points here gets nothing; there is one page, which has no versions in it."""
    assert get(page, host="localhost:8090")[0] == 200
    status, headers, text = get(page, host="evil.example")
    assert (status, headers["server"]) == (421, "StrokeServe")
    assert "ACC1" not in text
    assert get(page, "/../results")[0] == 404


def test_page_without_a_queue_says_so(page: WorklistServer, queue: Path) -> None:
    (queue / "results").rename(queue / "elsewhere")

    assert get(page)[0] == 503
