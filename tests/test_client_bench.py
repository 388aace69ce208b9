"""``bench``: what is counted, from when on, and how it is shown."""

from __future__ import annotations

import json
import math
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from client import StrokeClient
from client._bench_report import format_report, load_to_json
from client._cli import main
from client._histogram import HIGHEST_MICROSECONDS, LatencyHistogram
from client._load import Load, LoadRun, make_timetable
from tests.client_fakes import FakeServer, RefusalError, make_response, wait_for
from tests.fakes import ROOT, ServerProcess, encode, make_slice

IMAGE = b"stroke image"


@pytest.fixture
def image(tmp_path: Path) -> str:
    (tmp_path / "scan.png").write_bytes(IMAGE)
    return str(tmp_path / "scan.png")


@pytest.mark.parametrize("median", [50e-6, 3e-3, 0.4])
def test_percentiles_agree_with_exact_ones(median: float) -> None:
    """To 0.1 %, over five decades; mean, minimum and maximum are exact to the microsecond."""
    values = np.random.default_rng(1).lognormal(np.log(median), 1.5, 20_000)
    histogram = LatencyHistogram()
    for value in values:
        histogram.record(value)

    for percent in (0, 1, 50, 90, 99, 99.9, 99.99, 100):
        exact = np.sort(values)[max(math.ceil(round(20_000 * percent / 100, 6)), 1) - 1]
        assert histogram.percentile(percent) == pytest.approx(exact, rel=1e-3, abs=1e-6)
    assert histogram.mean == pytest.approx(values.mean(), abs=1e-6)
    assert (histogram.minimum, histogram.maximum) == pytest.approx((values.min(), values.max()), abs=1e-6)
    assert histogram.count == 20_000


def test_histogram_has_a_fixed_size_and_an_end() -> None:
    """From 0 to an hour, and beyond; what is longer counts as an hour."""
    histogram = LatencyHistogram()
    size = len(histogram._counts)
    for seconds in (0.0, 1e-6, 3600.0, 1e9):
        histogram.record(seconds)

    assert len(histogram._counts) == size == 23_552
    assert histogram.percentile(25) == 0.0
    assert histogram.percentile(50) == 1e-6
    assert histogram.percentile(100) == histogram.maximum == HIGHEST_MICROSECONDS / 1e6


def test_empty_histogram_has_no_figures() -> None:
    """Nothing was measured; that is no error."""
    assert LatencyHistogram().percentile(99) == LatencyHistogram().mean == 0.0


def test_timetable_offers_the_rate_that_it_says() -> None:
    """Exactly, whatever the seed; Poisson intervals are spread like an exponential, fixed ones not at all."""
    poisson = np.diff(make_timetable(50, 200, "poisson", 3))
    fixed = np.diff(make_timetable(50, 200, "fixed", 3))

    assert len(poisson) == len(fixed) == 50 * 200 - 1
    assert poisson.min() >= 0
    assert poisson.std() / poisson.mean() == pytest.approx(1, abs=0.05)
    assert fixed == pytest.approx(0.02)
    assert make_timetable(50, 1, "poisson", 1) != make_timetable(50, 1, "poisson", 2)
    assert make_timetable(50, 1, "poisson", 1) == make_timetable(50, 1, "poisson", 1)


def stall(server: FakeServer, begin: float, seconds: float) -> None:
    """Has the server stop for a while, from ``begin`` seconds after its next request on."""
    first: list[float] = []

    def judge(request):
        first.append(time.monotonic())
        since = time.monotonic() - first[0]
        if begin <= since < begin + seconds:
            time.sleep(begin + seconds - since)
        return make_response(request)

    server.servicer.judge = judge


def run_load(client: StrokeClient, seconds: float, *, rate: float = 0, clients: int = 0) -> Load:
    run = LoadRun(client, [IMAGE], warmup=0, seconds=seconds, patience=5)
    if rate:
        run.start_open(make_timetable(rate, seconds, "fixed", 0))
    else:
        run.start_closed(clients)
    assert run.wait(20)
    run.stop()
    return run.recorder.load


