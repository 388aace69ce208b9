"""A disk that is full, a server that was killed, an end that was altered: the log goes on and says what is missing."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.audit import writer
from server.audit.family import beside, name_rotated
from server.audit.verify import verify
from server.audit.writer import AuditLog, AuditOptions
from server.errors import UnavailableError
from tests.audit_logs import alter, ended, find_faults, judged, list_events, open_log, read_log, write_log
from tests.fakes import wait_until


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a second here."""
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(writer, "GATHER_SECONDS", 0.01)


@contextmanager
def full_disk(room: int = 0) -> Iterator[None]:
    """Lets no file of this process grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_costs_nothing_as_long_as_outcomes_can_wait(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are written once there is room; the failure is logged once, and so is its end. No half line stays."""
    path = tmp_path / "audit"
    with caplog.at_level(logging.WARNING), open_log(path) as log:
        with full_disk(path.stat().st_size + 100):
            for number in range(20):
                log.note(judged(str(number)))
            wait_until(lambda: log.state == "failing")
            tried = log._tried_at
            wait_until(lambda: log._tried_at > tried)
            wait_until(lambda: log.backlog == 20)
            assert path.read_bytes().endswith(b"\n")
        wait_until(lambda: log.state == "ok" and not log.backlog)

    assert [line.get("id") for line in read_log(path)[1:-1]] == [str(number) for number in range(20)]
    assert find_faults(path) == []
    assert (log.failures, log.lost) == (1, 0)
    (failed, mended) = caplog.messages
    assert "audit log cannot be written: File too large; images are judged all the same" in failed
    assert mended == "audit log: written again; 0 images have no line"


def test_what_is_lost_while_the_disk_is_full_is_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is bounded, and its last half is for images that were judged."""
    monkeypatch.setattr(writer, "MOST_WAITING", 10)
    monkeypatch.setattr(writer, "BATCH", 1)
    path = tmp_path / "audit"
    with open_log(path) as log:
        with full_disk(1):
            log.note(judged("first"))
            wait_until(lambda: log.state == "failing")
            for _ in range(8):
                log.note(ended("refused", "INVALID_ARGUMENT", "IMAGE_EMPTY"))
            for _ in range(8):
                log.note(judged("judged"))
            assert log.lost == 3 + 3
        wait_until(lambda: log.state == "ok")

    assert [line.get("id", line["event"]) for line in read_log(path)] == [
        "begin",
        "first",
        *5 * ["refused"],
        *5 * ["judged"],
        "gap",
        "stop",
    ]
    report = verify(path)
    assert (report.faults, report.lost) == ([], 6)


def test_required_log_that_cannot_be_written_refuses_images(tmp_path: Path) -> None:
    """With a hint when to come again; who was refused for that is counted, and has no line."""
    path = tmp_path / "audit"
    with open_log(path, is_required=True) as log:
        log.check_ready()
        with full_disk(1):
            log.note(judged())
            wait_until(lambda: log.state == "failing")
            with pytest.raises(UnavailableError) as caught:
                log.check_ready()
            log.note(ended("refused", "UNAVAILABLE", "AUDIT_UNAVAILABLE"))
        wait_until(lambda: log.state == "ok")
        log.check_ready()

    assert (caught.value.reason, caught.value.retry_after) == ("AUDIT_UNAVAILABLE", writer.RETRY_SECONDS)
    assert list_events(path) == ["begin", "image", "gap", "stop"]
    assert read_log(path)[2]["refused"] == log.refused == 1


def test_required_log_refuses_before_what_waits_could_be_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that are in work by then still find room."""
    monkeypatch.setattr(writer, "MOST_WAITING", 10)
    monkeypatch.setattr(writer, "GATHER_SECONDS", 3600)
    log = AuditLog(AuditOptions(tmp_path / "audit"))
    for _ in range(6):
        log.check_ready()
        log.note(judged())

    with pytest.raises(UnavailableError):
        log.check_ready()


def test_disk_that_is_full_at_the_start_does_not_keep_a_server_from_starting(tmp_path: Path) -> None:
    """Its log begins when there is room."""
    path = tmp_path / "audit"
    write_log(path, 1)
    with full_disk(1), open_log(path) as log:
        assert log.state == "failing"
        log.note(judged())

    assert log.backlog == 1
    assert verify(path).state == "stopped"
    write_log(path, 1)
    assert list_events(path) == ["begin", "image", "stop", "start", "image", "stop"]


