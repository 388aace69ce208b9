"""The worklist over HTTP: for those who may see it, as old as it is, and a clear word where there is none."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server.config import ServerConfig
from server.web.pages.worklist import describe_age
from server.web.worklist import file
from server.web.worklist.content import COLUMNS, MOST_STUDIES, MOST_TEXT, Worklist, parse_worklist
from server.web.worklist.file import MOST_BYTES
from tests.access import token_of, write_tokens
from tests.fakes import wait_until
from tests.scraping import find_free_port, scrape
from tests.web_calls import Answer, WebServer, serve_web

MARKUP = "<script>alert(1)</script>"
STUDY: dict[str, Any] = dict.fromkeys(COLUMNS) | {
    "urgency": "positive",
    "label": "stroke",
    "probability": 0.83,
    "threshold": 0.5,
    "accession_number": "ACC1",
    "patient_id": "MRN1",
    "study_date": "20261130",
    "study_time": "101500",
    "look_first_at": "series 2, image 6 (slice 6 of 6 from the feet)",
    "model": "stroke-cnn 3",
    "judged_at": "2026-11-30T04:05:06+00:00",
    "study_instance_uid": "1.2.1",
}
NONE = STUDY | {"urgency": "not-analysed", "label": None, "probability": None, "reasons": "[NO_HEAD] no head"}


def describe(*studies: dict[str, Any], age: float = 1, **changes: Any) -> dict[str, Any]:
    """What the gateway writes."""
    written = datetime.now(UTC) - timedelta(seconds=age)
    head = {"format": "strokeserve-worklist", "version": 1, "written_at": written.isoformat(), "hours": 24}
    return head | {"waiting": 0, "left_out": 0, "studies": list(studies)} | changes


def put(path: Path, content: Any) -> None:
    """Puts a file in its place, as the gateway does."""
    part = path.with_suffix(".part")
    part.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    os.replace(part, path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worklist") / "worklist.json"


@pytest.fixture(scope="module")
def metrics() -> int:
    """The port of the server's metrics."""
    return find_free_port()


@pytest.fixture(scope="module")
def server(tiny_models: Path, place: Path, metrics: int) -> Iterator[WebServer]:
    with serve_web(tiny_models, place.parent, worklist=place, metrics_port=metrics) as made:
        yield made


@pytest.fixture(autouse=True)
def usual(place: Path) -> None:
    put(place, describe(STUDY, NONE))


def test_page_has_the_most_urgent_first(server: WebServer) -> None:
    """A heading and a table for each urgency; a list that the gateway has just written is not said to be old."""
    answer = server.ask("GET", "/worklist")
    text = answer.body.decode()

    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert text.index("Positive (1)</h2>") < text.index("Not analysed (1)</h2>") < text.index("Below the threshold (0)")
    for shown in ("ACC1", "MRN1", "2026-11-30 10:15", "0.830", "slice 6 of 6", "stroke-cnn 3", "[NO_HEAD] no head"):
        assert shown in text
    assert "<strong>1 positive, 1 not analysed, 0 below the threshold</strong> in the last 24 hours" in text
    assert "Out of date" not in text
    assert "found no room" not in text
    assert "not judged yet" not in text


def test_page_is_whole_without_script_and_looks_again_by_a_header(server: WebServer) -> None:
    """Which a link turns off; nothing of it may be kept, framed, or come from elsewhere."""
    answer, still, rare = (
        server.ask("GET", f"/worklist{query}") for query in ("", "?refresh=off", "?refresh=60&id=ward")
    )

    assert (answer.headers["refresh"], still.headers.get("refresh"), rare.headers["refresh"]) == ("15", None, "60")
    assert 'href="?refresh=off"' in answer.body.decode()
    assert b"<script" not in answer.body
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy.endswith("; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("query", ["refresh=0", "refresh=1000", "refresh=x", "refresh=15&refresh=15", "every=15"])
def test_option_that_cannot_be_used_is_refused(server: WebServer, query: str) -> None:
    answer = server.ask("GET", f"/worklist?{query}")

    assert (answer.status, answer.headers["stroke-reason"]) == (400, "OPTION_INVALID")
    assert answer.headers["content-type"].startswith("text/html")


def test_what_an_archive_has_written_is_text(server: WebServer, place: Path) -> None:
    put(
        place,
        describe(
            dict.fromkeys(COLUMNS, MARKUP) | {"urgency": "rest", "probability": None, "threshold": None},
            STUDY | {"label": "{{LIST}}", "accession_number": None},
        ),
    )
    text = server.ask("GET", "/worklist").body.decode()

    assert MARKUP not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{LIST}}" in text
    assert '<th scope="row">none</th>' in text


