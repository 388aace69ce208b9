"""Procedure steps that scanners tell of (MPPS): a study goes on when all that they list is here."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from client import ImageTooLargeError, StudyPrediction
from gateway.judge.judge import add_warnings, describe_not_received
from gateway.queue import steps
from gateway.queue.arrivals import Arrivals
from gateway.queue.folder import QueueFolder, make_key
from gateway.queue.notes import read_notes
from gateway.queue.steps import KEEP_SECONDS, Step, Steps, StepsFullError, StepState
from gateway.reasons import Doubt
from tests.dicom_files import PATIENT
from tests.gateway_box import SECONDARY_CAPTURE, Box, make_answer, make_files, open_box, send
from tests.procedure_steps import STEP, list_uids, make_begin, make_end, make_series_item, tell
from tests.studies import SERIES, STUDY
from tests.test_gateway_judge import Bench

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of pynetdicom as the other side

BEGIN = ("create", make_begin())
ALL_THREE = ("set", make_end({SERIES: list_uids(3)}))


@pytest.fixture
def box(tmp_path: Path):
    """In which nothing is complete for being quiet."""
    with open_box(tmp_path / "queue", quiet=3600.0) as opened:
        yield opened


def become_quiet(box: Box) -> list[str]:
    """Jobs of what is complete when nothing comes any more."""
    box.arrivals._quiet = 0.0
    jobs = box.arrivals.complete()
    box.arrivals._quiet = 3600.0
    return jobs


def count(box: Box, job: str) -> int:
    return len(list((box.folder.waiting / job).glob("*.dcm")))


def test_study_is_complete_when_all_images_of_its_step_are_here(box: Box) -> None:
    """At once, whether the last word or the last image comes first."""
    assert tell(box.port, BEGIN) == [0]
    assert send(box.port, make_files(2)) == [0, 0]
    assert box.arrivals.complete() == []
    assert tell(box.port, ALL_THREE) == [0]
    assert box.arrivals.complete() == []
    assert send(box.port, make_files(3)[2:]) == [0]

    (job,) = box.arrivals.complete()
    assert count(box, job) == 3
    assert describe_not_received(box.folder.waiting / job) == []


def test_last_word_completes_what_is_here(box: Box) -> None:
    """Many scanners say it after they have sent everything."""
    send(box.port, make_files(3))
    assert box.arrivals.complete() == []
    assert tell(box.port, BEGIN, ALL_THREE) == [0, 0]
    assert len(box.arrivals.complete()) == 1


def test_images_that_never_come_are_named(box: Box) -> None:
    """When the study has become quiet: which series, how many, and the first of them."""
    tell(box.port, BEGIN, ("set", make_end({SERIES: list_uids(6), "1.2.9": ["1.2.9.1"]})))
    send(box.port, make_files(2))
    assert box.arrivals.complete() == []

    (job,) = become_quiet(box)
    first, second = describe_not_received(box.folder.waiting / job)
    assert (first.series_instance_uid, first.slices, first.reason) == (SERIES, 4, "NOT_RECEIVED")
    names = ", ".join(f"{SERIES}.{number}" for number in (3, 4, 5))
    assert first.message == f"4 of 6 images that the scanner has named did not come ({names} and others)."
    assert (second.series_instance_uid, second.slices) == ("1.2.9", 1)


def test_what_comes_later_is_not_missed_twice(box: Box) -> None:
    """Of a study that was judged in part: the rest completes it, and what came before is not missing."""
    tell(box.port, BEGIN, ALL_THREE)
    send(box.port, make_files(2))
    (job,) = become_quiet(box)
    assert read_notes(box.folder.waiting / job).missing

    send(box.port, make_files(3)[2:])
    (job,) = box.arrivals.complete()
    assert (count(box, job), read_notes(box.folder.waiting / job).missing) == (1, ())


def test_step_that_ends_after_its_study_was_judged_misses_nothing(box: Box) -> None:
    """A technician may say that it is done minutes later."""
    tell(box.port, BEGIN)
    send(box.port, make_files(3))
    become_quiet(box)
    tell(box.port, ALL_THREE)
    send(box.port, make_files(4)[3:])

    assert box.arrivals.complete() == []
    (job,) = become_quiet(box)
    assert read_notes(box.folder.waiting / job).missing == ()


def test_study_that_is_sent_again_is_complete_when_it_is_quiet(box: Box) -> None:
    """And not after each of its images, since its step has been seen through."""
    tell(box.port, BEGIN, ALL_THREE)
    send(box.port, make_files(3))
    assert len(box.arrivals.complete()) == 1
    send(box.port, make_files(3))

    assert box.arrivals.complete() == []
    assert len(become_quiet(box)) == 1


def test_study_with_a_step_that_goes_on_is_not_complete(box: Box) -> None:
    """A head, and then an angiography in a step of its own."""
    tell(box.port, BEGIN, ALL_THREE)
    tell(box.port, BEGIN, step=f"{STEP}.2")
    send(box.port, make_files(3))
    assert box.arrivals.complete() == []

    tell(box.port, ("set", make_end({"1.2.9": []})), step=f"{STEP}.2")
    assert len(box.arrivals.complete()) == 1


def test_objects_that_are_not_kept_are_not_waited_for(box: Box) -> None:
    """A dose report goes elsewhere."""
    end = make_end({SERIES: list_uids(2)})
    end.PerformedSeriesSequence.append(make_series_item("1.2.8", ["1.2.8.1"], SECONDARY_CAPTURE))
    tell(box.port, BEGIN, ("set", end))
    send(box.port, make_files(2))

    assert len(box.arrivals.complete()) == 1


def test_step_without_images_says_nothing(box: Box) -> None:
    """Some scanners list none: the study is complete when it is quiet."""
    tell(box.port, BEGIN, ("set", make_end()))
    send(box.port, make_files(2))

    assert box.arrivals.complete() == []
    assert len(become_quiet(box)) == 1


def test_discontinued_step_completes_nothing_and_is_told(box: Box) -> None:
    """Another may follow; what there is is judged when it is quiet, with a warning."""
    assert tell(box.port, BEGIN, ("set", make_end({SERIES: list_uids(2)}, "DISCONTINUED", "110513"))) == [0, 0]
    send(box.port, make_files(2))
    assert box.arrivals.complete() == []

    (job,) = become_quiet(box)
    for answer in (make_answer(), ImageTooLargeError("too many slices", "STUDY_TOO_LARGE")):
        told = add_warnings(answer, box.folder.waiting / job)
        assert isinstance(told, StudyPrediction)
        assert [warning.reason for warning in told.warnings] == [Doubt.STEP_DISCONTINUED]


def test_study_of_a_wrong_worklist_entry_is_not_judged(tmp_path: Path) -> None:
    """The images are somebody else's; results that say so take the place of an answer in a wrong name."""
    bench = Bench(tmp_path)
    kept = Steps(bench.folder, 0)
    arrivals = Arrivals(bench.folder, kept, 0.0, 0)
    kept.begin(STEP, Step((make_key(STUDY),), StepState.DISCONTINUED, {}, is_wrong_entry=True))
    arrivals.put(STUDY, "1", make_files(1)[0], 1, lambda: False)
    (job,) = arrivals.complete()
    bench.judge.judge(job)
    bench.folder.close()

    assert bench.client.asked == []
    assert "WRONG_WORKLIST_ENTRY" in (bench.folder.sending / job / "answer.txt").read_text()


