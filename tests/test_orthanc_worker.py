"""deploy/orthanc/strokeserve_worker.py: each study of an archive is judged once, whatever is stopped or away."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import wait_until
from tests.orthanc_fake import PLUGIN, FakeGateway, FakeOrthanc


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin's worker, in a hurry."""
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.syspath_prepend(PLUGIN)
    found = importlib.import_module("strokeserve_worker")
    for name in ("POLL_SECONDS", "FIRST_PAUSE", "MOST_PAUSE"):
        monkeypatch.setattr(found, name, 0.02)
    return found


class Bench:
    """A worker with its archive and its gateway."""

    def __init__(self, module: Any, folder: Path) -> None:
        self.module, self.folder = module, folder
        self.orthanc, self.gateway = FakeOrthanc(), FakeGateway(folder / "product")
        self.gateway.plan()
        self.log: list[str] = []
        self.worker: Any = None

    def start(self, **changes: Any) -> None:
        """Starts a worker, as Orthanc does when it has started."""
        settings = {
            "command": self.gateway.command,
            "directory": self.gateway.folder,
            "scratch": self.folder / "scratch",
            "timeout": 30.0,
            "give_up": 30.0,
            "stable_age": 0.0,
        }
        self.worker = self.module.Worker(self.orthanc, self.module.Settings(**settings | changes), self.log.append)
        self.worker.start()

    def wait(self, condition: Callable[[], object]) -> None:
        self.worker.wake.set()
        wait_until(condition)

    def settle(self) -> None:
        """Waits until the log of changes has been read, and nothing waits."""
        self.wait(lambda: self.worker._read == len(self.orthanc.changes) and not self.worker.list_pending())

    def outcome(self, study: str) -> Any:
        return json.loads(self.orthanc.metadata[study][self.module.METADATA])


