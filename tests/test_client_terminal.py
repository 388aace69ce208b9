"""What people see of the command line in a real terminal, at 80 and at 40 columns."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import grpc
import pytest

from client.cli.progress import Progress, format_duration, format_progress
from client.cli.terminal import Terminal, escape, measure_width
from tests.client_fakes import FakeServer, RefusalError, make_response, wait_for
from tests.command_lines import POSITIVE, list_drawn, open_session, render_screen

BOTH_WIDTHS = pytest.mark.parametrize("columns", [80, 40])
LONG = "patient-0017-follow-up-study/series-03-axial-0042.png"


@pytest.fixture
def study(cli_server: FakeServer, tmp_path: Path) -> Path:
    """A folder ``scans`` in the folder that is returned: short, long and wide names, and a bad file."""

    def judge(request):
        if request.image.startswith(b"bad"):
            raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", "The file is no image.")
        return make_response(request)

    cli_server.servicer.judge = judge
    for name, data in {"a.png": b"healthy", "bad.png": b"bad", LONG: POSITIVE, "頭部.png": POSITIVE}.items():
        (tmp_path / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scans" / name).write_bytes(data)
    return tmp_path


def test_columns_at_80(study: Path) -> None:
    """Aligned; positives have a star; long names lose their middle; the model is beside each result."""
    with open_session("-m", "scans", columns=80, cwd=study) as usage:
        pass
    with open_session("--recursive", "scans", columns=80, cwd=study) as session:
        pass

    assert usage.process.returncode == 2
    assert session.process.returncode == 1
    lines = render_screen(session.raw)
    assert lines[:4] == [
        "  scans/a.png                       normal  0.990  stroke-cnn 1, threshold 0.05",
        "scans/bad.png: error: The file is no image.",
        "* scans/頭部.png                    stroke  0.973  stroke-cnn 1, threshold 0.05",
        "* scans/patie…es-03-axial-0042.png  stroke  0.973  stroke-cnn 1, threshold 0.05",
    ]
    summary = " ".join(line.strip() for line in lines[4:])
    assert re.fullmatch(
        r"4 images: 2 positive \(stroke\), 1 normal, 1 failed; [\d.]+ images/s; "
        r"time in the server p50 21\.9 ms, p99 21\.9 ms; by stroke-cnn 1",
        summary,
    )


def test_columns_at_40(study: Path) -> None:
    """Too narrow for the model, which the summary names; nothing is wider than the terminal but errors."""
    with open_session("--recursive", "scans", columns=40, cwd=study) as session:
        pass

    lines = render_screen(session.raw)
    assert lines[:4] == [
        "  scans/a.png             normal  0.990",
        "scans/bad.png: error: The file is no image.",
        "* scans/頭部.png          stroke  0.973",
        "* scans/p…axial-0042.png  stroke  0.973",
    ]
    assert lines[-1].strip() == "by stroke-cnn 1"
    assert max(map(measure_width, (*lines[:1], *lines[2:]))) <= 39


@BOTH_WIDTHS
def test_progress_never_wraps(columns: int, cli_server: FakeServer, tmp_path: Path) -> None:
    """All that was ever drawn stays below the width, so nothing of it is left on the screen in the end."""
    cli_server.servicer.judge = lambda request: time.sleep(0.01) or make_response(request)
    for index in range(60):
        (tmp_path / f"{index:02}.png").write_bytes(POSITIVE)

    with open_session("--output", "results.jsonl", ".", columns=columns, cwd=tmp_path) as session:
        pass

    drawn = list_drawn(session.raw)
    assert len([line for line in drawn if re.search(r"\d+/60  .*/s  \d+ s left$", line)]) >= 3
    assert max(map(len, drawn)) < columns
    assert not [line for line in render_screen(session.raw) if " left" in line]


def test_progress_follows_a_resize(cli_server: FakeServer, tmp_path: Path) -> None:
    """What is drawn after the window became narrow fits the narrow window."""
    sent = []

    def judge(request):
        sent.append(request)
        if len(sent) == 20:
            wait_for(lambda: narrow)
        time.sleep(0.01)
        return make_response(request)

    cli_server.servicer.judge = judge
    narrow: list[bool] = []
    for index in range(60):
        (tmp_path / f"{index:02}.png").write_bytes(POSITIVE)

    with open_session("--output", "results.jsonl", ".", columns=80, cwd=tmp_path) as session:
        wait_for(lambda: len(sent) == 20)
        wait_for(lambda: (tmp_path / "results.jsonl").read_bytes().count(b"\n") == 19)
        session.resize(30)
        narrow.append(True)

    widths = list(map(len, list_drawn(session.raw)))
    first_narrow = next(index for index, width in enumerate(widths) if width < 30)
    assert min(widths[:first_narrow]) > 40
    assert max(widths[first_narrow:]) < 30


@BOTH_WIDTHS
def test_results_stay_whole_beside_the_progress(columns: int, cli_server: FakeServer, tmp_path: Path) -> None:
    """With stdout and stderr on one terminal, what stays are the results, in order, and the summary."""
    for index in range(20):
        (tmp_path / f"{index:02}.png").write_bytes(POSITIVE)

    with open_session(".", columns=columns, cwd=tmp_path) as session:
        pass

    lines = render_screen(session.raw)
    assert b"/20  " in session.raw
    assert [line.split()[:4] for line in lines[:20]] == [["*", f"./{i:02}.png", "stroke", "0.973"] for i in range(20)]
    assert lines[20].startswith("20 images: 20 positive (stroke)")


def test_colour_on_a_terminal(study: Path) -> None:
    """Positive results and the word error are in colour."""
    with open_session("--recursive", "scans", columns=80, cwd=study) as session:
        pass

    assert b"\x1b[1;31mstroke  0.973\x1b[0m" in session.raw
    assert b"scans/bad.png: \x1b[31merror\x1b[0m: The file" in session.raw
    assert b"normal  0.990  \x1b[2m" in session.raw


@pytest.mark.parametrize(
    ("environment", "has_progress"), [({"NO_COLOR": "1"}, True), ({"TERM": "dumb"}, False)], ids=["NO_COLOR", "dumb"]
)
def test_no_colour_where_it_is_not_wanted(environment: dict[str, str], has_progress: bool, study: Path) -> None:
    """Under NO_COLOR and on a dumb terminal the stars remain; the dumb one gets no progress bar, either."""
    with open_session("--recursive", "scans", columns=80, cwd=study, **environment) as session:
        pass

    assert re.search(rb"\x1b\[[0-9;]*m", session.raw) is None
    assert (b"\x1b" in session.raw) == has_progress
    assert "* scans/頭部.png                    stroke  0.973" in session.raw.decode()


def test_ctrl_c_ends_with_what_was_done(cli_server: FakeServer, tmp_path: Path) -> None:
    """Exit 130, the bar is gone, the results so far and the summary are there."""

    def judge(request):
        if request.image == b"hang":
            return cli_server.servicer.hang(request)
        return make_response(request)

    cli_server.servicer.judge = judge
    for index in range(8):
        (tmp_path / f"{index}.png").write_bytes(b"hang" if index == 5 else POSITIVE)

    with open_session(".", columns=80, cwd=tmp_path) as session:
        session.wait_for_text("./4.png")
        session.wait_for_text("5/8")
        session.interrupt()

    lines = render_screen(session.raw)
    assert session.process.returncode == 130
    assert [line[:9] for line in lines[:5]] == [f"* ./{i}.png" for i in range(5)]
    assert lines[5].startswith("8 images: 5 positive (stroke), 0 failed, 3 not judged;")
    assert lines[-1] == "error: interrupted"


def test_names_that_the_terminal_cannot_show(cli_server: FakeServer, tmp_path: Path) -> None:
    """An ASCII terminal gets three points for what is left out, and escapes for letters."""
    (tmp_path / ("é" + "x" * 60 + ".png")).write_bytes(POSITIVE)

    with open_session(".", columns=40, cwd=tmp_path, PYTHONIOENCODING="ascii") as session:
        pass

    assert render_screen(session.raw) == ["* ./\\xe9xxxx...xxxxxxxx.png  stroke  0.973"]


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_count_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says how far it is, how fast and how long; erasing removes it."""
    monkeypatch.setenv("TERM", "xterm")
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    stream = FakeTerminal()
    progress = Progress(40, Terminal(stream))
    clock[0] += 2

    progress.draw(10)
    progress.draw(10)
    progress.erase()
    progress.erase()

    assert stream.getvalue() == "\r\x1b[K[#######.......................] 10/40  5.0/s  6 s left\r\x1b[K"


