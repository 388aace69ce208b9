"""Tasks of a worklist, performed: claimed, fetched, judged, stored and reported as the standard wants it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from client import HealthStatus, ImageTooLargeError, ServerUnavailableError
from gateway.judge.writing import WrittenResults
from gateway.perform.claim import Claims
from gateway.queue.folder import QueueFolder, make_key
from tests.dicom_files import make_item
from tests.gateway_box import make_answer, make_files, make_object
from tests.perform_box import ReadyClient, list_left, perform_once, run_performer, wait_for_state
from tests.studies import SERIES, STUDY
from tests.ups_server import CODE, TASK, Handler, Service, add_task, run_service

PERFORMED = "UnifiedProcedureStepPerformedProcedureSequence"
PROGRESS = "ProcedureStepProgressInformationSequence"
REASON = "ProcedureStepDiscontinuationReasonCodeSequence"


@pytest.fixture
def service():
    with run_service(make_files(4)) as running:
        yield running


def test_task_is_performed(service: Service, tmp_path: Path) -> None:
    """From SCHEDULED to COMPLETED; the archive has the results, and the worklist says where."""
    task = add_task(service)
    client = ReadyClient()
    assert perform_once(tmp_path / "queue", service, client) == 0

    assert service.worklist.states == [(TASK, "IN PROGRESS"), (TASK, "COMPLETED")]
    assert [len(paths) for paths in client.asked] == [4]
    (stored,) = service.stored
    output = (PERFORMED, "OutputInformationSequence")
    assert task.read(*output, "StudyInstanceUID") == STUDY
    assert task.read(*output, "ReferencedSOPSequence", "ReferencedSOPInstanceUID") == stored
    url = task.read(*output, "WADORSRetrievalSequence", "RetrieveURL")
    assert url.startswith(f"{service.url}/studies/{STUDY}/series/")
    assert url.endswith(f"/instances/{stored}")
    assert task.read(PERFORMED, "PerformedWorkitemCodeSequence", "CodeValue") == CODE["CodeValue"]
    assert task.read(PERFORMED, "PerformedStationNameCodeSequence", "CodeValue") == "STROKESERVE"
    assert task.read(PROGRESS, "ProcedureStepProgress") == 100


def test_nothing_of_a_task_stays_but_what_finds_it_again(service: Service, tmp_path: Path) -> None:
    """A line of the worklist, and the UIDs of its results; all of it for its owner alone."""
    add_task(service)
    perform_once(tmp_path / "queue", service)

    assert list_left(tmp_path / "queue") == []
    assert [path.name for path in (tmp_path / "queue" / "done").iterdir()] == [f"{make_key(STUDY)}.json"]
    (line,) = (tmp_path / "queue" / "results").iterdir()
    assert json.loads(line.read_text())["study"] == STUDY
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in (tmp_path / "queue").rglob("*"))


def test_progress_is_told(service: Service, tmp_path: Path) -> None:
    """While the images are fetched, while they are judged, while the results are stored."""
    add_task(service)
    told: list[bytes] = []

    def listen(request: Handler) -> bool:
        told.extend([request.body] if request.command == "POST" else [])
        return False

    service.hooks.append(listen)
    perform_once(tmp_path / "queue", service)

    bodies = [json.loads(body) for body in told if body.startswith(b"{")]
    items = [body["00741002"]["Value"][0] for body in bodies]
    assert [item["00741004"]["Value"] for item in items] == [[10], [50], [80], [100]]


@pytest.mark.parametrize(
    "others",
    [
        {"WorklistLabel": "PRINT"},
        {"ScheduledWorkitemCodeSequence": [make_item(**CODE | {"CodeValue": "110005"})]},
        {"ScheduledWorkitemCodeSequence": None},
        {"ScheduledStationNameCodeSequence": [make_item(**CODE | {"CodeValue": "CAD-7"})]},
        {"InputReadinessState": "INCOMPLETE"},
        {"ScheduledProcedureStepStartDateTime": "20990101000000+0000"},
    ],
    ids=["another label", "another code", "no code", "another station", "images are not there", "not yet"],
)
def test_tasks_for_others_are_left_alone(service: Service, tmp_path: Path, others: dict[str, object]) -> None:
    """Also where a worklist answers with more than it was asked for."""
    with run_service() as careless:
        task = add_task(careless, **others)
        careless.worklist.search = lambda _: [task.dataset]  # type: ignore[method-assign]
        assert perform_once(tmp_path / "queue", careless, workitem_code=("110004^DCM",)) == 0
        assert task.state == "SCHEDULED"


def test_task_for_this_station_is_performed(service: Service, tmp_path: Path) -> None:
    """By its code; and this is what the worklist is told of who it was."""
    code = make_item(CodeValue="CAD-1", CodingSchemeDesignator="99HOSP", CodeMeaning="Box")
    task = add_task(service, ScheduledStationNameCodeSequence=[code])
    perform_once(tmp_path / "queue", service, station="CAD-1^99HOSP^Box in the cellar")

    assert task.state == "COMPLETED"
    assert task.read(PERFORMED, "PerformedStationNameCodeSequence", "CodeMeaning") == "Box in the cellar"


def test_station_alone_takes_what_is_meant_for_it(service: Service, tmp_path: Path) -> None:
    """A task for no station in particular may be of any kind."""
    codes = [
        make_item(CodeValue=f"CAD-{number}", CodingSchemeDesignator="99HOSP", CodeMeaning="x") for number in (1, 2)
    ]
    own, other = (add_task(service, str(code.CodeValue[-1]), ScheduledStationNameCodeSequence=[code]) for code in codes)
    anybody = add_task(service, "3")
    perform_once(tmp_path / "queue", service, station="CAD-1^99HOSP", label="")

    assert [task.state for task in (own, other, anybody)] == ["COMPLETED", "SCHEDULED", "SCHEDULED"]


def test_tasks_of_others_hide_none_of_ours(service: Service, tmp_path: Path) -> None:
    """However many stand before it; and a server that knows no pages is not asked for ever."""
    for number in range(250):
        add_task(service, f"1.{number}", ScheduledWorkitemCodeSequence=None)
    ours = add_task(service)
    assert perform_once(tmp_path / "queue", service, workitem_code=("110004^DCM", "110005^DCM")) == 0
    assert ours.state == "COMPLETED"

    everything = [task.dataset for task in service.worklist.tasks.values()]
    service.worklist.search = lambda _: everything  # type: ignore[method-assign]
    before = service.count("^GET")
    assert perform_once(tmp_path / "queue", service, workitem_code=("110004^DCM",)) == 0
    assert service.count("^GET") - before == 2


def test_title_may_be_a_part_of_the_path(service: Service, tmp_path: Path) -> None:
    """As dcm4chee wants it."""
    add_task(service)
    perform_once(tmp_path / "queue", service, title="CAD 1", title_in_path=True)

    assert service.count(r"^PUT .*/state/CAD%201$") == 1


def test_most_urgent_task_is_the_first(service: Service, tmp_path: Path) -> None:
    """Then the one that has waited longest."""
    for uid, priority, start in (("2.1", "LOW", "2020"), ("2.2", "MEDIUM", "2021"), ("2.3", "HIGH", "2022")):
        add_task(service, uid, ScheduledProcedureStepPriority=priority, ScheduledProcedureStepStartDateTime=start)
    add_task(service, "2.4", ScheduledProcedureStepStartDateTime="2020")
    perform_once(tmp_path / "queue", service)

    assert [uid for uid, state in service.worklist.states if state == "COMPLETED"] == ["2.3", "2.4", "2.2", "2.1"]


def test_same_study_and_model_give_results_once(service: Service, tmp_path: Path) -> None:
    """A second task about them refers to what is there; another model makes another result."""
    add_task(service, "2.1")
    add_task(service, "2.2")
    perform_once(tmp_path / "queue", service)
    assert len(service.stored) == 1
    outputs = [
        service.worklist.tasks[uid].read(PERFORMED, "OutputInformationSequence", "ReferencedSOPSequence")
        for uid in ("2.1", "2.2")
    ]
    assert outputs[0] == outputs[1] is not None

    add_task(service, "2.3")
    perform_once(tmp_path / "queue", service, ReadyClient(make_answer(digest="1" * 64)))
    assert len(service.stored) == 2


def test_nothing_is_claimed_while_the_server_is_not_ready(service: Service, tmp_path: Path) -> None:
    """Another performer may have one that is."""
    task = add_task(service)
    assert perform_once(tmp_path / "queue", service, ReadyClient(health=HealthStatus.NOT_SERVING)) == 1

    assert task.state == "SCHEDULED"
    assert service.count("PUT") == 0


def test_performers_share_a_worklist(service: Service, tmp_path: Path) -> None:
    """Each task is performed once, by one of them."""
    uids = [f"2.25.{number}" for number in range(12)]
    for uid in uids:
        add_task(service, uid)
    with (
        run_performer(tmp_path / "one", service, tasks=2) as first,
        run_performer(tmp_path / "other", service, tasks=2) as second,
    ):
        for uid in uids:
            assert wait_for_state(service, uid) == "COMPLETED"

    assert len(service.worklist.states) == 24
    assert len(service.stored) <= 2  # each performer may have stored them, as the same objects
    assert sum(first.ended.values()) + sum(second.ended.values()) == 12


def test_task_that_another_was_first_to_claim_is_theirs(service: Service, tmp_path: Path) -> None:
    """Between search and claim; the next one is performed."""
    theirs, ours = add_task(service, "2.1"), add_task(service, "2.2")

    def claim_first(request: Handler) -> bool:
        if request.command == "PUT" and not theirs.transaction:
            theirs.transaction, theirs.state = "2.25.1", "IN PROGRESS"
        return False

    service.hooks.append(claim_first)
    assert perform_once(tmp_path / "queue", service) == 0

    assert (theirs.state, theirs.transaction) == ("IN PROGRESS", "2.25.1")
    assert ours.state == "COMPLETED"
    assert list_left(tmp_path / "queue") == []


def test_images_may_be_a_whole_study(service: Service, tmp_path: Path) -> None:
    """Of the request, where the task names no input; what is no CT image of it is not judged."""
    service.instances["2.25.9"] = make_object(STUDY, "2.25.9")
    request = make_item(StudyInstanceUID=STUDY)
    task = add_task(service, InputInformationSequence=[], ReferencedRequestSequence=[request])
    client = ReadyClient()
    perform_once(tmp_path / "queue", service, client)

    assert task.state == "COMPLETED"
    assert [len(paths) for paths in client.asked] == [4]


def test_images_may_be_named_one_by_one(service: Service, tmp_path: Path) -> None:
    """Others of the series are not judged."""
    wanted = [make_item(ReferencedSOPInstanceUID=f"{SERIES}.{number}") for number in (1, 3)]
    source = make_item(StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES, ReferencedSOPSequence=wanted)
    add_task(service, InputInformationSequence=[source])
    client = ReadyClient()
    perform_once(tmp_path / "queue", service, client)

    assert [len(paths) for paths in client.asked] == [2]


def test_images_are_fetched_unpacked_where_the_archive_can(service: Service, tmp_path: Path) -> None:
    """By the standard's default; from one that cannot as they are."""
    add_task(service)
    accepted: list[str] = []

    def refuse_first(request: Handler) -> bool:
        if "/studies/" in request.path and request.command == "GET":
            accepted.append(request.headers["Accept"])
            if len(accepted) == 1:
                request.answer(406)
                return True
        return False

    service.hooks.append(refuse_first)
    assert perform_once(tmp_path / "queue", service) == 0
    assert ["transfer-syntax" in one for one in accepted] == [False, True]


