"""``--watch``: what interruptions leave, and what a watch that is started again makes of it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.client_fakes import FakeServer, RecordingServicer, make_response, serve, wait_for
from tests.watching import Crash, make_png, read_result, wait_for_files, watching, watching_here


@pytest.mark.parametrize("flags", [(), ("--csv", "--move")])
def test_kill_and_restart_leave_one_result_each(hot: Path, flags: tuple[str, ...]) -> None:
    """Killed twice in the middle of 60 images, started again: each has exactly one result and is in one place."""
    journal = hot.parent / "results"
    flags = tuple(part for flag in flags for part in ((flag, str(journal)) if flag != "--move" else (flag,)))
    for index in range(60):
        (hot / f"{index:02}.png").write_bytes(make_png(index))
    servicer = RecordingServicer()

    def judge(request):
        time.sleep(0.01)  # a server that takes its time: the watch is killed in the middle
        return make_response(request)

    servicer.judge = judge
    with serve(servicer) as server:
        for count in (10, 35):
            with watching(hot, server.target, *flags, ready=False) as watch:
                wait_for(lambda count=count: len(servicer.requests) >= count)
                watch.process.kill()
                watch.process.wait(60)
        with watching(hot, server.target, *flags) as watch:
            wait_for(lambda: len(list_judged(hot, journal)) >= 60)
            if "--move" in flags:
                wait_for(lambda: not list(hot.glob("*.png")))
            judge_another(hot, journal)  # and before it anything that would be judged once more
            assert watch.stop() == 0

    names = Counter(name for name in list_judged(hot, journal) if name != "another.png")
    assert set(names) == {f"{index:02}.png" for index in range(60)}
    assert set(names.values()) == {1}
    if "--move" in flags:
        assert len(list((hot / "done").glob("*.png"))) == 61
    # What was on its way when a watch was killed was sent again; nothing else was.
    assert len(servicer.requests) <= 61 + 2 * 16


def judge_another(hot: Path, journal: Path) -> None:
    """Brings another image and waits for its result: images are judged in the order in which they were written."""
    (hot / "another.png").write_bytes(make_png(1000))
    wait_for(lambda: "another.png" in list_judged(hot, journal))


def list_judged(hot: Path, journal: Path) -> list[str]:
    """Names of the images that have a result, wherever results go."""
    if not journal.exists():
        return [Path(read_result(path)["file"]).name for path in hot.rglob("*.json")]
    text = journal.read_text()
    whole = text[: text.rfind("\n") + 1]
    if text.startswith("file,"):
        return [Path(row["file"]).name for row in csv.DictReader(whole.splitlines())]
    return [Path(json.loads(line)["file"]).name for line in whole.splitlines()]


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
        assert watch.stop() == 0
    (hot / "done" / "scan.png").rename(hot / "scan.png")
    before = (hot / "done" / "scan.png.json").read_text()
    with watching_here(hot, server.target, "--move") as watch:
        wait_for_files(hot / "done" / "scan.png")
        assert watch.stop() == 0

    assert len(server.servicer.requests) == 1
    assert (hot / "done" / "scan.png.json").read_text() == before


def test_file_written_anew_is_judged_anew(server: FakeServer, hot: Path) -> None:
    """While the watch runs and while it does not; a file whose time alone changes is not."""
    with watching_here(hot, server.target) as watch:
        for index in range(2):
            (hot / "scan.png").write_bytes(make_png(index))
            wait_for(lambda index=index: len(server.servicer.requests) > index)
            wait_for(lambda index=index: read_sha256(hot / "scan.png.json") == sha256_of(make_png(index)))
        assert watch.stop() == 0
    (hot / "scan.png").write_bytes(make_png(2))
    with watching_here(hot, server.target) as watch:
        wait_for(lambda: read_sha256(hot / "scan.png.json") == sha256_of(make_png(2)))
        os.utime(hot / "scan.png")
        watch.let_pass()
        assert watch.stop() == 0

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
        assert time.monotonic() - started < 8  # a call may take 10

    assert watch.log.endswith(" s: 0 answered, 0 failed, 1 left for the next run\n")
    assert "Traceback" not in watch.log
    assert [path.name for path in hot.iterdir()] == ["scan.png"]
