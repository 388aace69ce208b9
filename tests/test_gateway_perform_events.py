"""Requests to cancel a task that is in progress: they reach its performer as events, and in no other way."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from client import ServerUnavailableError
from gateway.perform.claim import Claims, Ending
from gateway.perform.events import EventChannel, choose_channel
from gateway.perform.web import DicomWeb, WebError
from gateway.perform.workitem import State
from gateway.queue.folder import QueueFolder
from tests.dicom_files import make_item
from tests.fakes import wait_until
from tests.gateway_box import make_files
from tests.perform_box import ReadyClient, perform_once, run_performer, wait_for_state
from tests.ups_server import TASK, Handler, Service, add_task, run_service
from tests.ups_worklist import RefusalError, tag

PROGRESS = "ProcedureStepProgressInformationSequence"
REQUEST = {
    **make_item(ReasonForCancellation="another scan is coming").to_json_dict(),
    **make_item(
        ProcedureStepDiscontinuationReasonCodeSequence=[
            make_item(CodeValue="110510", CodingSchemeDesignator="DCM", CodeMeaning="Duplicate order")
        ]
    ).to_json_dict(),
}


@pytest.fixture
def service():
    with run_service(make_files(3)) as running:
        yield running


@contextmanager
def run_channel(service: Service) -> Iterator[list[str]]:
    """Where the service tells its events; the Authorization headers of those who listen."""
    websockets = pytest.importorskip("websockets.sync.server", reason="websockets is not installed: no events")
    listeners: list[str] = []

    def tell(connection: Any) -> None:
        listeners.append(connection.request.headers.get("Authorization", ""))
        title = connection.request.path.rpartition("/")[2]
        service.worklist.subscribers[title] = connection.send
        for _ in connection:
            pass
        service.worklist.subscribers.pop(title, None)

    with websockets.serve(tell, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]

        def point(request: Handler) -> bool:
            if "/subscribers/" not in request.path or request.command != "POST":
                return False
            title = request.path.rpartition("/")[2].partition("?")[0]
            request.send_response(201)
            request.send_header("Location", f"ws://127.0.0.1:{port}/ws/subscribers/{title}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return True

        service.hooks.append(point)
        try:
            yield listeners
        finally:
            server.shutdown()
            thread.join()


def test_task_is_canceled_when_somebody_asks_for_it(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the reason that was given, which may name somebody; what was judged meanwhile is not stored."""
    caplog.set_level("INFO", "gateway")
    task = add_task(service)
    client = ReadyClient(holds=True)
    with run_channel(service), run_performer(tmp_path / "queue", service, client, events=True):
        assert client.entered.wait(30)
        wait_until(lambda: any(service.worklist.subscribers.values()))
        service.worklist.request_cancel(TASK, REQUEST)
        wait_until(lambda: list((tmp_path / "queue").rglob("cancel.json")))
        client.go_on.set()
        assert wait_for_state(service, TASK) == "CANCELED"

    assert task.read(PROGRESS, "ReasonForCancellation") == "another scan is coming"
    assert "somebody wants it canceled" in caplog.text
    assert "another scan" not in caplog.text
    assert task.read(PROGRESS, "ProcedureStepDiscontinuationReasonCodeSequence", "CodeValue") == "110510"
    assert task.read(PROGRESS, "ProcedureStepCancellationDateTime")
    assert service.stored == []


def test_reason_that_is_no_code_is_not_handed_on(tmp_path: Path) -> None:
    """The worklist would refuse it, and the task could not end."""
    folder = QueueFolder(tmp_path / "queue")
    try:
        claims = Claims(folder)
        claim = claims.begin("http://ris", TASK)
        code = make_item(CodeValue="x" * 17, CodingSchemeDesignator="DCM", CodeMeaning="?")
        event = make_item(ProcedureStepDiscontinuationReasonCodeSequence=[code]).to_json_dict()
        event |= {"00001002": {"vr": "US", "Value": [2]}, "00001000": {"vr": "UI", "Value": [TASK]}}
        EventChannel(DicomWeb("http://ris"), "CAD", claims, print, print).take(json.dumps(event))
        ending = claims.find_cancel(claim)
    finally:
        folder.close()

    assert ending == Ending(
        State.CANCELED, "110513^DCM^Discontinued for unspecified reason", "somebody has asked for it"
    )


def test_request_outlives_the_process(service: Service, tmp_path: Path) -> None:
    """It is written down when it comes."""
    add_task(service)
    away = ReadyClient(holds=True)
    with run_channel(service), run_performer(tmp_path / "queue", service, away, events=True) as performer:
        assert away.entered.wait(30)
        wait_until(lambda: any(service.worklist.subscribers.values()))
        service.worklist.request_cancel(TASK, {})
        wait_until(lambda: list((tmp_path / "queue").rglob("cancel.json")))
        performer.stop()
        (claim,) = (tmp_path / "queue" / "performing").iterdir()
        saved = {path.name: path.read_bytes() for path in claim.iterdir() if path.is_file()}
        away.go_on.set()

    task = service.worklist.tasks[TASK]
    task.state = "IN PROGRESS"  # as if the process had ended in the middle
    claim.mkdir()
    for name, data in saved.items():
        (claim / name).write_bytes(data)
    assert perform_once(tmp_path / "queue", service) == 0
    assert task.state == "CANCELED"