CANNOT = {
    "no images named": ({"InputInformationSequence": []}, "110523"),
    "no such study": ({"study": "1.2.3"}, "110523"),
    "an image that is not there": (
        {
            "InputInformationSequence": [
                make_item(
                    StudyInstanceUID=STUDY,
                    SeriesInstanceUID=SERIES,
                    ReferencedSOPSequence=[make_item(ReferencedSOPInstanceUID="1.2.3")],
                )
            ]
        },
        "110523",
    ),
    "images of two studies": (
        {"InputInformationSequence": [make_item(StudyInstanceUID=uid) for uid in ("1.2", "1.3")]},
        "110521",
    ),
}


@pytest.mark.parametrize("why", CANNOT)
def test_task_that_cannot_be_performed_is_canceled_with_the_reason(service: Service, tmp_path: Path, why: str) -> None:
    """As a code that others understand, and as a sentence; nothing is stored."""
    tags, code = CANNOT[why]
    task = add_task(service, **tags)
    assert perform_once(tmp_path / "queue", service) == 0

    assert task.state == "CANCELED"
    assert task.read(PROGRESS, REASON, "CodeValue") == code
    assert task.read(PROGRESS, "ReasonForCancellation")
    assert service.stored == []
    assert list_left(tmp_path / "queue") == []