def test_rate_is_that_of_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run does not count what was done before as fast work."""
    monkeypatch.setenv("TERM", "xterm")
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    stream = FakeTerminal()
    progress = Progress(1000, Terminal(stream), done=900)
    clock[0] += 2

    progress.draw(910)

    assert stream.getvalue().endswith("] 910/1000  5.0/s  18 s left")


@pytest.mark.parametrize(
    ("total", "stream", "term"),
    [(1, FakeTerminal(), "xterm"), (9, io.StringIO(), "xterm"), (9, FakeTerminal(), "dumb")],
)
def test_no_progress_where_nobody_needs_it(
    total: int, stream: io.StringIO, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image, a file or a dumb terminal get no progress bar."""
    monkeypatch.setenv("TERM", term)
    Progress(total, Terminal(stream)).draw(1)

    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (79, "[#######.......................] 12345/50000  61.7/s  11 min left"),
        (39, "12345/50000  61.7/s  11 min left"),
        (30, "12345/50000  11 min left"),
        (20, "[#.....] 12345/50000"),
        (12, "12345/50000"),
        (5, "12345"),
    ],
)
def test_progress_leaves_out_what_matters_least(columns: int, expected: str) -> None:
    """Where there is no room for all, the bar goes first, then the rate, then the time left."""
    assert format_progress(12345, 50000, 61.7, columns) == expected


def test_progress_before_the_first_result() -> None:
    """No rate, no time left, and no division by zero."""
    assert format_progress(0, 10, 0.0, 79) == "[..............................] 0/10  0.0/s"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (6000, "1 h 40 min"), (90000, "25 h 00 min")],
)
def test_durations_are_rounded_to_what_matters(seconds: float, expected: str) -> None:
    """Seconds, minutes, hours."""
    assert format_duration(seconds) == expected


def test_shortened_names_fit_exactly() -> None:
    """Whatever the width and the characters, the column is as wide as asked for."""
    terminal = Terminal(None)
    for text in ("a.png", LONG, "頭部CT画像" * 8 + ".png", "e\u0301" * 30):
        for width in range(1, 70):
            assert measure_width(terminal.shorten(text, width)) == width


def test_escape_keeps_what_is_printable() -> None:
    """Letters of all scripts pass; line separators, direction marks and undecodable bytes do not."""
    assert escape("Größe 頭 x.png") == "Größe 頭 x.png"
    assert escape("a\u2028b\u202ec\udcff\td") == "a\\u2028b\\u202ec\\udcff\\td"