def test_programs_get_it_as_json_and_csv(server: WebServer, place: Path) -> None:
    """The same studies in the same order; nothing of a cell is run by a spreadsheet."""
    put(place, describe(STUDY | {"patient_id": "=1+1"}, NONE, left_out=7, waiting=2))
    found = server.ask("GET", "/worklist.json")
    table = server.ask("GET", "/worklist.csv")
    rows = list(csv.DictReader(table.body.decode().splitlines()))

    assert found.json["studies"] == [STUDY | {"patient_id": "=1+1"}, NONE]
    assert found.json["counts"] == {"positive": 1, "not-analysed": 1, "rest": 0}
    assert [found.json[name] for name in ("is_old", "waiting", "left_out", "hours")] == [False, 2, 7, 24]
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert tuple(rows[0]) == COLUMNS
    assert [row["patient_id"] for row in rows] == ["'=1+1", "MRN1"]
    assert [row["probability"] for row in rows] == ["0.83", ""]
    assert found.headers["last-modified"] == table.headers["last-modified"]
    text = server.ask("GET", "/worklist").body.decode()
    assert "7 more, less urgent than these" in text
    assert "2 more came and are not judged yet." in text


@pytest.mark.parametrize(
    ("age", "text"), [(840, "was written 14 minutes ago"), (-7200, "was written in the future, by the clock")]
)
def test_gateway_that_has_stopped_is_seen(server: WebServer, place: Path, age: float, text: str) -> None:
    """The list is shown, with its age before all else; also one of a clock that is wrong."""
    put(place, describe(STUDY, age=age))
    page = server.ask("GET", "/worklist").body.decode()

    assert page.index("Out of date.") < page.index("ACC1")
    assert text in page
    assert server.ask("GET", "/worklist.json").json["is_old"] is True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "just now"),
        (1, "1 second ago"),
        (119, "119 seconds ago"),
        (120, "2 minutes ago"),
        (7200, "2 hours ago"),
        (86_400 * 3, "3 days ago"),
    ],
)
def test_age_is_said_in_the_largest_whole_unit(seconds: float, text: str) -> None:
    assert describe_age(seconds) == text