def test_study_without_a_ct_image_is_not_for_us(tmp_path: Path) -> None:
    """An object of another kind, say."""
    with run_service([make_object(STUDY, "2.25.9")]) as service:
        task = add_task(service, series="2.25.9.1")
        perform_once(tmp_path / "queue", service)
        assert task.read(PROGRESS, REASON, "CodeValue") == "110522"


def test_study_that_the_server_refuses_has_results_that_say_why(service: Service, tmp_path: Path) -> None:
    """The task is canceled, since its goal was not reached, and refers to them."""
    task = add_task(service)
    error = ImageTooLargeError("too many slices", "STUDY_TOO_LARGE", "RESOURCE_EXHAUSTED")
    assert perform_once(tmp_path / "queue", service, ReadyClient(error)) == 0

    assert task.state == "CANCELED"
    assert "STUDY_TOO_LARGE" in task.read(PROGRESS, "ReasonForCancellation")
    (stored,) = service.stored
    output = (PERFORMED, "OutputInformationSequence", "ReferencedSOPSequence", "ReferencedSOPInstanceUID")
    assert task.read(*output) == stored


def test_task_waits_for_a_server_that_is_away(service: Service, tmp_path: Path) -> None:
    """With --once for the next run, which goes on with it under the same Transaction UID."""
    task = add_task(service)
    away = ReadyClient(ServerUnavailableError("no server answers", "SERVER_AWAY", "UNAVAILABLE"))
    assert perform_once(tmp_path / "queue", service, away) == 1
    assert task.state == "IN PROGRESS"
    fetched = service.count("/studies/")

    assert perform_once(tmp_path / "queue", service) == 0
    assert task.state == "COMPLETED"
    assert service.count("GET .*/studies/") == fetched  # its images were there


