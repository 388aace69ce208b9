"""``bench``: what it prints about the load on a server, and with which exit status."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from client.cli.bench.command import Step, print_report
from client.cli.bench.load import Load, describe_load
from client.cli.main import main
from client.cli.terminal import Terminal
from tests.client_fakes import FakeServer, RefusalError, make_response, wait_for
from tests.command_lines import INTERRUPTIBLE, list_drawn, open_session, render_screen
from tests.fakes import ROOT, ServerProcess, encode, make_slice

IMAGE = b"stroke image"


@pytest.fixture
def image(tmp_path: Path) -> str:
    (tmp_path / "scan.png").write_bytes(IMAGE)
    return str(tmp_path / "scan.png")


def bench(server: str, *words: str) -> int:
    return main(["bench", *words, "--server", server, "--seconds", "0.3", "--warmup", "0.05"])


def test_table_has_a_line_for_each_count(server: FakeServer, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Percentiles in milliseconds, and in words that it is a closed loop."""
    assert bench(server.target, image, "--clients", "1,2") == 0

    out, err = capsys.readouterr()
    lines = out.splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("clients"))
    assert lines[head].split("  ")[-1].strip() == "failed"
    assert [line.split()[0] for line in lines[head + 1 : head + 3]] == ["1", "2"]
    assert "Closed loop" in out
    assert "decode 1.5, queue 0.25, inference 20.1" in " ".join(out.split())
    assert max(map(len, lines)) < 80
    assert err == ""