BAD: dict[str, Any] = {
    "torn": json.dumps(describe(STUDY)).encode()[:-20],
    "empty": b"",
    "no JSON": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "a list": [],
    "another format": describe(format="other"),
    "another version": describe(version=2),
    "no time": describe(written_at="yesterday"),
    "time of long ago": describe(written_at="0001-01-01T00:00:00+14:00"),
    "time that is a number": describe(written_at=1),
    "hours that are none": describe(hours="24"),
    "hours without end": json.dumps(describe(hours=float("inf"))).encode(),
    "count that is none": describe(left_out=True),
    "count below 0": describe(waiting=-1),
    "studies that are none": describe(studies={"a": 1}),
    "study that is none": describe(studies=[1]),
    "unknown urgency": describe(STUDY | {"urgency": "high"}),
    "urgency that is a list": describe(STUDY | {"urgency": ["rest"]}),
    "probability above 1": describe(STUDY | {"probability": 1.5}),
    "probability that is none": json.dumps(describe(STUDY | {"probability": float("nan")})).encode(),
    "text that is a number": describe(STUDY | {"label": 3}),
    "long text": describe(STUDY | {"label": "x" * (MOST_TEXT + 1)}),
    "too many studies": describe(*[NONE] * (MOST_STUDIES + 1)),
    "too large": b" " * (MOST_BYTES + 1),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_file_that_is_damaged_gives_a_page_that_says_so(
    server: WebServer, place: Path, content: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Not the list of before; the log says it once. The next good file is shown."""
    put(place, content)
    answers = [server.ask("GET", "/worklist") for _ in range(2)]

    assert {(answer.status, answer.headers["stroke-reason"]) for answer in answers} == {(503, "WORKLIST_DAMAGED")}
    assert b"is damaged, too large" in answers[0].body
    assert answers[0].headers["refresh"] == "15"
    assert b"ACC1" not in answers[0].body
    assert server.ask("GET", "/worklist.json").outcome == (503, "WORKLIST_DAMAGED")
    assert len([text for text in caplog.messages if "no worklist is shown" in text]) == 1

    put(place, describe(STUDY))
    assert server.ask("GET", "/worklist").status == 200


@pytest.mark.parametrize("kind", ["nothing", "folder", "pipe"])
def test_file_that_is_none_gives_a_page_that_says_so(server: WebServer, place: Path, kind: str) -> None:
    """Neither a folder nor a pipe holds anybody up."""
    place.unlink()
    if kind != "nothing":
        (place.mkdir if kind == "folder" else lambda: os.mkfifo(place))()
    try:
        answer = server.ask("GET", "/worklist")
    finally:
        if kind != "nothing":
            (place.rmdir if kind == "folder" else place.unlink)()

    assert (answer.status, answer.headers["stroke-reason"]) == (503, "WORKLIST_MISSING")
    assert str(place.parent).encode() not in answer.body


def test_file_is_parsed_once_for_each_that_is_written(
    server: WebServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []

    def parse(data: bytes) -> Worklist:
        parsed.append(data)
        return parse_worklist(data)

    monkeypatch.setattr(file, "parse_worklist", parse)
    put(place, describe(STUDY))
    for path in ("/worklist", "/worklist.json", "/worklist.csv", "/worklist"):
        assert server.ask("GET", path).status == 200

    assert len(parsed) == 1


def test_names_of_others_that_point_here_get_nothing(server: WebServer) -> None:
    """Without tokens and TLS a page of somebody else could read it in its reader's browser."""
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "", "[::1"):
        assert server.ask("GET", "/worklist.json", host=host).outcome == (403, "CROSS_SITE")
        assert server.ask("GET", "/worklist", host=host).status == 403
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert server.ask("GET", "/worklist.json", host=host).status == 200


def test_server_without_a_worklist_says_so(tiny_models: Path, tmp_path: Path) -> None:
    with serve_web(tiny_models, tmp_path) as server:
        assert server.ask("GET", "/worklist.json").outcome == (501, "WORKLIST_DISABLED")
        assert b"--worklist" in server.ask("GET", "/worklist").body


@pytest.fixture(scope="module")
def guarded(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory, place: Path) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("guarded")
    tokens = write_tokens(folder / "tokens", ward="", board="roles=worklist", reader="roles=read")
    with serve_web(tiny_models, folder, tokens=tokens, worklist=place) as server:
        yield server


def ask_as(server: WebServer, name: str, path: str = "/worklist") -> Answer:
    return server.ask("GET", path, authorization=f"Bearer {token_of(name)}", host="box-7:8000")


def test_it_needs_a_role_of_its_own(guarded: WebServer) -> None:
    """Neither those who judge nor those who read of models see patients' identifiers."""
    assert ask_as(guarded, "board").status == 200
    assert ask_as(guarded, "board", "/models").outcome == (403, "ROLE_MISSING")
    for name in ("ward", "reader"):
        refused = ask_as(guarded, name)
        assert (refused.status, refused.headers["stroke-reason"]) == (403, "ROLE_MISSING")
        assert b"ACC1" not in refused.body
        assert ask_as(guarded, name, "/worklist.csv").outcome == (403, "ROLE_MISSING")


def test_page_asks_for_a_token(guarded: WebServer) -> None:
    """By the one script that its policy allows; nothing of the list is there before."""
    answer = guarded.ask("GET", "/worklist")

    assert (answer.status, answer.headers["stroke-reason"]) == (401, "TOKEN_MISSING")
    assert answer.headers["www-authenticate"] == 'Bearer realm="stroke"'
    assert b'type="password"' in answer.body
    assert b"ACC1" not in answer.body
    assert "script-src 'sha256-" in answer.headers["content-security-policy"]
    assert "refresh" not in answer.headers


def test_it_is_counted_and_logged_as_other_calls(
    server: WebServer, metrics: int, caplog: pytest.LogCaptureFixture
) -> None:
    """By its path, without anything of the list."""
    caplog.set_level("INFO")
    server.ask("GET", "/worklist?id=board-1")

    assert any("board-1" in text for text in caplog.messages if "GET /worklist" in text)
    assert "ACC1" not in caplog.text
    wait_until(lambda: scrape(metrics).get("stroke_requests_total", method="GET /worklist", code="OK") >= 1)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"http": ""}, "needs --http"),
        ({"http": "0.0.0.0:8000", "insecure": True}, "needs --tokens or --tls-client-ca"),
        ({"http": "127.0.0.1.evil.example:8000"}, "needs --tokens"),
        ({"http": "10.0.0.1:8000", "insecure": True, "tokens": Path("tokens")}, None),
        ({"http": "localhost:8000"}, None),
        ({"http": "[::1]:8000"}, None),
    ],
)
def test_others_see_it_only_where_callers_say_who_they_are(settings: dict[str, Any], why: str | None) -> None:
    if why is None:
        assert ServerConfig(worklist=Path("worklist.json"), **settings).worklist is not None
    else:
        with pytest.raises(ValueError, match=f"worklist {why}"):
            ServerConfig(worklist=Path("worklist.json"), **settings)
