"""What people see of the command line in a real terminal, at 80 and at 40 columns."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from rich.cells import cell_len

from tests.client_fakes import FakeServer, RefusalError, make_refusal_to_judge, make_response, wait_for
from tests.command_lines import POSITIVE, ROOT, list_drawn, open_session, render_screen, run_client

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
    """Aligned under headings; positives have a star; long names lose their middle; the threshold is said once."""
    with open_session("-m", "scans", columns=80, cwd=study) as usage:
        pass
    with open_session("--recursive", "scans", columns=80, cwd=study) as session:
        pass

    assert usage.process.returncode == 2
    assert session.process.returncode == 1
    lines = render_screen(session.raw)
    assert lines[:6] == [
        "stroke-cnn 1, threshold 0.05",
        "  file                                                        answer  P(stroke)",
        "  scans/a.png                                                 normal      0.010",
        "scans/bad.png: error: The file is no image.",
        "* scans/頭部.png                                              stroke      0.973",
        "* scans/patient-0017-…llow-up-study/series-03-axial-0042.png  stroke      0.973",
    ]
    summary = " ".join(line.strip() for line in lines[6:])
    assert re.fullmatch(
        r"4 images: 2 positive \(stroke\), 1 normal, 1 failed; [\d.]+ images/s; "
        r"time in the server p50 21\.9 ms, p99 21\.9 ms; by stroke-cnn 1",
        summary,
    )


def test_columns_at_40(study: Path) -> None:
    """The same with shorter names; nothing is wider than the terminal but errors."""
    with open_session("--recursive", "scans", columns=40, cwd=study) as session:
        pass

    lines = render_screen(session.raw)
    assert lines[:6] == [
        "stroke-cnn 1, threshold 0.05",
        "  file                answer  P(stroke)",
        "  scans/a.png         normal      0.010",
        "scans/bad.png: error: The file is no image.",
        "* scans/頭部.png      stroke      0.973",
        "* scans/…al-0042.png  stroke      0.973",
    ]
    assert " ".join(line.strip() for line in lines[6:]).endswith("; by stroke-cnn 1")
    assert max(map(cell_len, (*lines[:3], *lines[4:]))) <= 39


def test_not_analysed_has_its_own_look(cli_server: FakeServer, tmp_path: Path) -> None:
    """Another colour, no figure, the reason beside it where there is room, its sentence once."""
    cli_server.servicer.judge = lambda request: (
        make_response(request) if request.image == POSITIVE else make_refusal_to_judge(request)
    )
    for name, data in {"a.png": b"none", "b.png": POSITIVE, "c.png": b"none"}.items():
        (tmp_path / name).write_bytes(data)

    with open_session(".", columns=80, cwd=tmp_path) as session:
        pass
    with open_session("a.png", columns=30, cwd=tmp_path) as narrow:
        pass

    lines = render_screen(session.raw)
    assert lines[:6] == [
        "stroke-cnn 1, threshold 0.05",
        "  file     answer  P(stroke)",
        "? ./a.png  not analysed       NO_HEAD",
        "  NO_HEAD: There is no head.",
        "* ./b.png  stroke      0.973",
        "? ./c.png  not analysed       NO_HEAD",
    ]
    assert lines[6].startswith("3 images: 1 positive (stroke), 2 not analysed, 0 failed; ")
    assert b"\x1b[33mnot analysed" in session.raw
    assert render_screen(narrow.raw)[2:] == ["? a.png  not analysed", "  NO_HEAD: There is no head."]
    assert session.process.returncode == narrow.process.returncode == 0


def test_headings_come_again_when_another_model_judges(cli_server: FakeServer, tmp_path: Path) -> None:
    """A threshold counts for what stands below it."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(POSITIVE + name.encode())

    def judge(request):
        response = make_response(request)
        if request.image.endswith(b"b.png"):
            response.model_digest, response.model_version, response.threshold = "cd" * 32, "2", 0.5
        return response

    cli_server.servicer.judge = judge
    with open_session(".", columns=80, cwd=tmp_path) as session:
        pass

    lines = [line for line in render_screen(session.raw) if "warning" not in line]
    assert [line.split(",")[0] for line in lines[:6:3]] == ["stroke-cnn 1", "stroke-cnn 2"]
    assert lines[3] == "stroke-cnn 2, threshold 0.5"