def test_code_of_a_wrong_worklist_entry_is_understood(box: Box) -> None:
    """DCM 110514."""
    tell(box.port, BEGIN, ("set", make_end(state="DISCONTINUED", reason="110514")))
    send(box.port, make_files(1))
    (job,) = become_quiet(box)

    assert read_notes(box.folder.waiting / job).is_wrong_entry


def test_steps_survive_a_restart(tmp_path: Path) -> None:
    """They are on disk before they are answered, without a name."""
    with open_box(tmp_path / "queue", quiet=3600.0) as box:
        tell(box.port, BEGIN, ALL_THREE)
        send(box.port, make_files(2))
    with open_box(tmp_path / "queue", quiet=3600.0) as box:
        assert box.arrivals.complete() == []
        send(box.port, make_files(3)[2:])
        (path,) = box.folder.steps.iterdir()
        said = path.read_text()
        assert len(box.arrivals.complete()) == 1

    for secret in (*PATIENT.values(), "Doe", "A4711", STUDY + '"'):
        assert str(secret) not in said


def test_what_a_scanner_says_twice_is_taken_once(box: Box) -> None:
    """It may have heard no answer. What it says differently of a step that has ended is refused."""
    assert tell(box.port, BEGIN, BEGIN, ALL_THREE, ALL_THREE) == [0, 0, 0, 0]
    assert tell(box.port, ("set", make_end({SERIES: list_uids(4)}))) == [0x0110]
    assert tell(box.port, ("create", make_begin("1.2.9.9"))) == [0x0111]


