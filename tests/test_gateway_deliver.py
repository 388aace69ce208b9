"""Results on their way: to each destination until it has them, and not for ever."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pydicom
import pytest
import trustme

from gateway.addresses import read_address
from gateway.deliver import outbox as delivering
from gateway.deliver.c_store import CStoreDestination
from gateway.deliver.destination import DeliveryError, ResultFile
from gateway.deliver.folder import FolderDestination
from gateway.deliver.outbox import MOST_REFUSALS, Outbox, Trouble
from gateway.deliver.stow import StowDestination
from gateway.judge.writing import WrittenResults, write_results
from gateway.queue.endings import Endings
from gateway.queue.folder import QueueFolder, make_job, make_key
from tests.gateway_box import make_object, open_archive
from tests.studies import STUDY

UID = "2.25.7"
FILES = [ResultFile("sc.dcm", make_object(STUDY, UID)), ResultFile("fhir.json", b"{}")]

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


class Stub:
    """A destination that does as it is told."""

    def __init__(self, name: str) -> None:
        self.name, self.error, self.got = name, "", 0
        self.is_refusal = False

    def send(self, files: Sequence[ResultFile]) -> None:
        assert [file.name for file in files] == ["sc.dcm", "fhir.json"]
        if self.error:
            raise DeliveryError(self.error, is_refusal=self.is_refusal)
        self.got += 1


class Bench:
    """Results of a study, and two destinations."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(delivering.time, "monotonic", lambda: self.now)
        self.folder = QueueFolder(root / "queue")
        self.endings = Endings(self.folder, 30, 7)
        self.outbox = Outbox(self.folder, self.endings, give_up_seconds=3600)
        self.first, self.second = Stub("first"), Stub("second")
        self.troubles: dict[str, dict[str, Trouble]] = {"first": {}, "second": {}}
        self.job = self.add()

    def add(self, study: str = STUDY) -> str:
        job = make_job(make_key(study))
        results = WrittenResults({file.name: file.data for file in FILES}, (UID,))
        write_results(self.folder, job, results, [self.first.name, self.second.name])
        return job

    def deliver(self, *destinations: Stub) -> None:
        for one in destinations or (self.first, self.second):
            self.outbox.deliver(one, self.troubles[one.name], threading.Event())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = Bench(tmp_path, monkeypatch)
    yield made
    made.folder.close()


def test_results_are_removed_when_all_have_them(bench: Bench) -> None:
    """And it is remembered which they were."""
    bench.deliver(bench.first)
    assert bench.folder.count()["sending"] == 1
    bench.deliver()

    assert (bench.first.got, bench.second.got) == (1, 1)
    assert bench.folder.count()["sending"] == 0
    assert bench.endings.recall(bench.job) == {(UID,)}


def test_destination_that_is_away_is_tried_less_and_less_often(bench: Bench) -> None:
    """And holds up no other."""
    bench.second.error = "it cannot be reached"
    bench.add("1.9")
    pauses = []
    for _ in range(8):
        bench.deliver()
        trouble = bench.troubles["second"][bench.job]
        pauses.append(trouble.due - bench.now)
        bench.now = trouble.due
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert bench.first.got == 2

    bench.second.error = ""
    bench.deliver()
    assert bench.second.got == 2
    assert bench.folder.count()["sending"] == 0