def test_task_that_has_waited_for_long_enough_is_canceled(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worklist may give it to somebody else."""
    task = add_task(service)
    away = ReadyClient(ServerUnavailableError("no server answers", "SERVER_AWAY", "UNAVAILABLE"))
    perform_once(tmp_path / "queue", service, away)
    monkeypatch.setattr("gateway.perform.claim.Claim.age", 90_000.0)
    assert perform_once(tmp_path / "queue", service, away) == 0

    assert task.state == "CANCELED"
    assert task.read(PROGRESS, REASON, "CodeValue") == "110527"
    assert list_left(tmp_path / "queue") == []


def test_images_that_no_result_can_be_made_of_end_the_task(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it would be the next time."""

    def fail(*_: object) -> WrittenResults:
        raise TypeError("Doe^Jane")

    monkeypatch.setattr("tests.perform_box.make_written", fail)
    task = add_task(service)
    assert perform_once(tmp_path / "queue", service) == 0
    assert task.state == "CANCELED"
    assert "(TypeError)" in task.read(PROGRESS, "ReasonForCancellation")


def test_disk_that_is_full_is_waited_for(service: Service, tmp_path: Path) -> None:
    """Nothing is fetched meanwhile."""
    task = add_task(service)
    assert perform_once(tmp_path / "queue", service, least_free_mb=10**6) == 1
    assert service.count("/studies/") == 0

    assert perform_once(tmp_path / "queue", service) == 0
    assert task.state == "COMPLETED"


def test_task_of_another_worklist_waits_for_it(service: Service, tmp_path: Path) -> None:
    """One that was claimed there cannot be ended here."""
    folder = QueueFolder(tmp_path / "queue")
    Claims(folder).begin("http://elsewhere/dicom-web", "2.25.5")
    folder.close()
    assert perform_once(tmp_path / "queue", service) == 0
    assert len(list_left(tmp_path / "queue")) == 1


def test_log_names_nobody(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither patient nor study nor task, and no token."""
    caplog.set_level("DEBUG")
    (tmp_path / "token").write_text("s3cret\n")
    add_task(service)
    add_task(service, "2.25.77", study="1.2.3")
    perform_once(tmp_path / "queue", service, web_token=tmp_path / "token")

    assert service.tokens == {"Bearer s3cret"}
    said = caplog.text + "".join(capsys.readouterr())
    assert make_key(TASK)[:12] in said
    for secret in ("Doe", "4711", STUDY, SERIES, TASK, "2.25.77", "s3cret"):
        assert secret not in said
