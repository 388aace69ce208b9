"""From a complete study to its results: once for each study and model; where there is none, results say why."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest

from client import (
    AuthenticationError,
    ImageTooLargeError,
    IntegrityError,
    ServerUnavailableError,
    StrokeClientError,
)
from gateway.judge import judge as judging
from gateway.judge.judge import Judge
from gateway.judge.selection import select
from gateway.judge.settings import SelectionSettings
from gateway.queue.arrivals import NOT_KEPT
from gateway.queue.endings import Endings
from gateway.queue.folder import QueueFolder, make_key
from gateway.queue.journal import State, read_journal
from tests.dicom_files import PATIENT
from tests.gateway_box import FakeClient, make_answer, make_files, make_written
from tests.studies import STUDY

AWAY = ServerUnavailableError("no server answers", "SERVER_AWAY", "UNAVAILABLE")
DESTINATION = "ARCHIVE@host:104"
EVERYTHING = SelectionSettings()


class Bench:
    """A judge with a server that is told what to answer."""

    def __init__(self, root: Path, settings: SelectionSettings = EVERYTHING) -> None:
        self.folder = QueueFolder(root / "queue")
        self.endings = Endings(self.folder, 30, 7)
        self.client = FakeClient()
        chosen = partial(select, settings=settings)
        self.judge = Judge(self.folder, self.endings, self.client, chosen, make_written, [DESTINATION], 3600)  # type: ignore[arg-type]

    def add(self, count: int = 3, *, age: float = 0.0, not_kept: int = 0) -> str:
        """A study that is complete since some seconds."""
        job = f"{make_key(STUDY)}-{time.time_ns() - int(age * 1e9):020d}"
        folder = self.folder.waiting / job
        folder.mkdir()
        for number, file in enumerate(make_files(count)):
            (folder / f"{number}.dcm").write_bytes(file)
        if not_kept:
            (folder / NOT_KEPT).write_text('{"series": "1.9", "class": "x"}\n' * not_kept)
        return job

    def count(self, state: str) -> int:
        return self.folder.count()[state]


@pytest.fixture
def bench(tmp_path: Path):
    made = Bench(tmp_path)
    yield made
    made.folder.close()


def test_results_are_written_down_and_the_images_are_gone(bench: Bench) -> None:
    """For each destination, with a line for the worklist."""
    job = bench.add()
    bench.judge.judge(job)

    journal = read_journal(bench.folder.sending / job)
    assert journal is not None
    assert set(journal.files) == {"sc.dcm", "answer.txt"}
    assert {name: one.state for name, one in journal.deliveries.items()} == {DESTINATION: State.PENDING}
    assert bench.count("waiting") == 0
    assert not list(bench.folder.root.rglob("[0-9].dcm"))
    assert json.loads((bench.folder.results / f"{job}.json").read_text())["study"] == STUDY


def test_all_images_of_a_study_are_asked_for_at_once(bench: Bench) -> None:
    """Which of them are judged is the server's to choose."""
    bench.judge.judge(bench.add(5))

    assert [len(paths) for paths in bench.client.asked] == [5]


def test_series_that_were_not_kept_are_told(bench: Bench) -> None:
    """With a reason, like those that the server left out."""
    job = bench.add(not_kept=2)
    bench.judge.judge(job)

    assert "NOT_CT" in (bench.folder.sending / job / "answer.txt").read_text()


def test_study_without_a_ct_image_has_no_result(bench: Bench) -> None:
    """Nobody has asked for one."""
    bench.judge.judge(bench.add(0, not_kept=2))

    assert (bench.client.asked, bench.count("sending"), bench.count("waiting")) == ([], 0, 0)


def test_same_study_again_gives_nothing_new(bench: Bench) -> None:
    """While its results are on their way, and when they are there."""
    first = bench.add()
    bench.judge.judge(first)
    bench.judge.judge(bench.add())
    assert (bench.count("sending"), bench.count("waiting")) == (1, 0)

    bench.endings.remember(first, read_journal(bench.folder.sending / first).identity)
    for path in (bench.folder.sending / first).iterdir():
        path.unlink()
    (bench.folder.sending / first).rmdir()
    bench.judge.judge(bench.add())
    assert (bench.count("sending"), bench.count("waiting")) == (0, 0)


