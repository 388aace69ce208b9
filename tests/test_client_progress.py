"""Progress and tables as they are drawn, on a terminal that is a string."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len

from client.cli.report import TableWriter
from client.cli.terminal import ProgressBar, Terminal, escape
from client.cli.watch.folder import format_duration
from tests.command_lines import list_drawn, render_screen

BOTH_WIDTHS = pytest.mark.parametrize("columns", [80, 40])
LONG = "patient-0017-follow-up-study/series-03-axial-0042.png"


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that stands still; a terminal that is 80 columns wide."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_progress_shows_count_rate_and_time_left(clock: list[float]) -> None:
    """The line says how far it is, how fast and how long; erasing removes it, once."""
    stream = FakeTerminal()
    progress = ProgressBar(40, Terminal(stream))

    progress.draw(1)
    clock[0] += 2
    progress.draw(11)
    progress.draw(12)  # too soon to be read
    assert [line.strip("━╸╺ ") for line in list_drawn(stream.getvalue().encode())] == [
        "1/40  -:--:-- left",
        "11/40 5.0/s 0:00:06 left",
    ]

    progress.erase()
    assert render_screen(stream.getvalue().encode()) == []
    shown = stream.getvalue()
    progress.erase()
    assert stream.getvalue() == shown


def test_progress_is_back_below_what_was_printed(clock: list[float]) -> None:
    """Even if that was printed the moment after it was drawn."""
    stream = FakeTerminal()
    terminal = Terminal(stream)
    progress = ProgressBar(40, terminal)

    for done in (1, 2, 3):
        progress.draw(done)
        progress.erase()
        terminal.print(f"result {done}")
        progress.draw(done)

    *results, last = render_screen(stream.getvalue().encode())
    assert results == ["result 1", "result 2", "result 3"]
    assert last.endswith("left")


def test_rate_is_that_of_this_run(clock: list[float]) -> None:
    """A resumed run does not count what was done before as fast work."""
    stream = FakeTerminal()
    progress = ProgressBar(1000, Terminal(stream), done=900)

    progress.draw(901)
    clock[0] += 2
    progress.draw(911)

    assert list_drawn(stream.getvalue().encode())[-1].endswith(" 911/1000 5.0/s 0:00:18 left")


@pytest.mark.parametrize(
    ("total", "stream", "term"),
    [(1, FakeTerminal(), "xterm"), (9, io.StringIO(), "xterm"), (9, FakeTerminal(), "dumb")],
)
def test_no_progress_where_nobody_needs_it(
    total: int, stream: io.StringIO, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image, a file or a dumb terminal get no progress bar."""
    monkeypatch.setenv("TERM", term)
    progress = ProgressBar(total, Terminal(stream))
    progress.draw(1)
    progress.erase()

    assert stream.getvalue() == ""


@pytest.mark.parametrize("columns", [79, 40, 39, 20, 5, 1])
def test_progress_stays_within_the_line(columns: int, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the width; the count is there as long as there is room for it."""
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = FakeTerminal()

    ProgressBar(50000, Terminal(stream), done=12345).draw(12345)

    (line,) = list_drawn(stream.getvalue().encode())
    assert cell_len(line) <= max(columns - 1, 1)
    assert ("12345/50000" in line) == (columns > 20)


@pytest.mark.parametrize("columns", [60, 30])
def test_table_becomes_blocks_where_it_does_not_fit(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells are never cut: a terminal that is too narrow gets a block of lines for each row."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = FakeTerminal()

    Terminal(stream).print_table(["name", "threshold"], [["頭-" * 8, "0.5"], ["b", "0.25"]], right=["threshold"])

    lines = render_screen(stream.getvalue().encode())
    if columns == 60:
        assert lines[0].split() == ["name", "threshold"]
        assert [cell_len(line.rstrip()) for line in lines] == [35, 35, 35]
    else:
        assert lines == [
            "name       " + "頭-" * 8,
            "threshold  0.5",
            "",
            "name       b",
            "threshold  0.25",
        ]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (6000, "1 h 40 min"), (90000, "25 h 00 min")],
)
def test_durations_are_rounded_to_what_matters(seconds: float, expected: str) -> None:
    """Seconds, minutes, hours."""
    assert format_duration(seconds) == expected


def test_shortened_names_fit_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the width and the characters, the column is as wide as asked for."""
    monkeypatch.setenv("TERM", "xterm")
    writer = TableWriter(Terminal(FakeTerminal()), [], lambda prediction: ("", ()))
    for text in ("a.png", LONG, "頭部CT画像" * 8 + ".png", "e\u0301" * 30):
        for width in range(1, 70):
            assert cell_len(writer._shorten(text, width)) == width


def test_escape_keeps_what_is_printable() -> None:
    """Letters of all scripts pass; line separators, direction marks and undecodable bytes do not."""
    assert escape("Größe 頭 x.png") == "Größe 頭 x.png"
    assert escape("a\u2028b\u202ec\udcff\td") == "a\\u2028b\\u202ec\\udcff\\td"
