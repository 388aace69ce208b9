"""``--watch``: what is taken from a hot folder, when, where it goes, and what interruptions leave."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch

import grpc
import pytest

from client import _hot_folder
from client._cli import build_parser, main
from client._connection import read_connection
from client._folder_watch import FolderWatch
from client._image_end import has_image_end
from client._stop import StopSignals
from client._watch import run_watch
from client._watch_folders import WatchFolders
from tests.client_fakes import FakeServer, RecordingServicer, RefusalError, make_response, serve, wait_for
from tests.fakes import ServerProcess, encode, make_slice

ROOT = Path(__file__).parent.parent


def make_png(seed: int = 0) -> bytes:
    return encode(make_slice(seed=seed, side=32))


@pytest.fixture
def hot(tmp_path: Path) -> Path:
    folder = tmp_path / "hot"
    folder.mkdir()
    return folder


class Watching:
    """A running ``python -m client --watch``."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@contextmanager
def watching(folder: Path, target: str, *flags: str, ready: bool = True) -> Iterator[Watching]:
    """Runs a watch on ``folder`` until the block ends; its output goes to one file."""
    log = folder.parent / "log.txt"
    # A shell that runs the tests in the background has its children ignore Ctrl-C; a terminal does not.
    code = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('client', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", code, "--watch", str(folder), "--server", target, "--settle", "0.1", *flags]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, text=True) as process:
        try:
            running = Watching(process, log)
            if ready:
                wait_for(lambda: "Ctrl-C ends" in running.log, 10)
            yield running
        finally:
            process.kill()


class WatchingHere(Watching):
    """A watch in a thread of this process, for what needs no process of its own: it starts at once."""

    def __init__(self, signals: StopSignals, output: io.StringIO) -> None:
        self._signals = signals
        self._output = output

    @property
    def log(self) -> str:
        return self._output.getvalue()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self._signals.stop()
        return 0


@contextmanager
def watching_here(folder: Path, target: str, *flags: str) -> Iterator[WatchingHere]:
    """Runs a watch on ``folder`` until the block ends, with short pauses."""
    parser = build_parser()
    arguments = parser.parse_args(["--watch", str(folder), "--server", target, "--settle", "0.05", *flags])
    connection = read_connection(parser, arguments)
    signals, output = StopSignals(), io.StringIO()
    with (
        patch.multiple(_hot_folder, POLL_SECONDS=0.02, _FIRST_PAUSE=0.05),
        redirect_stdout(output),
        redirect_stderr(output),
    ):

        def run() -> None:
            with suppress(Crash):
                run_watch(arguments, connection, signals)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield WatchingHere(signals, output)
        finally:
            signals.stop()
            thread.join(20)
            assert not thread.is_alive()


def read_result(path: Path) -> dict:
    return json.loads(path.read_text())


def wait_for_files(*paths: Path) -> None:
    wait_for(lambda: all(path.exists() for path in paths), 15)


def test_arrival_is_judged_and_its_result_written_beside(server: FakeServer, hot: Path) -> None:
    """A file renamed into place is answered: a line with the time, and scan.png.json with the whole record."""
    with watching(hot, server.target) as watch:
        (hot / ".upload").write_bytes(data := make_png())
        (hot / ".upload").rename(hot / "scan.png")
        wait_for_files(hot / "scan.png.json")
        assert watch.stop() == 0

    result = read_result(hot / "scan.png.json")
    assert result["label"] == "normal"
    assert result["image_sha256"] == hashlib.sha256(data).hexdigest()
    assert result["file"] == str(hot / "scan.png")
    assert result["file_bytes"] == len(data)
    assert f"{hot}/scan.png: normal 0.990  (stroke-cnn 1, threshold 0.05)\n" in watch.log
    assert "1 images in 0 h 00 min: 1 answered (normal 1), 0 failed\n" in watch.log
    assert sorted(path.name for path in hot.iterdir()) == ["scan.png", "scan.png.json"]


def test_slow_writer_is_never_judged_half(server: FakeServer, hot: Path) -> None:
    """Pieces that come with pauses far longer than --settle are one image, judged once, whole."""
    data = make_png()
    with watching(hot, server.target) as watch:
        with (hot / "scan.png").open("wb", buffering=0) as file:
            for start in range(0, len(data), len(data) // 4):
                file.write(data[start : start + len(data) // 4])
                time.sleep(0.4)
        wait_for_files(hot / "scan.png.json")
        watch.stop()

    assert server.servicer.images == [data]


def test_reserved_space_is_not_taken_for_an_image(server: FakeServer, hot: Path) -> None:
    """A writer that sets the size first, as file managers do on shares, is waited for."""
    data = make_png()
    with watching_here(hot, server.target) as watch:
        with (hot / "scan.png").open("wb", buffering=0) as file:
            file.truncate(len(data))
            time.sleep(0.6)
            file.write(data[:100])
            time.sleep(0.6)
            file.write(data[100:])
        wait_for_files(hot / "scan.png.json")
        watch.stop()

    assert server.servicer.images == [data]


def test_burst_is_judged_once_each(server: FakeServer, hot: Path) -> None:
    """200 files at once: 200 requests, 200 results, and nothing is left in the folder with --move."""
    with watching(hot, server.target, "--move") as watch:
        for index in range(200):
            (hot / f"{index:03}.png").write_bytes(make_png(index))
        wait_for(lambda: len(list((hot / "done").glob("*.png"))) == 200, 20)
        assert watch.stop() == 0

    assert set(Counter(server.servicer.images).values()) == {1}
    assert len(list((hot / "done").glob("*.json"))) == len(server.servicer.images) == 200
    assert list(hot.glob("*.png")) == []


def test_hidden_temporary_and_other_files_are_left_alone(server: FakeServer, hot: Path) -> None:
    """Names of uploads under way and other kinds are ignored; links and folders with an image's name are named once."""
    for name in (".scan.png", "~scan.png", "scan.png.filepart", "notes.txt"):
        (hot / name).write_bytes(make_png())
    (hot / "folder.png").mkdir()
    (hot / "link.png").symlink_to("notes.txt")
    os.mkfifo(hot / "pipe.png")
    with watching_here(hot, server.target) as watch:
        (hot / "scan.JPG").write_bytes(make_png())
        wait_for_files(hot / "scan.JPG.json")
        watch.stop()

    assert len(server.servicer.images) == 1
    for name in ("folder.png", "link.png", "pipe.png"):
        assert watch.log.count(f"{hot}/{name}: left alone: a link, a folder or a device, not a file") == 1


def test_image_at_fault_fails_at_once(server: FakeServer, hot: Path) -> None:
    """It goes to failed/ with the reason beside it, and the watch goes on."""

    def judge(request):
        if request.image == b"text":
            raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", "The file is text.")
        return make_response(request)

    server.servicer.judge = judge
    with watching_here(hot, server.target, "--move") as watch:
        (hot / "bad.png").write_bytes(b"text")
        wait_for_files(hot / "failed" / "bad.png")
        (hot / "good.png").write_bytes(make_png())
        wait_for_files(hot / "done" / "good.png")
        watch.stop()

    result = read_result(hot / "failed" / "bad.png.json")
    assert (result["error"], result["reason"]) == ("The file is text.", "IMAGE_UNDECODABLE")
    assert f"{hot}/bad.png: error: The file is text.\n" in watch.log
    assert "2 images in 0 h 00 min: 1 answered (normal 1), 1 failed\n" in watch.log


def test_nothing_is_overwritten_in_done(server: FakeServer, hot: Path) -> None:
    """A second and a third scan.png, even of the same bytes, become scan-1.png and scan-2.png with their results."""
    contents = [make_png(1), make_png(2), make_png(2)]
    with watching_here(hot, server.target, "--move") as watch:
        for index, data in enumerate(contents):
            (hot / "scan.png").write_bytes(data)
            moved = hot / "done" / (f"scan-{index}.png" if index else "scan.png")
            wait_for_files(moved)
            wait_for(lambda: not (hot / "scan.png").exists())
            assert moved.read_bytes() == data
            assert read_result(Path(f"{moved}.json"))["image_sha256"] == hashlib.sha256(data).hexdigest()
        watch.stop()

    assert len(list((hot / "done").iterdir())) == 6


def test_many_of_one_name_find_their_number_fast(hot: Path) -> None:
    """The free number is found by doubling, not by trying a thousand names."""
    folders = WatchFolders(str(hot), beside=True, move=True)
    folders.prepare()
    (hot / "done" / "scan.png").touch()
    for number in range(1, 1000):
        (hot / "done" / f"scan-{number}.png").touch()

    started = time.perf_counter()
    path = folders._claim(str(hot / "done"), "scan.png")

    assert Path(path).name == "scan-1000.png"
    assert time.perf_counter() - started < 0.01


def test_move_to_another_file_system(hot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where done/ is elsewhere, the image is copied whole before it goes from its place."""
    elsewhere = Path("/dev/shm") / f"strokeserve-{os.getpid()}"
    try:
        elsewhere.mkdir()
    except OSError:
        pytest.skip("/dev/shm is not here")
    try:
        if elsewhere.stat().st_dev == hot.stat().st_dev:
            pytest.skip("/dev/shm is not another file system")
        (hot / "done").symlink_to(elsewhere)
        (hot / "scan.png").write_bytes(data := make_png())
        (elsewhere / "scan.png").write_bytes(b"another")
        with serve() as server, watching_here(hot, server.target, "--move") as watch:
            wait_for_files(elsewhere / "scan-1.png", elsewhere / "scan-1.png.json")
            wait_for(lambda: not (hot / "scan.png").exists())
            watch.stop()

        assert (elsewhere / "scan-1.png").read_bytes() == data
        assert (elsewhere / "scan.png").read_bytes() == b"another"
        assert len(list(elsewhere.iterdir())) == 3
    finally:
        shutil.rmtree(elsewhere)


def test_server_away_and_back(hot: Path) -> None:
    """It is said once, nothing fails for it, and what waited is judged when the server is back."""
    with serve() as first:
        port, target = first.port, first.target
    with watching(hot, target, "--move") as watch:
        for index in range(3):
            (hot / f"{index}.png").write_bytes(make_png(index))
        wait_for(lambda: "images wait until it answers" in watch.log, 15)
        time.sleep(1.5)  # for at least one try more
        assert len(list(hot.glob("*.png"))) == 3
        with serve(port=port) as second:
            wait_for(lambda: len(list((hot / "done").glob("*.png"))) == 3, 20)
            assert watch.stop() == 0
            assert len(second.servicer.images) == 3

    assert watch.log.count("images wait until it answers") == 1
    assert watch.log.count("the server answers again") == 1
    assert list((hot / "failed").iterdir()) == []


def test_overloaded_server_is_waited_for(server: FakeServer, hot: Path) -> None:
    """RESOURCE_EXHAUSTED says nothing about the image."""
    refusals = [RefusalError(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "The queue is full.")] * 6

    def judge(request):
        if refusals:
            raise refusals.pop()
        return make_response(request)

    server.servicer.judge = judge
    with watching_here(hot, server.target, "--move") as watch:
        (hot / "scan.png").write_bytes(make_png())
        wait_for_files(hot / "done" / "scan.png")
        watch.stop()

    assert "0 failed" in watch.log


def test_image_that_breaks_a_healthy_server_is_given_up(server: FakeServer, hot: Path) -> None:
    """After three tries it goes to failed/, so that it does not hold up the others."""

    def judge(request):
        if request.image == b"poison":
            raise RefusalError(grpc.StatusCode.INTERNAL, "INTERNAL", "Fault 42.")
        return make_response(request)

    server.servicer.judge = judge
    with watching_here(hot, server.target, "--move") as watch:
        (hot / "a.png").write_bytes(b"poison")
        (hot / "b.png").write_bytes(make_png())
        wait_for_files(hot / "failed" / "a.png", hot / "done" / "b.png")
        watch.stop()

    assert server.servicer.images.count(b"poison") == 3
    assert read_result(hot / "failed" / "a.png.json")["reason"] == "INTERNAL"


@pytest.mark.parametrize("flags", [(), ("--move",), ("--output",), ("--csv", "--move")])
def test_kill_and_restart_leave_one_result_each(hot: Path, flags: tuple[str, ...]) -> None:
    """Killed twice in the middle of 60 images, started again: each has exactly one result and is in one place."""
    journal = hot.parent / "results"
    flags = tuple(part for flag in flags for part in ((flag, str(journal)) if flag != "--move" else (flag,)))
    for index in range(60):
        (hot / f"{index:02}.png").write_bytes(make_png(index))
    servicer = RecordingServicer()

    def judge(request):
        time.sleep(0.01)
        return make_response(request)

    servicer.judge = judge
    with serve(servicer) as server:
        for count in (10, 35):
            with watching(hot, server.target, *flags, ready=False) as watch:
                wait_for(lambda count=count: len(servicer.requests) >= count, 15)
                watch.process.kill()
                watch.process.wait(10)
        with watching(hot, server.target, *flags) as watch:
            wait_for(lambda: len(list_judged(hot, journal)) >= 60, 15)
            if "--move" in flags:
                wait_for(lambda: not list(hot.glob("*.png")), 15)
            time.sleep(0.5)  # for anything that would be judged once more
            assert watch.stop() == 0

    names = Counter(list_judged(hot, journal))
    assert set(names) == {f"{index:02}.png" for index in range(60)}
    assert set(names.values()) == {1}
    if "--move" in flags:
        assert len(list((hot / "done").glob("*.png"))) == 60
    # What was on its way when a watch was killed was sent again; nothing else was.
    assert len(servicer.requests) <= 60 + 2 * 16


def list_judged(hot: Path, journal: Path) -> list[str]:
    """Names of the images that have a result, wherever results go."""
    if not journal.exists():
        return [Path(read_result(path)["file"]).name for path in hot.rglob("*.json")]
    text = journal.read_text()
    whole = text[: text.rfind("\n") + 1]
    if text.startswith("file,"):
        return [Path(row["file"]).name for row in csv.DictReader(whole.splitlines())]
    return [Path(json.loads(line)["file"]).name for line in whole.splitlines()]


class Crash(BaseException):
    """Ends a watch as kill -9 would: nothing after it is done."""


@pytest.mark.parametrize("flags", [(), ("--move",), ("--output", "r.jsonl", "--move")], ids=" ".join)
@pytest.mark.parametrize("step", ["fsync", "replace", "link", "unlink"])
def test_crash_at_each_step_leaves_one_result(
    server: FakeServer, hot: Path, step: str, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended before any of the steps of writing and moving, started again: one result, and the image in one place."""
    monkeypatch.chdir(hot.parent)
    crashed = threading.Event()
    real = getattr(os, step)

    def crash(*arguments, **options):
        # The two that `prepare` makes and removes are no step; the others are of the image or its result.
        if step == "unlink" and "scan" not in str(arguments[0]):
            return real(*arguments, **options)
        crashed.set()
        raise Crash

    (hot / "scan.png").write_bytes(data := make_png())
    with patch.object(os, step, crash), watching_here(hot, server.target, *flags) as watch:
        wait_for(lambda: crashed.is_set() or "scan.png: normal" in watch.log)
    with watching_here(hot, server.target, *flags) as watch:
        place = hot / "done" if "--move" in flags else hot
        wait_for(lambda: (place / "scan.png").exists() and list_judged(hot, hot.parent / "r.jsonl"))
        wait_for(lambda: place == hot or not (hot / "scan.png").exists())

    assert list_judged(hot, hot.parent / "r.jsonl") == ["scan.png"]
    assert [path.read_bytes() for path in hot.rglob("*.png")] == [data]
    assert {path.name for path in hot.rglob("*") if path.is_file()} <= {"scan.png", "scan.png.json", ".strokeserve.tmp"}


def test_restart_between_result_and_move_finishes_the_move(server: FakeServer, hot: Path) -> None:
    """A result in done/ whose image is still in the folder is not made again: the image follows it."""
    with watching_here(hot, server.target, "--move") as watch:
        (hot / "scan.png").write_bytes(make_png())
        wait_for(lambda: (hot / "done" / "scan.png").exists() and not (hot / "scan.png").exists())
        watch.stop()
    (hot / "done" / "scan.png").rename(hot / "scan.png")
    before = (hot / "done" / "scan.png.json").read_text()
    with watching_here(hot, server.target, "--move") as watch:
        wait_for_files(hot / "done" / "scan.png")
        watch.stop()

    assert len(server.servicer.requests) == 1
    assert (hot / "done" / "scan.png.json").read_text() == before


def test_file_written_anew_is_judged_anew(server: FakeServer, hot: Path) -> None:
    """While the watch runs and while it does not; a file whose time alone changes is not."""
    with watching_here(hot, server.target) as watch:
        for index in range(2):
            (hot / "scan.png").write_bytes(make_png(index))
            wait_for(lambda index=index: len(server.servicer.requests) > index)
            wait_for(lambda index=index: read_sha256(hot / "scan.png.json") == sha256_of(make_png(index)))
        watch.stop()
    (hot / "scan.png").write_bytes(make_png(2))
    with watching_here(hot, server.target) as watch:
        wait_for(lambda: read_sha256(hot / "scan.png.json") == sha256_of(make_png(2)))
        os.utime(hot / "scan.png")
        time.sleep(0.8)
        watch.stop()

    assert len(server.servicer.requests) == 3


def read_sha256(path: Path) -> str:
    return read_result(path)["image_sha256"] if path.exists() else ""


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signal_ends_it_with_a_summary(server: FakeServer, hot: Path, number: int, status: int) -> None:
    """Even while the server does not answer: at once, without a traceback; the image stays for the next run."""
    server.servicer.judge = server.servicer.hang
    with watching(hot, server.target) as watch:
        (hot / "scan.png").write_bytes(make_png())
        wait_for(lambda: server.servicer.requests)
        started = time.monotonic()
        assert watch.stop(number) == status
        assert time.monotonic() - started < 3

    assert watch.log.endswith("0 images in 0 h 00 min: 0 answered, 0 failed, 1 left for the next run\n")
    assert "Traceback" not in watch.log
    assert [path.name for path in hot.iterdir()] == ["scan.png"]


def test_deleted_while_it_waits_is_no_failure(hot: Path) -> None:
    """What goes away before it could be judged is forgotten."""
    with serve() as server:
        target, port = server.target, server.port
    with watching_here(hot, target) as watch:
        (hot / "gone.png").write_bytes(make_png())
        wait_for(lambda: "images wait" in watch.log, 15)
        (hot / "gone.png").unlink()
        (hot / "stays.png").write_bytes(make_png())
        with serve(port=port):
            wait_for_files(hot / "stays.png.json")
            watch.stop()

    assert "1 answered (normal 1), 0 failed\n" in watch.log


def test_folder_that_vanishes_is_waited_for(server: FakeServer, hot: Path) -> None:
    """A share that is away for a moment is said once, and taken up again."""
    with watching_here(hot, server.target) as watch:
        hot.rename(hot.parent / "away")
        wait_for(lambda: "the folder cannot be read: No such file or directory: waiting for it" in watch.log)
        (hot.parent / "away").rename(hot)
        (hot / "scan.png").write_bytes(make_png())
        wait_for_files(hot / "scan.png.json")
        watch.stop()

    assert watch.log.count("cannot be read") == watch.log.count("the folder is back") == 1


def test_second_watch_of_a_folder_is_refused(server: FakeServer, hot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two would judge each image twice."""
    with watching(hot, server.target):
        assert main(["--watch", str(hot), "--server", server.target]) == 2

    assert capsys.readouterr().err == f"error: another watch of {hot} is running: end it first\n"


def test_wrong_settings_are_one_line(
    server: FakeServer, hot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No such folder, a file instead of one, a model that nobody serves, two places for results."""
    (tmp_path / "file").touch()

    assert main(["--watch", str(tmp_path / "none")]) == 1
    assert main(["--watch", str(tmp_path / "file")]) == 1
    assert main(["--watch", str(hot), "--beside", "--csv", "x.csv"]) == 2

    assert capsys.readouterr().err.splitlines() == [
        f"error: {tmp_path}/none cannot be used: No such file or directory",
        f"error: {tmp_path}/file cannot be used: Not a directory",
        "error: --beside does not go with --csv and --output: choose one place for results",
    ]


def test_model_that_is_not_served_ends_it(server: FakeServer, hot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything was judged that is a typing mistake, not a fault of the images."""

    def judge(request):
        raise RefusalError(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "There is no model 'typo'.")

    server.servicer.judge = judge
    (hot / "scan.png").write_bytes(make_png())

    assert main(["--watch", str(hot), "--server", server.target, "--model", "typo", "--settle", "0"]) == 1

    assert "error: There is no model 'typo'." in capsys.readouterr().err
    assert (hot / "scan.png").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_said_at_once(server: FakeServer, hot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is judged in vain."""
    hot.chmod(0o555)
    try:
        assert main(["--watch", str(hot), "--server", server.target]) == 1
    finally:
        hot.chmod(0o755)

    assert "cannot be used: Permission denied" in capsys.readouterr().err


def test_foreign_file_of_the_results_name_is_not_overwritten(
    server: FakeServer, hot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """scan.png.json of somebody else ends the watch with what is in the way."""
    (hot / "scan.png").write_bytes(make_png())
    (hot / "scan.png.json").write_text('{"patient": "none"}')

    assert main(["--watch", str(hot), "--server", server.target, "--settle", "0"]) == 1

    assert "scan.png.json: a file of this name is there and is no result" in capsys.readouterr().err
    assert (hot / "scan.png.json").read_text() == '{"patient": "none"}'


def test_json_on_standard_output(server: FakeServer, hot: Path) -> None:
    """--json prints the object that is written beside the image instead of a line; --quiet leaves out the notes."""
    with watching_here(hot, server.target, "--json", "--quiet") as watch:
        (hot / "scan.png").write_bytes(make_png())
        wait_for(lambda: "}" in watch.log, 10)
        watch.stop()

    assert watch.log == (hot / "scan.png.json").read_text()


def test_real_server(tiny_server: ServerProcess, hot: Path) -> None:
    """A good slice is answered; what is cut off or no image is refused with the server's reason."""
    with watching_here(hot, tiny_server.address, "--move") as watch:
        (hot / "good.png").write_bytes(encode(make_slice()))
        (hot / "text.png").write_bytes(b"This is no image at all.")
        wait_for_files(hot / "done" / "good.png", hot / "failed" / "text.png")
        watch.stop()

    assert read_result(hot / "done" / "good.png.json")["model"]
    assert read_result(hot / "failed" / "text.png.json")["reason"].startswith("IMAGE_")


def test_incomplete_file_is_given_up_in_the_end(hot: Path) -> None:
    """A file without an end is returned once patience with it has ended, and only then."""
    watch = FolderWatch(str(hot), settle=0.0, patience=0.3)
    (hot / "scan.png").write_bytes(make_png()[:-20])

    started = time.monotonic()
    while (image := next(filter(None, map(watch.read, watch.poll())), None)) is None:
        assert time.monotonic() - started < 5
        time.sleep(0.01)

    assert time.monotonic() - started >= 0.3
    assert image.data == make_png()[:-20]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file_is_given_up_in_the_end(hot: Path) -> None:
    """With the reason; until then its writer may still open it to others."""
    watch = FolderWatch(str(hot), settle=0.0, patience=0.2)
    (hot / "scan.png").write_bytes(make_png())
    (hot / "scan.png").chmod(0)

    assert [watch.read(name) for name in watch.poll()] == [None]
    time.sleep(0.25)
    (image,) = [watch.read(name) for name in watch.poll()]

    assert str(image.fault) == "the image cannot be read: Permission denied"


def test_poll_of_ten_thousand_judged_files_is_cheap(hot: Path) -> None:
    """It costs their names, not a look at each."""
    for index in range(10_000):
        (hot / f"{index}.png").touch()
    watch = FolderWatch(str(hot), settle=0.0)
    for name in watch.poll():
        watch.adopt_result(name, "", watch._waiting[name].stamp.to_file_stamp(), finished=True)

    times = []
    for _ in range(5):
        started = time.process_time()
        assert watch.poll() == []
        times.append(time.process_time() - started)

    assert min(times) < 0.1
    assert (watch.judged, watch.waiting) == (10_000, 0)


def test_state_is_no_larger_than_the_folder(hot: Path) -> None:
    """Files that go away are forgotten, judged or not."""
    watch = FolderWatch(str(hot), settle=0.0)
    for round_ in range(3):
        for index in range(100):
            (hot / f"{round_}-{index}.png").write_bytes(b"text")
        for name in watch.poll():
            watch.mark_judged(watch.read(name))
        for path in hot.glob("*.png"):
            path.unlink()
        watch.poll()

    assert (watch.judged, watch.waiting) == (0, 0)


def test_end_of_png_and_jpeg() -> None:
    """Every cut of a PNG and a JPEG lacks its end; the whole has it, also with bytes behind it; text is no image."""
    thumbnail = encode(make_slice(side=16), "JPEG")
    jpeg = encode(make_slice(), "JPEG", comment=thumbnail)  # an end marker inside the header
    progressive = encode(make_slice(), "JPEG", progressive=True)

    for whole in (make_png(), jpeg, progressive):
        assert has_image_end(whole) is True
        assert has_image_end(whole + b"\0" * 50) is True
        assert not any(has_image_end(whole[:length]) for length in range(len(whole) - 1))
        assert has_image_end(whole[:-50] + bytes(50)) is False
    assert has_image_end(b"GIF89a and so on") is None
    assert has_image_end(b"") is False
    assert has_image_end(bytes(1000)) is False
    assert zlib.crc32(b"IEND") == 0xAE426082
