"""Servers that hang, answer something else, or lie; and tasks that would send the performer elsewhere."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.deliver import exchange
from gateway.perform import web as speaking
from gateway.perform.datasets import Item
from gateway.perform.retrieve import Bounds, IncompleteError, Retriever
from gateway.perform.service import Performer
from gateway.perform.web import DicomWeb, WebError, find_origin
from gateway.perform.workitem import Source, WorkitemError, read_workitem
from gateway.perform.worklist import Worklist
from tests.gateway_box import make_files, make_written
from tests.perform_box import ReadyClient, make_config, perform_once
from tests.studies import SERIES, STUDY
from tests.ups_server import TASK, Handler, Service, add_task, make_task, run_service

BOUNDS = Bounds(most_instances=10, most_instance_bytes=100_000, most_bytes=300_000)
SOURCE = Source(STUDY, SERIES)
MULTIPART = 'multipart/related; type="application/dicom"; boundary=cut'


@pytest.fixture
def service():
    with run_service(make_files(3)) as running:
        yield running


def answer_all(service: Service, body: bytes, status: int = 200, kind: str = "application/dicom+json") -> None:
    def answer(request: Handler) -> bool:
        request.answer(status, body, kind=kind)
        return True

    service.hooks.append(answer)


def make_retriever(service: Service, folder: Path, *others: str, bounds: Bounds = BOUNDS) -> Callable[[Source], Any]:
    """Fetches into a folder."""
    retriever = Retriever(DicomWeb(service.url), frozenset(map(find_origin, others)), bounds, lambda _: None)
    return lambda source: retriever.fetch([source], folder)


NO_LIST: dict[str, tuple[bytes, int]] = {
    "no JSON": (b"<html>", 200),
    "half of it": (b'[{"00080018": {"vr": ', 200),
    "nothing": (b"", 200),
    "no data sets": (b'["a", 1, null]', 200),
    "nested": (b"[" * 200_000, 200),
    "a long number": (b"9" * 10_000, 200),
    "500": (b"", 500),
    "refused": (b"", 403),
    "another place": (b"", 302),
}


@pytest.mark.parametrize("what", NO_LIST)
def test_answer_that_is_no_worklist_is_an_error(service: Service, what: str) -> None:
    """Of a sentence, which repeats nothing of it."""
    body, status = NO_LIST[what]
    answer_all(service, body, status)
    worklist = Worklist(DicomWeb(service.url), "CAD")
    for ask in (lambda: worklist.search({}), lambda: worklist.get(TASK)):
        with pytest.raises(WebError) as raised:
            ask()
        assert len(str(raised.value)) < 100


def test_answer_that_is_too_long_is_not_read_to_its_end(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is."""
    monkeypatch.setattr(speaking, "MOST_BODY_BYTES", 1000)
    answer_all(service, b" " * 10_000_000)
    with pytest.raises(WebError, match="longer than 1000 bytes"):
        Worklist(DicomWeb(service.url), "CAD").search({})


def test_task_that_cannot_be_read_hides_no_other(service: Service) -> None:
    """Elements of another kind than they should be, or UIDs that would lead elsewhere."""
    good = make_task().to_json_dict()
    bad: list[Item] = [
        good | {"00080018": {"vr": "UI", "Value": [value]}} for value in ("..", "1/../2", "", None, [], 7.5)
    ]
    bad += [{}, {"00080018": "1.2"}, good | {"00741000": {"vr": "CS", "Value": ["NEW"]}}, {"00080018": {"Value": {}}}]
    answer_all(service, json.dumps([*bad, good]).encode())

    assert [one.uid for one in Worklist(DicomWeb(service.url), "CAD").search({})][-1:] == [TASK]


def test_another_task_than_the_one_that_was_asked_for_is_an_error(service: Service) -> None:
    """Its images would be judged in place of the right ones."""
    answer_all(service, json.dumps([make_task("2.25.7").to_json_dict()]).encode())
    with pytest.raises(WebError, match="another task"):
        Worklist(DicomWeb(service.url), "CAD").get(TASK)


@pytest.mark.parametrize("uid", ["..", "1.2/../3", "1.2?x", "1." * 40, "1.2\n"])
def test_uids_of_images_are_uids(uid: str) -> None:
    """They become a part of a path."""
    with pytest.raises(WorkitemError):
        read_workitem(make_task(study=uid.replace("\n", " x")).to_json_dict())