@BOTH_WIDTHS
def test_progress_never_wraps(columns: int, cli_server: FakeServer, tmp_path: Path) -> None:
    """All that was ever drawn stays below the width, so nothing of it is left on the screen in the end."""
    cli_server.servicer.judge = lambda request: time.sleep(0.01) or make_response(request)
    for index in range(60):
        (tmp_path / f"{index:02}.png").write_bytes(POSITIVE)

    with open_session("--output", "results.jsonl", ".", columns=columns, cwd=tmp_path) as session:
        pass

    drawn = list_drawn(session.raw)
    assert len([line for line in drawn if re.search(r"━ +\d+/60 [\d.]+/s 0:00:\d\d left$", line)]) >= 3
    assert max(map(len, drawn)) < columns
    assert not [line for line in render_screen(session.raw) if " left" in line]


def test_progress_follows_a_resize(cli_server: FakeServer, tmp_path: Path) -> None:
    """What is drawn after the window became narrow fits the narrow window, and still says how far it is."""
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

    drawn = [line for line in list_drawn(session.raw) if "/60" in line]
    widths = list(map(len, drawn))
    first_narrow = next(index for index, width in enumerate(widths) if width < 30)
    assert min(widths[:first_narrow]) > 40
    assert max(widths[first_narrow:]) < 30
    assert all(re.fullmatch(r"\d+/60 [\d:-]+ left", line) for line in drawn[first_narrow:])


@BOTH_WIDTHS
def test_results_stay_whole_beside_the_progress(columns: int, cli_server: FakeServer, tmp_path: Path) -> None:
    """With stdout and stderr on one terminal, what stays are the results, in order, and the summary."""
    for index in range(20):
        (tmp_path / f"{index:02}.png").write_bytes(POSITIVE)

    with open_session(".", columns=columns, cwd=tmp_path) as session:
        pass

    lines = render_screen(session.raw)
    assert any(re.search(r"/20 .* left$", line) for line in list_drawn(session.raw))
    assert [line.split() for line in lines[2:22]] == [["*", f"./{i:02}.png", "stroke", "0.973"] for i in range(20)]
    assert lines[22].startswith("20 images: 20 positive (stroke)")


def test_colour_on_a_terminal(study: Path) -> None:
    """Positive results and the word error are in colour."""
    with open_session("--recursive", "scans", columns=80, cwd=study) as session:
        pass

    assert b"\x1b[1;31mstroke      0.973\x1b[0m" in session.raw
    assert b"scans/bad.png: \x1b[31merror\x1b[0m: The file" in session.raw
    assert b"\x1b[2mstroke-cnn 1, threshold 0.05\x1b[0m" in session.raw
    assert b"normal      0.010\r\n" in session.raw


@pytest.mark.parametrize(
    ("environment", "has_progress"), [({"NO_COLOR": "1"}, True), ({"TERM": "dumb"}, False)], ids=["NO_COLOR", "dumb"]
)
def test_no_colour_where_it_is_not_wanted(environment: dict[str, str], has_progress: bool, study: Path) -> None:
    """Under NO_COLOR and on a dumb terminal the stars remain; the dumb one gets no progress bar, either."""
    with open_session("--recursive", "scans", columns=80, cwd=study, **environment) as session:
        pass

    assert re.search(rb"\x1b\[([0-9]+;)*[349][0-9]", session.raw) is None  # bold is no colour
    assert (b"\x1b" in session.raw) == has_progress == any(" left" in line for line in list_drawn(session.raw))
    assert f"* scans/頭部.png{' ' * 46}stroke      0.973" in "\n".join(render_screen(session.raw))


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
        wait_for(lambda: any(re.search(r"[1-5]/8.* left$", line) for line in list_drawn(session.raw)))
        session.interrupt()

    lines = render_screen(session.raw)
    assert session.process.returncode == 130
    assert [line[:9] for line in lines[2:7]] == [f"* ./{i}.png" for i in range(5)]
    assert lines[7].startswith("8 images: 5 positive (stroke), 0 failed, 3 not judged;")
    assert lines[-1] == "error: interrupted"


