"""The queue on disk: what is complete when, what survives, and what is not left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from gateway.queue import endings
from gateway.queue.arrivals import NOT_KEPT, OPEN_FACTOR, Arrivals, read_not_kept
from gateway.queue.endings import DAY, Endings
from gateway.queue.files import PART, remove_folder, write_whole
from gateway.queue.folder import QueueError, QueueFolder, find_study, make_job, make_key, show

STUDY, OTHER = "1.2.3", "1.2.4"


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def folder(tmp_path: Path):
    opened = QueueFolder(tmp_path / "queue")
    yield opened
    opened.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def put(arrivals: Arrivals, study: str = STUDY, sop: str = "1", sender: int = 1, is_open: bool = False) -> None:
    arrivals.put(study, sop, b"slice", sender, lambda: is_open)


def test_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older one stays when the disk is full."""
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_study_is_complete_when_nothing_came_for_a_while(folder: QueueFolder, clock: Clock) -> None:
    """Each instance begins the time anew."""
    arrivals = Arrivals(folder, quiet=20, least_free=0)
    put(arrivals, sop="1")
    clock.now += 19
    put(arrivals, sop="2")
    clock.now += 19
    assert arrivals.complete() == []
    clock.now += 1

    (job,) = arrivals.complete()
    assert find_study(job) == make_key(STUDY)
    assert len(list((folder.waiting / job).glob("*.dcm"))) == 2
    assert list(folder.receiving.iterdir()) == []
    assert arrivals.complete() == []


def test_sender_that_is_still_there_has_longer(folder: QueueFolder, clock: Clock) -> None:
    """Scanners pause between series; one that never leaves does not hold a study for ever."""
    arrivals = Arrivals(folder, quiet=20, least_free=0)
    put(arrivals, is_open=True)
    clock.now += 20 * OPEN_FACTOR - 1
    assert arrivals.complete() == []
    clock.now += 1
    assert len(arrivals.complete()) == 1


def test_sender_that_goes_on_to_another_study_has_finished_the_first(folder: QueueFolder, clock: Clock) -> None:
    """An archive sends many studies on one association."""
    arrivals = Arrivals(folder, quiet=20, least_free=0)
    put(arrivals, STUDY, is_open=True)
    put(arrivals, OTHER, is_open=True)
    clock.now += 20

    assert [find_study(job) for job in arrivals.complete()] == [make_key(STUDY)]


def test_study_is_not_moved_while_an_instance_is_written(folder: QueueFolder, clock: Clock) -> None:
    """However slow the disk is."""
    arrivals = Arrivals(folder, quiet=20, least_free=0)
    with arrivals._writing(STUDY, 1, lambda: False):
        clock.now += 100
        assert arrivals.complete() == []
    assert arrivals.complete() == []
    clock.now += 20
    assert len(arrivals.complete()) == 1


def test_restart_gives_senders_their_time_again(folder: QueueFolder, clock: Clock) -> None:
    """What had come is there, and the rest may come."""
    put(Arrivals(folder, quiet=20, least_free=0))
    arrivals = Arrivals(folder, quiet=20, least_free=0)
    clock.now += 19
    assert arrivals.complete() == []
    clock.now += 1
    assert len(arrivals.complete()) == 1


def test_what_came_later_is_another_job(folder: QueueFolder, clock: Clock) -> None:
    """Of the same study, and after the first."""
    arrivals = Arrivals(folder, quiet=20, least_free=0)
    for _ in range(2):
        put(arrivals)
        clock.now += 20
        arrivals.complete()

    first, second = folder.list_jobs(folder.waiting)
    assert find_study(first) == find_study(second)


def test_line_that_a_kill_has_cut_costs_no_other(tmp_path: Path) -> None:
    """Of what was not kept."""
    (tmp_path / NOT_KEPT).write_text('{"series": "1.2", "class": "x"}\n{"series": "1.2", "class": "x"}\n{"seri')

    assert read_not_kept(tmp_path) == {"1.2": 2}


def test_one_process_has_a_queue(folder: QueueFolder) -> None:
    """Two would send twice."""
    with pytest.raises(QueueError, match="another process"):
        QueueFolder(folder.root)


def test_queue_that_others_may_look_into_is_refused(tmp_path: Path) -> None:
    """Images of patients are in it."""
    (tmp_path / "queue").mkdir(mode=0o755)

    with pytest.raises(QueueError, match="chmod 700"):
        QueueFolder(tmp_path / "queue")


def test_path_that_cannot_be_a_queue_is_said(tmp_path: Path) -> None:
    """With what is in the way."""
    (tmp_path / "file").write_text("")

    with pytest.raises(QueueError, match=r"Not a directory|File exists"):
        QueueFolder(tmp_path / "file" / "queue")


def test_start_removes_what_was_being_written(tmp_path: Path) -> None:
    """And a study whose results were already made."""
    opened = QueueFolder(tmp_path / "queue")
    job = make_job(make_key(STUDY))
    for state in (opened.waiting, opened.sending):
        (state / job).mkdir()
    (opened.sending / f"half{PART}").mkdir()
    (opened.receiving / "study").mkdir()
    (opened.receiving / "study" / f"slice.dcm{PART}").write_bytes(b"half")
    opened.close()

    opened = QueueFolder(tmp_path / "queue")
    assert {state: count for state, count in opened.count().items() if count} == {"receiving": 1, "sending": 1}
    assert list((opened.receiving / "study").iterdir()) == []
    opened.close()


def test_folder_goes_as_one(tmp_path: Path) -> None:
    """A kill in the middle leaves what the next start removes."""
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "file").write_text("")
    remove_folder(tmp_path / "job")
    remove_folder(tmp_path / "job")

    assert list(tmp_path.iterdir()) == []


def test_failures_stay_as_long_as_is_set(folder: QueueFolder) -> None:
    """And then they go, like what was remembered."""
    ends = Endings(folder, keep_days=30, keep_failed_days=7)
    (folder.waiting / "old").mkdir()
    (folder.waiting / "new").mkdir()
    for job in ("old", "new"):
        ends.fail(folder.waiting / job, "STUDY_TOO_LARGE", "why")
    ends.remember("study-1", ["1.2"])
    past = time.time() - 8 * DAY
    os.utime(folder.failed / "old", (past, past))
    assert ends.expire() == 1
    assert [path.name for path in folder.failed.iterdir()] == ["new"]
    assert "STUDY_TOO_LARGE" in (folder.failed / "new" / endings.REASON).read_text()
    assert ends.recall("study-2") == {("1.2",)}

    past = time.time() - 31 * DAY
    os.utime(folder.done / "study.json", (past, past))
    ends.expire()
    assert ends.recall("study-2") == set()


def test_failures_need_not_stay_at_all(folder: QueueFolder) -> None:
    """Where a site wants that."""
    (folder.waiting / "job").mkdir()
    Endings(folder, keep_days=30, keep_failed_days=0).fail(folder.waiting / "job", "REASON", "why")

    assert folder.count() == dict.fromkeys(folder.count(), 0)


def test_log_shows_a_part_of_a_digest() -> None:
    """From which nobody finds the UID."""
    assert show(make_job(make_key(STUDY))) == make_key(STUDY)[:12]
