"""Lines of the log: as text or JSON, without what errors say, and of one kind not more than a disk can bear."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from pathlib import Path

import pytest

from server.core import outcomes
from server.core.outcomes import Caller, LogLines, Outcome
from server.process import log_budget
from server.process.console import complain
from server.process.log import count_suppressed_lines
from server.process.log_budget import LINES, MOST_KINDS, LogBudget
from server.process.log_lines import Entry, JsonFormatter, LineFormatter
from tests.test_server_log import logging_to, read

logger = logging.getLogger("server.test")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "Jane Doe 1950"


def make_record(message: object, level: int = logging.INFO, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error is not None else None
    return logging.LogRecord("server.test", level, "", 1, message, (), info)


def raise_chain() -> BaseException:
    try:
        try:
            raise KeyError(SECRET)
        except KeyError:
            raise ValueError(f"/scans/{SECRET}.png") from None
    except ValueError as error:
        return error


def test_fields_of_an_entry_stand_in_its_line() -> None:
    """Numbers to a tenth; text that could be taken for more in quotes."""
    line = LineFormatter().format(
        make_record(Entry("Predict", {"id": 'x code=OK" reason=NONE', "code": "INTERNAL", "ms": 4.96}))
    )

    assert line.endswith(r'INFO server.test Predict id="x code=OK\" reason=NONE" code=INTERNAL ms=5.0')


def test_json_line_is_one_object_with_the_fields_of_the_outcome() -> None:
    """Time with its zone, and nothing to be taken apart again."""
    record = make_record(Entry("Predict", {"id": 'x code=OK"\n{"code": "OK"}\u2028', "code": "INTERNAL", "ms": 4.96}))
    line = JsonFormatter().format(record)

    found = json.loads(line)
    assert line.isascii()
    assert line.isprintable()
    assert datetime.fromisoformat(found.pop("time")).utcoffset() is not None
    assert found == {
        "level": "INFO",
        "logger": "server.test",
        "message": "Predict",
        "id": 'x code=OK"\n{"code": "OK"}\u2028',
        "code": "INTERNAL",
        "ms": 5.0,
    }


def test_json_log_holds_nothing_but_objects(tmp_path: Path) -> None:
    """Tracebacks, prints of libraries, complaints and what the log says of itself as well."""
    with (tmp_path / "log").open("wb") as opened, logging_to(opened.fileno(), "info", "json"):
        logger.info("a number: %d", 7)
        logger.error("failed id=%s", "7", exc_info=raise_chain())
        logger.info("%s %s", "one")
        print("a print", file=sys.stderr)
        complain("server: error: a complaint")

        found = [json.loads(line) for line in read(tmp_path / "log")]

    assert [line["message"] for line in found[:2]] == ["a number: 7", "failed id=7"]
    assert found[1]["error"].endswith("builtins.ValueError")
    assert "TypeError in a log line" in found[2]["message"]
    assert found[3]["message"] == "a print"
    assert found[4]["message"] == "server: error: a complaint"
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(line) for line in found))


@pytest.mark.parametrize("kind", [LineFormatter, JsonFormatter])
def test_traceback_shows_places_and_classes_and_no_texts(kind: type[LineFormatter] | type[JsonFormatter]) -> None:
    """What an error says may be what a caller has sent; --log-level debug asks for it."""
    record = make_record("failed", logging.ERROR, raise_chain())
    hidden, shown = kind().format(record), kind(shows_texts=True).format(record)

    assert SECRET in shown
    assert SECRET not in hidden
    assert "in raise_chain" in hidden
    assert "builtins.ValueError" in hidden


def test_error_that_ends_the_program_says_what_it_says(tmp_path: Path) -> None:
    """It comes of no caller, and whoever runs the server has nothing else to go by."""
    with (tmp_path / "log").open("wb") as opened, logging_to(opened.fileno()):
        error = OSError("nowhere to go")
        sys.excepthook(OSError, error, None)

        assert "nowhere to go" in "".join(read(tmp_path / "log"))


def test_line_of_an_outcome_has_what_came_of_the_call(caplog: pytest.LogCaptureFixture) -> None:
    """Who, what, why, how long, and the caller's trace."""
    outcome = Outcome(
        method="Predict",
        request_id="7",
        caller=Caller("ipv4:127.0.0.1:1", "ward 3"),
        code="INVALID_ARGUMENT",
        reason="IMAGE_EMPTY",
        started=0.0,
        is_call=True,
        is_image=True,
        trace=TRACE,
    )
    with caplog.at_level(logging.INFO):
        LogLines().note(outcome)

    line = LineFormatter().format(caplog.records[0])
    assert (
        f'Predict id=7 code=INVALID_ARGUMENT reason=IMAGE_EMPTY client="ward 3" ms={outcome.milliseconds:.1f}' in line
    )
    assert line.endswith(f"trace={TRACE}")


def test_outcome_whose_line_is_not_wanted_costs_none(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``--log-level warning`` an image pays for no line, and there is none."""
    monkeypatch.delattr(outcomes, "Entry")

    with caplog.at_level(logging.WARNING):
        LogLines().note(Outcome(method="Predict", request_id="7", caller=Caller("unix:"), started=0.0, is_call=True))

    assert not caplog.records


class Clock:
    """Time that stands still until it is told otherwise."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(log_budget, "time", clock)
    monkeypatch.setattr(LogBudget, "_wait", lambda self: None)
    return clock


def test_flood_of_one_kind_is_counted_instead_of_written(clock: Clock) -> None:
    """Other kinds are written all the while, and the next second begins anew."""
    told: list[str] = []
    budget = LogBudget(told.append)
    refused = make_record(Entry("Predict", {"id": "7"}, "Predict code=RESOURCE_EXHAUSTED reason=QUEUE_FULL"))

    assert [budget.admits(refused) for _ in range(1000)].count(True) == LINES
    assert budget.admits(make_record("a fault", logging.ERROR))
    assert all(budget.admits(make_record(Entry("Predict", {"id": "8"}))) for _ in range(1000))
    clock.now += 1
    assert budget.admits(refused)

    assert told == ["980 more lines such as: Predict code=RESOURCE_EXHAUSTED reason=QUEUE_FULL"]
    assert budget.suppressed == 980


def test_kinds_without_end_share_one_budget(clock: Clock) -> None:
    """Memory does not grow with what somebody makes up."""
    budget = LogBudget(lambda text: None)
    written = [budget.admits(make_record(f"warning {number}", logging.WARNING)) for number in range(MOST_KINDS + 1000)]

    assert written.count(True) == MOST_KINDS + LINES


def test_last_lines_of_a_flood_are_told_though_nothing_follows(tmp_path: Path) -> None:
    """At the latest by the log's end."""
    with (tmp_path / "log").open("wb") as opened, logging_to(opened.fileno()):
        for _ in range(LINES + 30):
            logger.warning("it is late")
        suppressed = count_suppressed_lines()
        lines = read(tmp_path / "log")

    told = [int(line.split(" more lines")[0].rsplit(" ", 1)[1]) for line in lines if "more lines such as" in line]
    assert sum(told) == suppressed
    assert len([line for line in lines if line.endswith("WARNING server.test it is late")]) == LINES + 30 - suppressed