@pytest.mark.parametrize(
    ("message", "step", "status"),
    [
        (("set", make_end()), "1.2.3.4", 0x0112),
        (("create", make_begin("")), STEP, 0x0120),
        (("create", make_begin(PerformedProcedureStepStatus="")), STEP, 0x0120),
        (("create", make_begin(PerformedProcedureStepStatus="STARTED")), STEP, 0x0106),
        (("create", make_begin("../../etc")), STEP, 0x0106),
        (("create", make_begin()), None, 0x0117),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_what_is_no_step_is_refused(box: Box, message: tuple[str, Dataset], step: str | None, status: int) -> None:
    """With a status that says why, and nothing of it is there."""
    assert tell(box.port, message, step=step) == [status]
    assert list(box.folder.steps.iterdir()) == []


def test_disk_without_room_is_said(tmp_path: Path) -> None:
    """As to senders of images."""
    with open_box(tmp_path / "queue", least_free=1 << 60) as box:
        assert tell(box.port, BEGIN) == [0x0213]


def test_study_goes_on_when_there_is_no_room_for_more(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept free is for what ends a study."""
    tell(box.port, BEGIN, ALL_THREE)
    send(box.port, make_files(2))
    monkeypatch.setattr(box.steps, "_least_free", 1 << 60)
    assert tell(box.port, ("create", make_begin()), step=f"{STEP}.2") == [0x0213]

    (job,) = become_quiet(box)
    assert read_notes(box.folder.waiting / job).missing


@pytest.fixture
def kept(tmp_path: Path):
    folder = QueueFolder(tmp_path / "queue")
    yield Steps(folder, 0)
    folder.close()


def begin(kept: Steps, number: int, study: str | None = None, images: int = 1) -> None:
    series = {SERIES: tuple(list_uids(images))}
    kept.begin(f"1.2.{number}", Step((make_key(study or f"1.{number}"),), StepState.IN_PROGRESS, series))


def test_steps_are_bounded_in_number_and_bytes(kept: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of studies that never come, too: the oldest go."""
    monkeypatch.setattr(steps, "MOST_STEPS", 3)
    for number in range(10):
        begin(kept, number)
    assert len(list(kept._folder.steps.iterdir())) == 3
    assert kept.look(make_key("1.9"), frozenset()).notes.missing

    monkeypatch.setattr(steps, "MOST_BYTES", 5000)
    begin(kept, 10, images=100)
    assert sum(path.stat().st_size for path in kept._folder.steps.iterdir()) <= 5000


def test_study_has_so_many_steps(kept: Steps) -> None:
    """All of them are read when an image comes."""
    for number in range(steps.MOST_OF_STUDY):
        begin(kept, number, STUDY)
    with pytest.raises(StepsFullError):
        begin(kept, 99, STUDY)


def test_steps_go_when_they_are_old(kept: Steps) -> None:
    """Of studies that nobody will send any more; one that somebody has removed is forgotten."""
    for number in range(3):
        begin(kept, number)
    old, gone = sorted(kept._folder.steps.iterdir())[:2]
    past = time.time() - KEEP_SECONDS - 1
    os.utime(old, (past, past))
    gone.unlink()
    kept.expire()

    assert len(list(kept._folder.steps.iterdir())) == len(kept._studies) == 1


def test_record_that_another_program_has_changed_is_none(tmp_path: Path) -> None:
    """The gateway starts, and the study is complete when it is quiet."""
    folder = QueueFolder(tmp_path / "queue")
    for number, text in enumerate(("", "{", "[]", json.dumps({"studies": [1]}))):
        (folder.steps / f"{number}.json").write_text(text)
    Steps(folder, 0)

    assert list(folder.steps.iterdir()) == []
    folder.close()


def test_log_names_nobody(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    """Neither of what is taken nor of what is refused."""
    caplog.set_level("DEBUG", "gateway")
    tell(box.port, BEGIN, ALL_THREE, ("set", make_end()))

    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("gateway"))
    assert make_key(STUDY)[:12] in said
    for secret in (*PATIENT.values(), "Doe", STUDY, "A4711"):
        assert str(secret) not in said