def test_more_images_than_any_study_has_are_not_a_task() -> None:
    """A list without end would be worked through."""
    item = make_task().to_json_dict()
    (source,) = item["00404021"]["Value"]
    item["00404021"]["Value"] = [source] * 1001
    with pytest.raises(WorkitemError, match="more images"):
        read_workitem(item)


def test_no_address_is_followed(service: Service) -> None:
    """The token would go there."""
    with run_service() as other:

        def redirect(request: Handler) -> bool:
            request.send_response(307)
            request.send_header("Location", f"{other.url}/workitems")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return True

        service.hooks.append(redirect)
        with pytest.raises(WebError, match="307"):
            Worklist(DicomWeb(service.url), "CAD").search({})
        assert other.requests == []


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n["], ids=["silent", "head", "body"]
)
def test_server_that_has_no_end_is_not_waited_for(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sends a byte now and then keeps every timeout of a socket from firing."""
    monkeypatch.setattr(exchange, "WAIT_SECONDS", 30.0)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server, head, done))
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        try:
            with (
                pytest.raises(exchange.NoAnswerError, match=r"longer than 0\.3 s"),
                exchange.ask("GET", url, None, {}, ca=None, token=None, seconds=0.3) as answer,
            ):
                answer.read()
        finally:
            done.set()
            thread.join()


def drip(server: socket.socket, head: bytes, done: threading.Event) -> None:
    connection, _ = server.accept()
    with connection:
        try:
            while not done.wait(0.02):
                connection.sendall(head[:1] or b"")
                head = head[1:] + b" " if head else b""
        except OSError:
            return


NO_IMAGES: dict[str, tuple[bytes, str, str]] = {
    "no parts": (b"x", "text/html", "no multipart"),
    "no boundary": (b"x", 'multipart/related; type="application/dicom"', "no multipart"),
    "no end": (b"--cut\r\n\r\nabc", MULTIPART, "no end"),
    "no first boundary": (b"x" * 100_000, MULTIPART, "longer"),
    "a part that is too long": (b"--cut\r\n\r\n" + b"x" * 200_000, MULTIPART, "longer"),
    "headers that are too long": (b"--cut\r\n" + b"a: b\r\n" * 9000, MULTIPART, "longer"),
    "no DICOM": (b"--cut\r\n\r\nabc\r\n--cut--", MULTIPART, "something else than an instance"),
}


@pytest.mark.parametrize("what", NO_IMAGES)
def test_answer_that_is_no_images_is_an_error(service: Service, tmp_path: Path, what: str) -> None:
    """And nothing of it is kept."""
    body, kind, why = NO_IMAGES[what]
    answer_all(service, body, kind=kind)
    with pytest.raises(WebError, match=why):
        make_retriever(service, tmp_path)(SOURCE)
    assert list(tmp_path.iterdir()) == []


def test_images_of_another_study_are_not_judged(service: Service, tmp_path: Path) -> None:
    """An archive that mixes them up would have one patient's result in another's study."""
    files = make_files(1, study="1.2.3")
    parts = b"".join(b"--cut\r\nContent-Type: application/dicom\r\n\r\n" + one + b"\r\n" for one in files)
    answer_all(service, parts + b"--cut--", kind=MULTIPART)
    with pytest.raises(WebError, match="another study") as raised:
        make_retriever(service, tmp_path)(SOURCE)
    assert not raised.value.may_pass


@pytest.mark.parametrize("bounds", [Bounds(2, 100_000, 300_000), Bounds(10, 100_000, 20_000)], ids=["count", "bytes"])
def test_more_images_than_allowed_are_not_fetched(service: Service, tmp_path: Path, bounds: Bounds) -> None:
    """The task ends with that as the reason."""
    with pytest.raises(IncompleteError, match="more images than"):
        make_retriever(service, tmp_path, bounds=bounds)(SOURCE)


@pytest.mark.parametrize("header", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_answer_that_is_cut_off_is_not_the_whole_study(service: Service, tmp_path: Path, header: str) -> None:
    """It is fetched again."""

    def cut(request: Handler) -> bool:
        request.send_response(200)
        request.send_header("Content-Type", MULTIPART)
        request.send_header(*header.split(": "))
        request.end_headers()
        request.wfile.write(b"20\r\n--cut\r\n\r\n")
        request.close_connection = True
        return True

    service.hooks.append(cut)
    with pytest.raises(WebError) as raised:
        make_retriever(service, tmp_path)(SOURCE)
    assert raised.value.may_pass


def test_images_come_from_where_the_task_says_only_if_that_is_known(service: Service, tmp_path: Path) -> None:
    """By the archive's origin, or one of --retrieve-from; elsewhere the archive is asked for the same images."""
    path = f"/studies/{STUDY}/series/{SERIES}"
    with run_service(make_files(3)) as other:
        source = Source(STUDY, SERIES, url=other.url + path)
        make_retriever(service, tmp_path)(source)
        assert (len(service.requests), other.requests) == (1, [])

        make_retriever(service, tmp_path, other.url)(source)
        assert (len(service.requests), len(other.requests)) == (1, 1)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1/studies/1",
        "http://169.254.169.254/studies/{study}/series/{series}",
        "{origin}/dicom-web/studies/{study}",
        "{origin}/dicom-web/studies/1.2.3/series/{series}",
        "{origin}/tools/shutdown?/studies/{study}/series/{series}",
        "{origin}/dicom-web/studies/{study}/series/{series}?x=/studies/{study}/series/{series}/delete",
        "{origin}/dicom-web/studies/{study}/series/{series}#x",
        "{origin}/a b/studies/{study}/series/{series}",
        "{origin}/é/studies/{study}/series/{series}",
        "http://user@127.0.0.1/studies/{study}/series/{series}",
        "http://[::1/studies",
        "http://127.0.0.1:port/studies/{study}/series/{series}",
        "{origin}/dicom-web/studies/{study}/series/{series}/instances/1.2.3",
    ],
)
def test_url_of_something_else_is_not_asked_for(service: Service, tmp_path: Path, url: str) -> None:
    """Of whatever else, or elsewhere."""
    origin = service.url.removesuffix("/dicom-web")
    retriever = Retriever(DicomWeb(service.url), frozenset(), BOUNDS, lambda _: None)
    source = Source(STUDY, SERIES, url=url.format(origin=origin, study=STUDY, series=SERIES))

    assert retriever.choose_url(source) == f"{service.url}/studies/{STUDY}/series/{SERIES}"