def test_json_is_one_object(server: FakeServer, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With all settings, and the figures of each rate."""
    assert bench(server.target, image, "--rate", "40,80", "--arrivals", "fixed", "--json") == 0

    found = json.loads(capsys.readouterr().out)
    runs = found.pop("runs")
    assert found == {
        "server": server.target,
        "loop": "open",
        "latencies_from": "due",
        "arrivals": "fixed",
        "seed": 0,
        "seconds": 0.3,
        "warmup_seconds": 0.05,
        "images": 1,
        "image_bytes": len(IMAGE),
        "left_out": "",
        "interrupted": False,
    }
    assert [run["rate"] for run in runs] == [40, 80]
    assert [run["answered"] for run in runs] == [12, 24]
    assert runs[0]["offered_per_s"] == 40
    assert runs[0]["errors"] == {}
    assert list(runs[0]["latency_ms"]) == ["min", "mean", "p50", "p90", "p99", "p99.9", "max"]
    assert runs[0]["server_ms"] == {"decode": 1.5, "queue": 0.25, "inference": 20.125}
    assert runs[0]["late"].keys() == {"images", "no_sender_free", "max_ms"}


@pytest.mark.parametrize("load", [("--clients", "2"), ("--rate", "50"), ("--clients", "2", "--stream")])
def test_failures_are_counted_by_reason(
    server: FakeServer, image: str, load: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """They are no latencies, and the exit status is 1."""
    answered = [0]

    def judge(request):
        answered[0] += 1
        if answered[0] > 5:
            raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_BLURRED", "The image is blurred.")
        return make_response(request)

    server.servicer.judge = judge
    assert bench(server.target, image, *load, "--json") == 1

    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["errors"] == {"IMAGE_BLURRED": run["failed"]}
    assert run["failed"] >= 1
    assert run["answered"] <= 4


def test_stream_has_no_more_on_their_way_than_asked_for(
    server: FakeServer, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All on one PredictStream call."""
    assert bench(server.target, image, "--stream", "--clients", "4", "--json") == 0

    found = json.loads(capsys.readouterr().out)
    assert found["loop"] == "stream"
    assert found["runs"][0]["answered"] > 10
    assert len(server.servicer.ended_streams) == 1


@pytest.mark.parametrize(
    ("words", "error"),
    [(("none.png",), "error: none.png: the image cannot be read: No such file"), ((), "error: no server answers")],
)
def test_what_cannot_start_is_one_line(
    server: FakeServer, image: str, words: tuple[str, ...], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing file and a missing server are said before anything is measured; exit 1."""
    assert bench(server.target if words else "127.0.0.1:1", *(words or (image,)), "--timeout", "0.5") == 1

    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(error)


def test_interrupt_prints_what_was_measured(server: FakeServer, image: str) -> None:
    """Ctrl-C ends it at once, with the figures so far and exit status 130."""
    command = [
        sys.executable,
        *INTERRUPTIBLE,
        "bench",
        image,
        "--server",
        server.target,
        "--rate",
        "50",
        "--warmup",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True) as process:
        wait_for(lambda: len(server.servicer.requests) > 20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "interrupted: the figures are of what was measured so far" in out
    assert err == ""


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def read_report(settings: dict, rows: list, stream: io.StringIO | None = None) -> str:
    """What is printed on ``stream``: a pipe, unless it is another."""
    stream = stream or io.StringIO()
    print_report(settings, rows, Terminal(stream))
    return "\n".join(render_screen(stream.getvalue().encode()))


def test_late_departures_are_a_warning() -> None:
    """The machine that loads may itself be too slow; and a rate may be more than the server can do."""
    settings = {
        "server": "box:50051",
        "loop": "open",
        "arrivals": "fixed",
        "seconds": 10.0,
        "warmup_seconds": 1.0,
        "images": 3,
        "image_bytes": 300_000,
        "interrupted": False,
    }
    load = Load(10.0, late=50, crowded=20, latest=0.25)
    for _ in range(100):
        load.latencies.add(0.02)

    text = " ".join(read_report(settings, [(Step(rate=10.0), load)]).split())

    assert (
        "at 10/s this machine did not keep the timetable: 30 images left more than 10 ms late (at most 250 ms)" in text
    )
    assert "at 10/s 20 images left late because 128 others had no answer yet" in text
    assert "warning" not in read_report(settings, [(Step(rate=10.0), Load(10.0))])


def test_report_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """In 40 columns each load becomes a block of lines; a load without answers is shown, too."""
    settings = {
        "server": "box:50051",
        "loop": "closed",
        "seconds": 10.0,
        "warmup_seconds": 1.0,
        "images": 3,
        "image_bytes": 300_000,
        "interrupted": False,
    }
    load = Load(10.0)
    load.errors["SERVER_BUSY"] = 7

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    text = read_report(settings, [(Step(clients=4), load), (Step(clients=8), load)], FakeTerminal())

    assert max(map(len, text.splitlines())) <= 40
    assert text.count("p50 ms    -") == 2
    assert "failed: SERVER_BUSY 7" in " ".join(text.split())
    assert describe_load(load, is_open=False)["latency_ms"] is None


@pytest.mark.parametrize("columns", [80, 40])
def test_terminal_shows_progress_and_keeps_the_report(server: FakeServer, image: str, columns: int) -> None:
    """Nothing is wider than the terminal; the progress goes, the report stays."""
    flags = ("--server", server.target, "--seconds", "0.6", "--warmup", "0")
    with open_session("bench", image, *flags, columns=columns, cwd=ROOT) as session:
        pass

    assert session.process.returncode == 0
    assert any(line.endswith(" s left") for line in list_drawn(session.raw))
    assert max(map(len, list_drawn(session.raw))) < columns
    screen = render_screen(session.raw)
    assert screen[0].startswith(server.target)
    assert not any("left" in line for line in screen)
    assert any(line.startswith("clients") for line in screen)


def test_real_server_process(tiny_server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All three kinds of load against ``python -m server``."""
    (tmp_path / "scan.png").write_bytes(encode(make_slice()))
    for load in (("--clients", "1,4"), ("--rate", "50"), ("--clients", "4", "--stream")):
        assert bench(tiny_server.address, str(tmp_path), *load, "--json") == 0

        for run in json.loads(capsys.readouterr().out)["runs"]:
            assert run["answered"] > 0
            assert 0 < run["latency_ms"]["p50"] <= run["latency_ms"]["max"]
            assert 0 < run["server_ms"]["inference"] < run["latency_ms"]["max"]