@pytest.fixture
def bench(module: Any, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(module, tmp_path)
    yield made
    made.worker.stop()


def test_study_is_judged_when_it_is_complete(bench: Bench) -> None:
    """Its results are stored, what came of it is its metadata, and its images are nowhere else."""
    bench.start()
    bench.orthanc.add("a")
    bench.settle()

    assert bench.gateway.list_calls() == [{"images": 3, "arguments": ["--json", "--server", "box:1"]}]
    assert bench.orthanc.stored == [b"result of 3.dcm"]
    outcome = bench.outcome("a")
    assert (outcome["state"], outcome["results"], outcome["entry"]["label"]) == ("judged", ["stored-1"], "stroke")
    assert list((bench.folder / "scratch").iterdir()) == []
    assert (bench.folder / "scratch").stat().st_mode & 0o077 == 0
    assert bench.worker.list_recent() == ["a"]


def test_its_own_results_do_not_have_it_judged_again(bench: Bench) -> None:
    """Nor does anything else that is no CT image; more images do."""
    bench.start()
    bench.orthanc.add("a")
    bench.settle()
    bench.orthanc.add("a", 1, modality="SR")
    bench.settle()
    assert len(bench.gateway.list_calls()) == 1

    bench.orthanc.add("a", 1)
    bench.settle()
    assert [one["images"] for one in bench.gateway.list_calls()] == [3, 4]


def test_studies_without_ct_or_that_are_gone_are_passed_over(bench: Bench) -> None:
    """And leave nothing behind."""
    bench.start()
    bench.orthanc.add("a", modality="MR")
    bench.orthanc.add("b")
    del bench.orthanc.studies["b"]
    bench.settle()

    assert bench.gateway.list_calls() == []
    assert bench.orthanc.metadata == {}


def test_first_start_leaves_the_archive_as_it_is(bench: Bench) -> None:
    """What was there before is judged when somebody asks."""
    bench.orthanc.add("a")
    bench.start()
    bench.orthanc.add("b")
    bench.settle()
    assert bench.worker.list_recent() == ["b"]

    assert bench.worker.ask("a")
    bench.settle()
    assert bench.worker.list_recent() == ["a", "b"]


def test_study_waits_while_the_server_is_away(bench: Bench) -> None:
    """It is tried again, and the page can say why it waits."""
    bench.gateway.plan(status=1)
    bench.start()
    bench.orthanc.add("a")
    bench.wait(lambda: len(bench.gateway.list_calls()) > 1)
    assert {reason for _, reason in bench.worker.list_pending().values()} == {"SERVER_UNREACHABLE"}

    bench.gateway.plan()
    bench.settle()
    assert bench.outcome("a")["state"] == "judged"


def test_others_are_not_tried_while_the_server_is_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that somebody asks for is."""
    monkeypatch.setattr(bench.module, "FIRST_PAUSE", 600.0)
    monkeypatch.setattr(bench.module, "MOST_PAUSE", 600.0)
    bench.gateway.plan(status=1)
    bench.start()
    for images, study in enumerate("abc", start=1):
        bench.orthanc.add(study, images)
    bench.wait(bench.gateway.list_calls)
    bench.worker.ask("c")
    bench.wait(lambda: len(bench.gateway.list_calls()) == 2)

    assert [one["images"] for one in bench.gateway.list_calls()] == [1, 3]
    assert len(bench.worker.list_pending()) == 3


def test_study_that_cannot_be_looked_at_does_not_hold_up_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again like one that the server cannot be asked for."""
    read = bench.orthanc.read_dicom

    def fail(instance: str) -> bytes:
        if instance.startswith("a"):
            raise KeyError("Doe^Jane")
        return read(instance)

    monkeypatch.setattr(bench.orthanc, "read_dicom", fail)
    bench.start()
    bench.orthanc.add("a")
    bench.orthanc.add("b")
    bench.wait(lambda: bench.worker.list_recent() == ["b"])

    assert bench.worker.list_pending()["a"][1] == "FAILED"
    assert not any("Doe" in line for line in bench.log)


def test_study_is_given_up_in_the_end(bench: Bench) -> None:
    """With the reason; whoever asks gets another try."""
    bench.gateway.plan(status=1)
    bench.start(give_up=0.0)
    bench.orthanc.add("a")
    bench.settle()
    outcome = bench.outcome("a")
    assert (outcome["state"], outcome["reason"]) == ("given up", "SERVER_UNREACHABLE")

    bench.gateway.plan()
    bench.worker.ask("a")
    bench.settle()
    assert bench.outcome("a")["state"] == "judged"


def test_what_has_nothing_to_judge_is_not_tried_again(bench: Bench) -> None:
    """The command says so."""
    bench.gateway.plan(status=2, reason="NOTHING_TO_JUDGE")
    bench.start()
    bench.orthanc.add("a")
    bench.settle()

    assert bench.outcome("a")["reason"] == "NOTHING_TO_JUDGE"
    assert len(bench.gateway.list_calls()) == 1


def test_study_without_ct_is_said_to_be_one_to_whoever_asks(bench: Bench) -> None:
    """So is one with more images than anybody judges; nothing of it is written out."""
    bench.start()
    bench.orthanc.add("a", modality="MR")
    bench.settle()
    bench.worker.ask("a")
    bench.settle()
    bench.orthanc.add("b", bench.module.MOST_IMAGES + 1)
    bench.settle()

    assert [bench.outcome(study)["reason"] for study in "ab"] == ["NOTHING_TO_JUDGE", "STUDY_TOO_LARGE"]
    assert bench.gateway.list_calls() == []


def test_settings_that_the_command_refuses_are_said(bench: Bench) -> None:
    """By its own line alone; the study waits until they are mended."""
    bench.gateway.plan(status=2, reason="")
    bench.start()
    bench.orthanc.add("a")
    bench.wait(lambda: any(reason == "SETTINGS_REFUSED" for _, reason in bench.worker.list_pending().values()))

    assert "gateway judge: error: --server is wrong" in bench.log
    assert not any("Doe" in line for line in bench.log)
    bench.gateway.plan()
    bench.settle()


def test_judging_again_keeps_what_is_there_when_it_fails(bench: Bench) -> None:
    """The study has its results still, and is not judged a third time of the same images."""
    bench.start(give_up=0.0)
    bench.orthanc.add("a")
    bench.settle()
    bench.gateway.plan(status=1)
    bench.worker.ask("a")
    bench.settle()
    bench.orthanc.add("a", 1, modality="SR")
    bench.settle()

    assert bench.outcome("a")["entry"]["label"] == "stroke"
    assert len(bench.gateway.list_calls()) == 2


def test_study_that_waited_is_judged_after_a_restart(bench: Bench) -> None:
    """The log of changes is read again from where it was not done."""
    bench.gateway.plan(status=1)
    bench.start()
    bench.orthanc.add("a")
    bench.wait(bench.gateway.list_calls)
    bench.worker.stop()
    bench.gateway.plan()
    bench.start()
    bench.settle()

    assert bench.outcome("a")["state"] == "judged"


def test_study_that_was_incomplete_at_a_stop_is_judged_after_it(bench: Bench) -> None:
    """Orthanc itself forgets that it waited for more of it."""
    bench.start()
    bench.orthanc.add("a", stable=False)
    bench.settle()
    bench.worker.stop()
    bench.orthanc.studies["a"]["IsStable"] = True  # as it says when it has forgotten
    bench.start()
    bench.settle()

    assert bench.outcome("a")["state"] == "judged"


def test_command_that_hangs_is_ended(bench: Bench) -> None:
    """And the study tried again."""
    bench.gateway.plan(seconds=600)
    bench.start(timeout=0.3)
    bench.orthanc.add("a")
    bench.wait(lambda: any(reason == "COMMAND_FAILED" for _, reason in bench.worker.list_pending().values()))


def test_stop_ends_the_command_and_forgets_nothing(bench: Bench) -> None:
    """Images that were written out are removed."""
    bench.gateway.plan(seconds=600)
    bench.start()
    bench.orthanc.add("a")
    bench.wait(bench.gateway.list_calls)
    assert [is_current for is_current, _ in bench.worker.list_pending().values()] == [True]
    bench.worker.stop()
    assert list((bench.folder / "scratch").iterdir()) == []

    bench.gateway.plan()
    bench.start()
    bench.settle()
    assert bench.outcome("a")["state"] == "judged"


def test_images_that_a_killed_process_left_are_removed(bench: Bench) -> None:
    """At the next start."""
    (bench.folder / "scratch" / "study-x").mkdir(parents=True)
    bench.start()

    assert list((bench.folder / "scratch").iterdir()) == []


def test_no_more_waits_than_there_is_room_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is in Orthanc's log, and comes in its turn."""
    monkeypatch.setattr(bench.module, "MOST_PENDING", 2)
    monkeypatch.setattr(bench.module, "PAGE", 1)
    bench.gateway.plan(status=1)
    bench.start()
    for study in "abcde":
        bench.orthanc.add(study, 1)
    bench.wait(lambda: len(bench.gateway.list_calls()) > 3)
    assert len(bench.worker.list_pending()) == 2
    assert bench.worker.ask("x")
    assert bench.worker.ask("y")
    assert not bench.worker.ask("z")

    bench.gateway.plan()
    bench.settle()
    assert set(bench.worker.list_recent()) == set("abcde")


def test_archive_that_fails_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text, which may say anything, is not logged."""
    bench.start()
    with monkeypatch.context() as patch:

        def fail(path: str) -> None:
            raise RuntimeError("Doe^Jane")

        patch.setattr(bench.orthanc, "get", fail)
        bench.wait(lambda: bench.log)
    bench.orthanc.add("a")
    bench.settle()

    assert bench.log[0] == "standing still: RuntimeError"
    assert not any("Doe" in line for line in bench.log)