@pytest.mark.parametrize("command", ["GET", "PUT", "POST"])
def test_service_that_answers_500_now_and_then_costs_time_alone(service: Service, tmp_path: Path, command: str) -> None:
    """Each kind of request fails at first."""
    task = add_task(service)
    left = [1, 1]

    def fail(request: Handler) -> bool:
        if request.command == command and left:
            left.pop()
            request.answer(500)
            return True
        return False

    service.hooks.append(fail)
    for _ in range(4):
        perform_once(tmp_path / "queue", service)
    assert task.state == "COMPLETED"
    assert len(set(service.stored)) == 1


def test_archive_that_refuses_results_ends_the_task(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some tries, with the reason."""
    monkeypatch.setattr("gateway.perform.task.MOST_REFUSALS", 1)
    task = add_task(service)

    def refuse(request: Handler) -> bool:
        if request.path.endswith("/studies"):
            request.answer(400)
            return True
        return False

    service.hooks.append(refuse)
    assert perform_once(tmp_path / "queue", service) == 0
    assert task.state == "CANCELED"
    assert "did not take the results" in task.read("ProcedureStepProgressInformationSequence", "ReasonForCancellation")


def test_worklist_that_does_not_let_a_task_end_is_asked_again(service: Service, tmp_path: Path) -> None:
    """It is not forgotten while it is ours."""
    task = add_task(service)

    def refuse(request: Handler) -> bool:
        if request.command == "PUT" and b"COMPLETED" in request.body:
            request.answer(409)
            return True
        return False

    service.hooks.append(refuse)
    assert perform_once(tmp_path / "queue", service) == 1
    assert task.state == "IN PROGRESS"
    service.hooks.clear()
    assert perform_once(tmp_path / "queue", service) == 0
    assert task.state == "COMPLETED"
    assert len(service.stored) == 1


def test_worklist_that_hangs_holds_no_stop_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for when there is nothing in hand."""
    monkeypatch.setattr("gateway.perform.service.LAST_SECONDS", 0.1)
    asked, done = threading.Event(), threading.Event()

    def hang(request: Handler) -> bool:
        asked.set()
        assert done.wait(30)
        return False

    with run_service() as service:
        service.hooks.append(hang)
        performer = Performer(make_config(tmp_path / "queue", service), ReadyClient(), make_written)  # type: ignore[arg-type]
        thread = threading.Thread(target=performer.run)
        thread.start()
        assert asked.wait(30)
        performer.stop()
        thread.join(30)
        is_over = not thread.is_alive()
        done.set()

    assert is_over