def test_names_that_the_terminal_cannot_show(cli_server: FakeServer, tmp_path: Path) -> None:
    """An ASCII terminal gets three points for what is left out, and escapes for letters."""
    (tmp_path / ("é" + "x" * 60 + ".png")).write_bytes(POSITIVE)

    with open_session(".", columns=40, cwd=tmp_path, PYTHONIOENCODING="ascii") as session:
        pass

    assert render_screen(session.raw)[2:] == ["* ./\\xe9xx...xxxxxx.png  stroke      0.973"]


@pytest.fixture
def without_rich(tmp_path: Path) -> dict[str, str]:
    """An environment whose Python has no rich."""
    (tmp_path / "hidden" / "rich").mkdir(parents=True)
    (tmp_path / "hidden" / "rich" / "__init__.py").write_text("raise ModuleNotFoundError('rich', name='rich')")
    return {"PYTHONPATH": f"{tmp_path / 'hidden'}{os.pathsep}{ROOT}"}


def test_terminal_without_rich_gets_the_lines_of_a_pipe(study: Path, without_rich: dict[str, str]) -> None:
    """Byte for byte, in the same order, and one hint; --quiet leaves the hint out."""
    command = ("--recursive", "scans")
    piped = run_client(*command, cwd=study)
    with open_session(*command, columns=40, cwd=study, **without_rich) as session:
        pass
    with open_session(*command, "--quiet", columns=40, cwd=study, **without_rich) as quiet:
        pass

    hint, *lines = session.raw.decode().splitlines()
    assert hint == "note: for columns, colour and progress: pip install 'strokeserve-client[cli]'"
    assert [line for line in lines if ": stroke" in line or ": normal" in line] == piped.stdout.decode().splitlines()
    assert "scans/bad.png: error: The file is no image." in lines
    assert lines[-1].startswith("4 images: 2 positive (stroke), 1 normal, 1 failed; ")
    assert len(lines) == 5
    assert b"note:" not in quiet.raw
    assert b"\x1b" not in session.raw + quiet.raw


@pytest.mark.parametrize("command", [("scans/a.png", "scans/bad.png"), ("models",)])
def test_pipe_needs_no_rich(command: tuple[str, ...], study: Path) -> None:
    """Nothing of it is imported, nor of the library for completion, where nobody is watching."""
    code = (
        "import atexit, runpy, sys\n"
        f"sys.argv = ['client', *{command!r}]\n"
        "atexit.register(lambda: print(*{'rich', 'shtab', 'grpc'} & sys.modules.keys()))\n"
        "runpy.run_module('client', run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=study, env=environment
    )

    assert len(done.stdout.splitlines()) > 1
    assert done.stdout.splitlines()[-1] == "grpc"


def test_watch_has_the_columns_and_colours_of_other_runs(study: Path) -> None:
    """Behind the time; names are shortened to what the terminal has; a pipe gets the same lines as ever."""
    (study / "hot").mkdir()
    hot = {"a.png": b"healthy", "bad.png": b"bad", "b.png": POSITIVE, f"{'long' * 20}.png": POSITIVE}
    with open_session("--watch", "hot", "--settle", "0", columns=100, cwd=study) as session:
        for name, data in hot.items():
            (study / "hot" / ".new").write_bytes(data)
            (study / "hot" / ".new").rename(study / "hot" / name)
            wait_for((study / "hot" / f"{name}.json").exists)
        session.process.send_signal(signal.SIGTERM)

    lines = render_screen(session.raw)
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in lines if "images" not in line)
    rows = [line[21:].rstrip() for line in lines]
    (healthy,) = [row for row in rows if row.startswith("  hot/a.png ")]
    (positive,) = [row for row in rows if row.startswith("* hot/b.png ")]
    (long,) = [row for row in rows if row.startswith("* hot/l")]
    assert healthy.split()[1] == "normal"
    assert positive.index("stroke") == healthy.index("normal")
    assert "…" in long
    assert max(map(cell_len, lines)) < 100
    assert b"\x1b[1;31mstroke" in session.raw
    assert b": \x1b[31merror\x1b[0m: The file is no image." in session.raw