@pytest.mark.parametrize("senders", [128, 4])
def test_stall_shows_in_an_open_loop(
    server: FakeServer, client: StrokeClient, senders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 ms without answers hit the third of the images that were due then, each for the rest of the 300 ms; also
    those that could not leave because all senders were waiting, which would look fast counted from when they left."""
    monkeypatch.setattr("client._load.MOST_SENDERS", senders)
    stall(server, 0.3, 0.3)

    load = run_load(client, 1.0, rate=100)

    assert load.latencies.count == 100
    assert load.latencies.maximum >= 0.27
    assert load.latencies.percentile(99) >= 0.25
    assert load.latencies.percentile(85) >= 0.1
    assert load.latencies.percentile(50) < 0.1
    assert (load.crowded > 15) == (senders == 4)


def test_stall_hides_in_a_closed_loop(server: FakeServer, client: StrokeClient) -> None:
    """The same stop is one slow answer among many: why the report says what a closed loop cannot see."""
    stall(server, 0.3, 0.3)

    load = run_load(client, 1.0, clients=1)

    assert load.latencies.count > 100
    assert load.latencies.maximum >= 0.27
    assert load.latencies.percentile(99) < 0.1


def test_closed_loop_has_as_many_on_their_way_as_clients(server: FakeServer, client: StrokeClient) -> None:
    """Never more than N, and N of them at some time."""
    lock, now, most = threading.Lock(), [0], [0]

    def judge(request):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= 1
        return make_response(request)

    server.servicer.judge = judge

    load = run_load(client, 0.5, clients=4)

    assert most[0] == 4
    assert load.latencies.count == pytest.approx(len(server.servicer.requests), abs=1)
    assert load.completed == pytest.approx(load.latencies.count, abs=4)


def test_warmup_is_not_counted(server: FakeServer, client: StrokeClient) -> None:
    """Neither its images nor its time."""
    run = LoadRun(client, [IMAGE], warmup=0.3, seconds=0.3, patience=5)
    run.start_open(make_timetable(100, 0.6, "fixed", 0))
    assert run.wait(20)
    run.stop()

    assert run.recorder.load.latencies.count == pytest.approx(30, abs=1)
    assert run.recorder.load.seconds == pytest.approx(0.3)
    assert len(server.servicer.requests) == 60


def test_overload_ends_soon_after_its_timetable(server: FakeServer, client: StrokeClient) -> None:
    """Images that could not even be sent in time are failures, not an endless queue; the report says why."""
    server.servicer.judge = server.servicer.hang
    threading.Timer(1.2, server.servicer.released.set).start()
    run = LoadRun(client, [IMAGE], warmup=0, seconds=0.4, patience=0.5)
    run.start_open(make_timetable(1000, 0.4, "fixed", 0))
    assert run.wait(20)
    run.stop()

    load = run.recorder.load
    assert load.errors["NOT_SENT"] > 200
    assert load.latencies.count + load.errors.total() == 400


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
        "interrupted": False,
    }
    assert [run["rate"] for run in runs] == [40, 80]
    assert runs[0]["answered"] == pytest.approx(12, abs=1)
    assert runs[0]["offered_per_s"] == pytest.approx(40, abs=4)
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
    assert bench(server.target if words else "127.0.0.1:1", *(words or (image,))) == 1

    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(error)


def test_interrupt_prints_what_was_measured(server: FakeServer, image: str) -> None:
    """Ctrl-C ends it at once, with the figures so far and exit status 130."""
    code = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('client', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", code, "bench", image, "--server", server.target, "--rate", "50", "--warmup", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True) as process:
        wait_for(lambda: len(server.servicer.requests) > 20, 10)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)

    assert process.returncode == 130
    assert "interrupted: the figures are of what was measured so far" in out
    assert err == ""


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
        load.latencies.record(0.02)

    text = " ".join(format_report(settings, [(0, 10.0, load)], 80).split())

    assert (
        "at 10/s this machine did not keep the timetable: 30 images left more than 10 ms late (at most 250 ms)" in text
    )
    assert "at 10/s 20 images left late because 128 others had no answer yet" in text
    assert "warning" not in format_report(settings, [(0, 10.0, Load(10.0))], 80)


def test_report_fits_a_narrow_terminal() -> None:
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

    text = format_report(settings, [(4, 0.0, load), (8, 0.0, load)], 40)

    assert max(map(len, text.splitlines())) <= 40
    assert text.count("p50 ms    -") == 2
    assert "failed: SERVER_BUSY 7" in " ".join(text.split())
    assert load_to_json(load, clients=4, rate=0)["latency_ms"] is None


def test_progress_on_a_terminal_is_erased(server: FakeServer, image: str) -> None:
    """It says how far the load is; what stays on the screen is the report."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "client", "bench", image, "--server", server.target, "--seconds", "1"]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, stdout=slave, stderr=slave, cwd=ROOT, env=environment) as process:
        os.close(slave)
        screen = b""
        try:
            while chunk := os.read(master, 65536):
                screen += chunk
        except OSError:  # how Linux reports the end of a pseudo-terminal
            pass
        assert process.wait(20) == 0
    os.close(master)

    assert b" s left" in screen
    kept = [line.rsplit(b"\x1b[K", 1)[-1] for line in screen.replace(b"\r\n", b"\n").split(b"\n")]
    assert kept[0].startswith(server.target.encode())


def test_real_server_process(tiny_server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All three kinds of load against ``python -m server``."""
    (tmp_path / "scan.png").write_bytes(encode(make_slice()))
    for load in (("--clients", "1,4"), ("--rate", "50"), ("--clients", "4", "--stream")):
        assert bench(tiny_server.address, str(tmp_path), *load, "--json") == 0

        for run in json.loads(capsys.readouterr().out)["runs"]:
            assert run["answered"] > 0
            assert 0 < run["latency_ms"]["p50"] <= run["latency_ms"]["max"]
            assert 0 < run["server_ms"]["inference"] < run["latency_ms"]["max"]