def test_library_that_fails_counts_as_trouble(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """At an answer of another kind, say: it is tried again, and holds up nobody."""

    def fail(files: Sequence[ResultFile]) -> None:
        raise RuntimeError("unforeseen")

    with monkeypatch.context() as patch:
        patch.setattr(bench.second, "send", fail)
        bench.deliver()
        assert bench.troubles["second"][bench.job].tries == 1
    bench.now += 60
    bench.deliver()

    assert (bench.first.got, bench.second.got) == (1, 1)


def test_what_is_refused_is_given_up_with_the_reason(bench: Bench) -> None:
    """After some tries; the other destination has it, and later studies are sent."""
    bench.second.error, bench.second.is_refusal = "it answered with status A900", True
    for _ in range(MOST_REFUSALS):
        bench.deliver()
        bench.now += 60

    reason = json.loads((bench.folder.failed / bench.job / "reason.json").read_text())
    assert reason == {"reason": "NOT_DELIVERED", "message": "second: it answered with status A900", "from": "sending"}
    assert (bench.folder.failed / bench.job / "sc.dcm").is_file()
    assert bench.first.got == 1
    assert bench.endings.recall(bench.job) == set()


def test_destination_that_never_comes_back_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that is set, across restarts."""
    bench.second.error = "it cannot be reached"
    bench.deliver()
    later = time.time() + 3601
    monkeypatch.setattr(delivering.time, "time", lambda: later)
    bench.now += 60
    bench.deliver()

    assert bench.folder.count()["failed"] == 1


def test_what_was_given_up_can_be_put_back(bench: Bench) -> None:
    """By moving its folder; destinations that have it are not sent it again."""
    bench.second.error, bench.second.is_refusal = "it answered with status A900", True
    for _ in range(MOST_REFUSALS):
        bench.deliver()
        bench.now += 60
    bench.second.error = ""
    (bench.folder.failed / bench.job).rename(bench.folder.sending / bench.job)
    bench.deliver()

    assert (bench.first.got, bench.second.got) == (1, 1)
    assert bench.folder.count()["sending"] == bench.folder.count()["failed"] == 0


def test_destination_that_is_none_any_more_holds_nothing_up(bench: Bench) -> None:
    """After a restart with other settings."""
    bench.outbox.drop_strangers([bench.first])
    bench.deliver(bench.first)

    assert "no destination any more" in (bench.folder.failed / bench.job / "reason.json").read_text()


def test_journal_that_was_altered_is_put_aside(bench: Bench) -> None:
    """And what comes after is delivered."""
    (bench.folder.sending / bench.job / "journal.json").write_text("[]")
    bench.add("1.9")
    bench.deliver()

    assert "JOURNAL_UNREADABLE" in (bench.folder.failed / bench.job / "reason.json").read_text()
    assert bench.first.got == 1


def test_archive_gets_objects_by_c_store() -> None:
    """Nothing but objects; the same again is the same."""
    with open_archive() as archive:
        destination = CStoreDestination(*read_address(archive.address), calling="STROKESERVE")
        destination.send(FILES)
        destination.send(FILES)

        assert archive.received == [UID, UID]
        assert archive.datasets[UID].StudyInstanceUID == STUDY


@pytest.mark.parametrize(
    ("status", "refused"), [(0x0111, None), (0xB000, None), (0xA700, False), (0xA900, True), (0xC001, True)]
)
def test_answers_of_an_archive_are_told_apart(status: int, refused: bool | None) -> None:
    """Whether it has the object, may yet take it, or does not want it."""
    with open_archive() as archive:
        archive.status = status
        destination = CStoreDestination(*read_address(archive.address), calling="STROKESERVE")
        if refused is None:
            destination.send(FILES)
            return
        with pytest.raises(DeliveryError, match=f"{status:04X}") as raised:
            destination.send(FILES)
        assert raised.value.is_refusal is refused


def test_archive_that_does_not_take_the_class_refuses() -> None:
    """Some take no structured reports."""
    other = make_object(STUDY, UID).replace(b"1.2.840.10008.5.1.4.1.1.7\0", b"1.2.840.10008.5.1.4.1.1.2\0")
    with open_archive() as archive, pytest.raises(DeliveryError) as raised:
        CStoreDestination(*read_address(archive.address), calling="STROKESERVE").send([ResultFile("x.dcm", other)])
    assert not archive.received
    assert raised.value.is_refusal or "association" in str(raised.value) or "reached" in str(raised.value)


def test_archive_that_is_away_may_come_back() -> None:
    """It is no refusal."""
    with open_archive() as archive:
        destination = CStoreDestination(*read_address(archive.address), calling="STROKESERVE")
    with pytest.raises(DeliveryError, match="cannot be reached") as raised:
        destination.send(FILES)
    assert not raised.value.is_refusal


def test_archive_is_spoken_to_over_tls() -> None:
    """And has to prove who it is."""
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with open_archive(ssl_context=context) as archive:
        for known, is_taken in ((authority, True), (stranger, False)):
            trust = ssl.create_default_context()
            known.configure_trust(trust)
            destination = CStoreDestination(*read_address(archive.address), calling="STROKESERVE", tls=trust)
            if is_taken:
                destination.send(FILES)
            else:
                with pytest.raises(DeliveryError):
                    destination.send(FILES)
        assert archive.received == [UID]


class Stow(BaseHTTPRequestHandler):
    """Answers as it is told."""

    status, failure, seen = 200, 0, []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).seen.append((self.path, self.headers.get("Authorization"), body))
        answer = pydicom.Dataset()
        if self.failure:
            item = pydicom.Dataset()
            item.FailureReason = self.failure
            answer.FailedSOPSequence = [item]
        data = json.dumps([answer.to_json_dict()] if self.status == 202 else answer.to_json_dict()).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stow():
    """The URL of a DICOMweb service, and what it is told."""
    kind = type("Told", (Stow,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web", kind
    server.shutdown()
    server.server_close()


def test_archive_gets_objects_by_stow(stow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token where there is one, and by no proxy of the environment."""
    url, service = stow
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    token = tmp_path / "token"
    token.write_text("secret\n")
    StowDestination(url, token=token).send(FILES)

    ((path, authorization, body),) = service.seen
    assert (path, authorization) == ("/dicom-web/studies", "Bearer secret")
    assert b"DICM" in body
    assert b"{}" not in body


@pytest.mark.parametrize(
    ("status", "failure", "refused"),
    [
        (200, 0, None),
        (202, 0x0111, None),
        (202, 0xA900, True),
        (409, 0x0111, None),
        (409, 0xC000, True),
        (400, 0, True),
        (503, 0, False),
        (401, 0, False),
    ],
)
def test_answers_of_a_service_are_told_apart(stow, status: int, failure: int, refused: bool | None) -> None:
    """Whether it has the object, may yet take it, or does not want it."""
    url, service = stow
    service.status, service.failure = status, failure
    if refused is None:
        StowDestination(url).send(FILES)
        return
    with pytest.raises(DeliveryError) as raised:
        StowDestination(url).send(FILES)
    assert raised.value.is_refusal is refused


def test_service_that_is_away_may_come_back(tmp_path: Path) -> None:
    """So may a token's file."""
    for destination in (
        StowDestination("http://127.0.0.1:9/dicom-web"),
        StowDestination("http://127.0.0.1:9/dicom-web", token=tmp_path / "missing"),
    ):
        with pytest.raises(DeliveryError) as raised:
            destination.send(FILES)
        assert not raised.value.is_refusal


def test_folder_gets_everything(tmp_path: Path) -> None:
    """Under names that are the same for the same results."""
    for _ in range(2):
        FolderDestination(tmp_path).send(FILES)
    names = sorted(path.name.partition("-")[2] for path in tmp_path.iterdir())

    assert names == ["fhir.json", "sc.dcm"]
    with pytest.raises(DeliveryError, match="No such file"):
        FolderDestination(tmp_path / "gone").send(FILES)


@pytest.mark.parametrize(
    "text", ["ARCHIVE", "ARCHIVE@host", "@host:104", "ARCHIVE@host:0", "A" * 17 + "@host:104", "A@h:99999"]
)
def test_what_is_no_address_is_said(text: str) -> None:
    """Before anything is received."""
    with pytest.raises(ValueError, match="TITLE@HOST:PORT"):
        read_address(text)


def test_addresses_may_be_of_any_kind() -> None:
    """Titles with spaces, IPv6."""
    assert read_address("MY PACS@[::1]:104") == ("MY PACS", "::1", 104)