def test_task_that_waits_is_canceled_at_once(service: Service, tmp_path: Path) -> None:
    """Not when its pause is over."""
    add_task(service)
    client = ReadyClient(ServerUnavailableError("no server answers", "SERVER_AWAY", "UNAVAILABLE"))
    with (
        run_channel(service),
        pytest.MonkeyPatch.context() as patch,
        run_performer(tmp_path / "queue", service, client, events=True) as performer,
    ):
        patch.setattr("gateway.perform.service.FIRST_PAUSE", 600.0)
        patch.setattr("gateway.perform.service.MOST_PAUSE", 600.0)
        wait_until(lambda: any(service.worklist.subscribers.values()) and performer._due)
        service.worklist.request_cancel(TASK, {})
        assert wait_for_state(service, TASK) == "CANCELED"


def test_who_asks_is_told_when_nobody_listens(service: Service, tmp_path: Path) -> None:
    """Without --events, and after the performer has stopped."""
    add_task(service)
    client = ReadyClient(holds=True)
    with run_performer(tmp_path / "queue", service, client):
        assert client.entered.wait(30)
        with pytest.raises(RefusalError, match="cannot be contacted"):
            service.worklist.request_cancel(TASK, {})
        client.go_on.set()
        assert wait_for_state(service, TASK) == "COMPLETED"


def test_subscription_ends_with_the_process(service: Service, tmp_path: Path) -> None:
    """So that the worklist does not count on it."""
    with run_channel(service), run_performer(tmp_path / "queue", service, events=True):
        wait_until(lambda: any(service.worklist.subscribers.values()))

    assert service.count(r"^DELETE .*/workitems/1\.2\.840\.10008\.5\.1\.4\.34\.5/subscribers/STROKESERVE$") == 1


def test_new_task_is_performed_at_once(service: Service, tmp_path: Path) -> None:
    """An event ends the wait for the next look."""
    with run_channel(service), run_performer(tmp_path / "queue", service, events=True, poll_seconds=600):
        wait_until(lambda: any(service.worklist.subscribers.values()))
        wait_until(lambda: service.count("^GET") >= 2)
        add_task(service)
        event = {tag("EventTypeID"): {"vr": "US", "Value": [1]}}
        service.worklist.subscribers["STROKESERVE"](json.dumps(event))
        assert wait_for_state(service, TASK) == "COMPLETED"


def test_channel_gets_the_token_and_comes_back(service: Service, tmp_path: Path) -> None:
    """After it was lost."""
    (tmp_path / "token").write_text("s3cret")
    with (
        run_channel(service) as listeners,
        run_performer(tmp_path / "queue", service, events=True, web_token=tmp_path / "token"),
    ):
        wait_until(lambda: any(service.worklist.subscribers.values()))
        service.worklist.subscribers["STROKESERVE"].__self__.close()
        wait_until(lambda: len(listeners) == 2)

    assert set(listeners) == {"Bearer s3cret"}


@pytest.mark.parametrize(
    "message",
    [b"\xff", "[", "[]", "7", "{}", '{"00001002": {"vr": "US", "Value": [2]}}', "[" * 100_000,
     '{"00001002": {"Value": [2]}, "00001000": {"Value": ["../../x"]}}',
     '{"00001002": {"Value": [2]}, "00001000": {"Value": ["1.2.3"]}}'],
)  # fmt: skip
def test_event_about_no_task_of_ours_does_nothing(tmp_path: Path, message: str | bytes) -> None:
    """Whatever it is."""
    folder = QueueFolder(tmp_path / "queue")
    try:
        EventChannel(DicomWeb("http://ris"), "CAD", Claims(folder), print, print).take(message)
        assert not any(folder.performing.iterdir())
    finally:
        folder.close()


@pytest.mark.parametrize(
    ("service_url", "told", "chosen"),
    [
        ("http://ris/dicom-web/", "", "ws://ris/dicom-web/ws/subscribers/CAD%201"),
        ("https://ris:8443/rs", "", "wss://ris:8443/rs/ws/subscribers/CAD%201"),
        ("https://ris:8443/rs", "wss://ris:8443/ws/CAD", "wss://ris:8443/ws/CAD"),
        ("https://ris/rs", "ws://ris/ws/CAD", None),
        ("https://ris/rs", "wss://elsewhere/ws/CAD", None),
        ("https://ris/rs", "wss://ris@elsewhere/ws/CAD", None),
        ("https://ris/rs", "wss://[::1/ws/CAD", None),
    ],
)
def test_channel_is_where_the_worklist_is(service_url: str, told: str, chosen: str | None) -> None:
    """The token goes there."""
    if chosen is None:
        with pytest.raises(WebError, match="channel"):
            choose_channel(service_url, told, "CAD 1")
    else:
        assert choose_channel(service_url, told, "CAD 1") == chosen