def test_another_model_or_more_slices_give_new_results(bench: Bench) -> None:
    """They are other answers."""
    bench.judge.judge(bench.add())
    bench.client.outcome = make_answer(digest="1" * 64)
    bench.judge.judge(bench.add())
    bench.judge.judge(bench.add(4))

    assert bench.count("sending") == 3


def test_what_comes_later_and_cannot_be_judged_adds_nothing(bench: Bench) -> None:
    """An angiography after the study was answered, say; alone it would have got a result that says why not."""
    bench.judge.judge(bench.add())
    bench.client.outcome = make_answer(series=None, digest="1" * 64)
    bench.judge.judge(bench.add(2))

    assert bench.count("sending") == 1


@pytest.mark.parametrize(
    "error",
    [
        ImageTooLargeError("too many slices", "STUDY_TOO_LARGE", "RESOURCE_EXHAUSTED"),
        pytest.param(AWAY, id="given up"),
    ],
)
def test_study_that_cannot_be_judged_has_a_result_that_says_why(bench: Bench, error: StrokeClientError) -> None:
    """And its images stay for a while, with the reason."""
    bench.client.outcome = error
    job = bench.add(age=7200)
    bench.judge.judge(job)

    assert error.message in (bench.folder.sending / job / "answer.txt").read_text()
    assert json.loads((bench.folder.failed / job / "reason.json").read_text())["reason"] == error.reason
    assert len(list((bench.folder.failed / job).glob("*.dcm"))) == 3


@pytest.mark.parametrize(
    "error",
    [
        AWAY,
        AuthenticationError("no access", "TOKEN_UNKNOWN", "UNAUTHENTICATED"),
        IntegrityError("other bytes", "IMAGE_ALTERED", "DATA_LOSS"),
    ],
    ids=lambda error: error.reason,
)
def test_study_waits_for_a_server_that_may_yet_answer(bench: Bench, error: StrokeClientError) -> None:
    """Away, or not set up: nothing is lost."""
    bench.client.outcome = error
    job = bench.add()
    with pytest.raises(StrokeClientError):
        bench.judge.judge(job)
    assert (bench.count("waiting"), bench.count("sending"), bench.count("failed")) == (1, 0, 0)

    bench.client.outcome = make_answer()
    bench.judge.judge(job)
    assert (bench.count("waiting"), bench.count("sending")) == (0, 1)


def test_pauses_grow_and_do_not_hold_up_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that cannot be judged for now is not asked for in a circle."""
    now = [1000.0]
    monkeypatch.setattr(judging.time, "monotonic", lambda: now[0])
    first = bench.add(age=10)
    pauses = []
    for _ in range(8):
        assert bench.judge._take() == first
        bench.judge._postpone(first)
        bench.judge._taken.clear()
        pauses.append(bench.judge._due[first] - now[0])
        second = bench.add()
        assert bench.judge._take() == second
        bench.judge._taken.clear()
        (bench.folder.waiting / second).rename(bench.folder.failed / second)
        now[0] = bench.judge._due[first]

    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]


def test_jobs_of_one_study_are_judged_one_after_the_other(bench: Bench) -> None:
    """Two at the same time could both send what is the same."""
    first, second = bench.add(age=10), bench.add()

    assert bench.judge._take() == first
    assert bench.judge._take() is None
    bench.judge._taken.clear()
    bench.judge.judge(first)
    assert bench.judge._take() == second


def test_log_names_nobody(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever happens to a study."""
    caplog.set_level("INFO", "gateway")
    bench.judge.judge(bench.add())
    bench.client.outcome = ImageTooLargeError("too many slices", "STUDY_TOO_LARGE", "RESOURCE_EXHAUSTED")
    bench.judge.judge(bench.add(2))
    bench.judge.judge(bench.add(0, not_kept=1))

    assert make_key(STUDY)[:12] in caplog.text
    for secret in (*PATIENT.values(), "Doe", STUDY, "1.9"):
        assert secret not in caplog.text