def test_disk_that_does_not_secure_is_a_failure_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has not taken by fsync may be gone after a power cut."""
    fsync, is_broken = os.fsync, [True]

    def fail(descriptor: int) -> None:
        if is_broken[0]:
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    with open_log(tmp_path / "audit") as log:
        monkeypatch.setattr(os, "fsync", fail)
        log._secured_at = float("-inf")
        log.note(judged())
        wait_until(lambda: log.state == "failing")
        is_broken[0] = False
        wait_until(lambda: log.state == "ok")

    assert find_faults(tmp_path / "audit") == []


def test_disk_that_does_not_answer_is_a_failure_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that has gone holds up its writer, and nobody else."""
    go_on, fsync = threading.Event(), os.fsync
    monkeypatch.setattr(writer, "STUCK_SECONDS", 0.05)

    def wait(descriptor: int) -> None:
        assert go_on.wait(60)
        fsync(descriptor)

    with open_log(tmp_path / "audit") as log:
        monkeypatch.setattr(os, "fsync", wait)
        log._secured_at = float("-inf")
        log.note(judged())
        wait_until(lambda: log.state == "failing")
        log.note(judged())
        with pytest.raises(UnavailableError):
            log.check_ready()
        go_on.set()
        wait_until(lambda: log.state == "ok")

    assert log.failures == 0
    assert find_faults(tmp_path / "audit") == []


def test_fault_of_ours_is_a_failure_and_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread goes on."""
    with open_log(tmp_path / "audit") as log:
        with monkeypatch.context() as patch:
            patch.setattr(writer, "seal", lambda *arguments: 1 // 0)
            log.note(judged())
            wait_until(lambda: log.state == "failing")
        wait_until(lambda: log.state == "ok" and log.written == 1)


@pytest.mark.parametrize("torn", [b'{"seq":4,"prev":"', b"\0" * 300_000])
def test_server_that_was_killed_is_followed_by_one_that_says_so(tmp_path: Path, torn: bytes) -> None:
    """What is left of a torn line, or of a power cut, goes; the chain goes on behind the last whole line."""
    path = tmp_path / "audit"
    write_log(path, 2)
    alter(path, lambda lines: lines.__setitem__(slice(3, 4), [torn]))
    head = json.loads(path.read_bytes().splitlines()[1])
    beside(path, "head").write_text(json.dumps({"seq": 2, "hash": head["hash"], "time": head["time"]}))

    write_log(path, 1)

    report = verify(path)
    assert (report.faults, report.recoveries, report.state) == ([], 1, "stopped")
    assert list_events(path) == ["begin", "image", "image", "recover", "image", "stop"]
    assert read_log(path)[3]["torn_bytes"] == len(torn)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines.pop(),
        lambda lines: lines.clear(),
        lambda lines: lines.__setitem__(6, lines[6].replace(b"stop", b"Stop")),
        lambda lines: lines.__setitem__(6, b"nonsense\n"),
    ],
)
def test_end_that_was_altered_while_no_server_ran_stays_found(
    tmp_path: Path, change: Callable[[list[bytes]], object]
) -> None:
    """The next server goes on, but keeps what the head has told; no number is used twice."""
    path = tmp_path / "audit"
    write_log(path)
    alter(path, change)
    for _ in range(2):
        write_log(path, 1)

    faults = find_faults(path)

    assert any("did not find line 7, which had been on the disk" in fault for fault in faults)
    assert read_log_seqs(path)[-6:] == [8, 9, 10, 11, 12, 13]


def read_log_seqs(path: Path) -> list[int]:
    """The numbers of the lines that are lines."""
    return [json.loads(line)["seq"] for line in path.read_bytes().splitlines() if line.startswith(b"{")]


def test_kill_between_two_files_costs_nothing(tmp_path: Path) -> None:
    """The old one was put aside, and there is no new one yet."""
    path = tmp_path / "audit"
    write_log(path, 1)
    path.rename(name_rotated(path, "20260131", 1))

    write_log(path, 1)

    assert list_events(path) == ["begin", "image", "stop", "start", "image", "stop"]
    assert find_faults(path) == []


def test_kill_right_after_rotation_is_no_tampering(tmp_path: Path) -> None:
    """The head tells of the last line of the file before."""
    path = tmp_path / "audit"
    write_log(path, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    name_rotated(path, "20260131", 1).write_bytes(b"".join(lines[:2]))
    path.write_bytes(lines[2])
    last = json.loads(lines[1])
    beside(path, "head").write_text(json.dumps({"seq": 2, "hash": last["hash"], "time": last["time"]}))

    write_log(path, 1)

    assert list_events(path) == ["begin", "image", "image", "recover", "image", "stop"]
    assert find_faults(path) == []
