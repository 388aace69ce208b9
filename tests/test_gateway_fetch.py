"""What of a study is missing is fetched from the archive (C-FIND, C-MOVE); whatever that does, the study is judged."""

from __future__ import annotations

import random
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydicom.dataset import Dataset
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from client import ImageWarning, StudyPrediction, StudySeries
from gateway.addresses import Address
from gateway.fetch import limit as limits
from gateway.fetch.archive import MOVE, Archive
from gateway.fetch.fetcher import Fetcher
from gateway.fetch.limit import FetchError, Limit, Trouble
from gateway.judge.judge import add_warnings, describe_not_received
from gateway.reasons import Doubt
from tests.dicom_files import PATIENT
from tests.fakes import wait_until
from tests.gateway_box import TITLE, make_answer, make_files, open_box, send
from tests.query_archive import FetchBox, open_fetch_box, open_query_archive, read
from tests.studies import SERIES, STUDY

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of pynetdicom as the other side

SECOND = "1.2.9"


def make_two_series() -> list[bytes]:
    """Three slices of one, two of another."""
    return [*make_files(3), *make_files(2, series=SECOND)]


@pytest.fixture
def fetch(tmp_path: Path):
    with open_fetch_box(tmp_path / "queue", make_two_series()) as opened:
        yield opened


def count(job: Path) -> int:
    return len(list(job.glob("*.dcm")))


def find_warning(job: Path) -> str:
    (warning,) = list_warnings(job)
    assert warning.reason == Doubt.FETCH_FAILED
    return warning.message


def list_warnings(job: Path) -> list[ImageWarning]:
    answer = add_warnings(make_answer(), job)
    assert isinstance(answer, StudyPrediction)
    return list(answer.warnings)


def find_missing(job: Path) -> list[StudySeries]:
    return describe_not_received(job)


def test_what_is_missing_is_fetched(fetch: FetchBox) -> None:
    """A series that was sent in part, and one that was not sent."""
    send(fetch.box.port, make_files(1))
    (job,) = fetch.look_until_complete()

    assert count(job) == 5
    assert fetch.archive.moved == [SERIES, SECOND]
    assert (find_missing(job), list_warnings(job)) == ([], [])


def test_study_that_is_here_as_a_whole_is_not_fetched(fetch: FetchBox) -> None:
    """The archive is asked, and sends nothing; of another study a series may be missing."""
    send(fetch.box.port, make_two_series())
    (job,) = fetch.look_until_complete()

    assert (count(job), fetch.archive.moved) == (5, [])


def test_only_series_that_lack_something_are_fetched(fetch: FetchBox) -> None:
    """The others are here already."""
    send(fetch.box.port, make_files(3))
    (job,) = fetch.look_until_complete()

    assert (count(job), fetch.archive.moved) == (5, [SECOND])


def test_archive_that_does_not_know_the_study_completes_it(fetch: FetchBox) -> None:
    """A scanner may have sent it here first."""
    send(fetch.box.port, make_files(2, study="1.2.3.4.5"))
    (job,) = fetch.look_until_complete()

    assert (count(job), fetch.archive.moved, list_warnings(job)) == (2, [], [])


def test_series_whose_number_of_images_is_not_said_is_counted(fetch: FetchBox) -> None:
    """The attribute is optional: images are named one by one."""
    fetch.archive.counts = False
    send(fetch.box.port, make_two_series()[:4])
    (job,) = fetch.look_until_complete()

    assert (count(job), fetch.archive.moved) == (5, [SECOND])


def test_other_modalities_are_not_fetched(fetch: FetchBox) -> None:
    """Neither are they missed; results of ours are among them. Not every archive looks at what was asked for."""
    fetch.archive.files += make_files(1, series="1.2.7", Modality="MR")
    fetch.archive.ignores_keys = True
    send(fetch.box.port, make_files(1))
    (job,) = fetch.look_until_complete()

    assert (count(job), fetch.archive.moved) == (5, [SERIES, SECOND])


def test_images_that_the_archive_cannot_send_are_named(fetch: FetchBox) -> None:
    """By series, and the first of them by their UIDs."""

    def fail(event: Any) -> Iterator[Any]:
        yield ("127.0.0.1", fetch.box.port)
        yield 2
        for file in make_files(2, series=SECOND, StudyInstanceUID=None):
            yield 0xFF00, read(file)

    send(fetch.box.port, make_files(3))
    fetch.archive.move = fail
    (job,) = fetch.look_until_complete()

    (missing,) = find_missing(job)
    assert (missing.series_instance_uid, missing.slices, missing.reason) == (SECOND, 2, "NOT_RECEIVED")
    assert missing.message == f"2 of 2 images that the archive has named did not come ({SECOND}.1, {SECOND}.2)."


def test_what_the_archive_fails_to_send_is_not_missed_when_it_is_here(fetch: FetchBox) -> None:
    """The scanner has sent it meanwhile."""

    def fail(event: Any) -> Iterator[Any]:
        send(fetch.box.port, make_two_series())
        yield ("127.0.0.1", fetch.box.port)
        yield 1
        for file in make_files(1, StudyInstanceUID=None):
            yield 0xFF00, read(file)

    fetch.archive.move = fail
    send(fetch.box.port, make_files(1))
    (job,) = fetch.look_until_complete()

    assert (count(job), find_missing(job)) == (5, [])


def test_archive_that_says_it_has_sent_more_than_came_is_not_believed(fetch: FetchBox) -> None:
    """Images are counted here."""

    def lie(event: Any) -> Iterator[Any]:
        yield ("127.0.0.1", fetch.box.port)
        yield 0

    fetch.archive.move = lie
    send(fetch.box.port, make_files(1))
    (job,) = fetch.look_until_complete()

    assert [(one.series_instance_uid, one.slices) for one in find_missing(job)] == [(SERIES, 2), (SECOND, 2)]


def test_archive_that_does_not_know_us_is_said(fetch: FetchBox) -> None:
    """What is here is judged, with a warning that says what to mend."""

    def refuse(event: Any) -> Iterator[Any]:
        yield None, None

    fetch.archive.move = refuse
    send(fetch.box.port, make_files(1))
    (job,) = fetch.look_until_complete()

    assert count(job) == 1
    assert f"it does not know {TITLE}: enter this gateway's title, host and port there" in find_warning(job)


def test_archive_that_is_away_holds_nothing_up(fetch: FetchBox) -> None:
    """Nobody listens there."""
    fetch.fetcher._archive = Archive(Address("PACS", "127.0.0.1", 1), TITLE)
    send(fetch.box.port, make_files(1))

    assert "it cannot be reached" in find_warning(*fetch.look_until_complete())


def test_title_that_the_archive_does_not_have_is_said(fetch: FetchBox) -> None:
    """It rejects the association."""
    fetch.fetcher._archive = Archive(Address("OTHER", "127.0.0.1", fetch.archive.port), TITLE)
    send(fetch.box.port, make_files(1))

    assert "it rejected the association" in find_warning(*fetch.look_until_complete())


def test_archive_that_goes_on_for_ever_is_stopped(tmp_path: Path) -> None:
    """By C-CANCEL when the time is over; what has come is judged."""
    with open_fetch_box(tmp_path / "queue", make_files(3), seconds=1.0) as fetch:
        fetch.archive.move = fetch.archive.go_on_for_ever
        send(fetch.box.port, make_files(1))
        (job,) = fetch.look_until_complete()
        assert "it took longer than 1 s" in find_warning(job)
        assert fetch.archive.cancelled.wait(20)


def test_archive_that_does_not_stop_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither hears a C-CANCEL nor says a word: the association is aborted."""
    monkeypatch.setattr(limits, "GRACE_SECONDS", 0.2)
    over = threading.Event()

    def say_nothing(event: Any) -> Iterator[Any]:
        yield ("127.0.0.1", 1)
        over.wait(60)
        yield 0

    with open_fetch_box(tmp_path / "queue", make_files(3), seconds=0.5) as fetch:
        before = threading.active_count()
        fetch.archive.move = say_nothing
        send(fetch.box.port, make_files(1))
        assert "it took longer than 0.5 s" in find_warning(*fetch.look_until_complete())
        over.set()
        wait_until(lambda: threading.active_count() <= before)


def test_slow_archive_holds_up_no_other_study(tmp_path: Path) -> None:
    """More studies than there are threads: each waits as long as it may, its turn included."""
    over = threading.Event()

    def say_nothing(event: Any) -> Iterator[Any]:
        over.wait(60)
        yield 0xC000, None

    with open_fetch_box(tmp_path / "queue", [], seconds=2.0, threads=1) as fetch:
        fetch.archive.find = say_nothing
        for number in range(4):
            send(fetch.box.port, make_files(1, study=f"1.9.{number}"))
        jobs = fetch.look_until_complete(4)
        over.set()

    assert ["it took longer than 2 s" in find_warning(job) for job in jobs] == [True] * 4


def test_archive_that_names_without_end_is_stopped(fetch: FetchBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an answer so much is read."""
    monkeypatch.setattr(Archive._find, "__defaults__", (20,))

    def name(event: Any) -> Iterator[Any]:
        number = 0
        while not event.is_cancelled:
            number += 1
            answer = Dataset()
            answer.SeriesInstanceUID, answer.Modality = f"1.2.{number}", "CT"
            yield 0xFF00, answer

    fetch.archive.find = name
    send(fetch.box.port, make_files(1))
    (job,) = fetch.look_until_complete()

    assert "it names more than 20" in find_warning(job)


@pytest.mark.parametrize("value", ["x" * 70_000, "..\\..\\etc", "1.2\\3.4"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_answers_that_are_none_are_passed_over(fetch: FetchBox, value: str) -> None:
    """UIDs that are none, several, or longer than any."""

    def name(event: Any) -> Iterator[Any]:
        answer = Dataset()
        answer.SeriesInstanceUID, answer.Modality, answer.NumberOfSeriesRelatedInstances = value, "CT", 3
        yield 0xFF00, answer

    fetch.archive.find = name
    send(fetch.box.port, make_files(1))
    (job,) = fetch.look_until_complete()

    assert (count(job), fetch.archive.moved) == (1, [])


def test_what_comes_meanwhile_is_of_the_same_study(tmp_path: Path) -> None:
    """A study is held until the archive is done, however quiet it is."""
    with open_fetch_box(tmp_path / "queue", make_two_series()) as fetch:
        go_on = threading.Event()
        original = fetch.archive.answer_find

        def wait(event: Any) -> Iterator[Any]:
            go_on.wait(60)
            fetch.archive.find = None
            yield from original(event)

        fetch.archive.find = wait
        send(fetch.box.port, make_files(1))
        assert fetch.look() == []
        send(fetch.box.port, make_files(2)[1:])
        assert fetch.look() == []
        go_on.set()
        (job,) = fetch.look_until_complete()
        assert count(job) == 5


def test_archive_is_asked_over_tls(tmp_path: Path) -> None:
    """As results are sent over it; another authority is not believed."""
    authority, stranger = trustme.CA(), trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    limit = Limit(30, lambda: True)
    with open_query_archive(make_two_series(), ssl_context=server) as pacs:
        for ca, names in ((authority, [SERIES, SECOND]), (stranger, None)):
            client = ssl.create_default_context()
            ca.configure_trust(client)
            archive = Archive(Address("PACS", "localhost", pacs.port), TITLE, client)
            if names is not None:
                assert [one.uid for one in archive.find_series(STUDY, limit)] == names
            else:
                with pytest.raises(FetchError, match="cannot be reached"):
                    archive.find_series(STUDY, limit)


def test_node_that_is_no_archive_is_said() -> None:
    """It has no C-FIND."""
    from pynetdicom import AE

    entity = AE(ae_title="PACS")
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    archive = Archive(Address("PACS", "127.0.0.1", server.server_address[1]), TITLE)  # type: ignore[union-attr]
    with pytest.raises(FetchError) as caught:
        archive.move(STUDY, SERIES, Limit(30, lambda: True), print)
    entity.shutdown()

    assert caught.value.trouble in (Trouble.ARCHIVE_REFUSED, Trouble.ARCHIVE_AWAY)
    assert MOVE


def test_log_names_nobody(fetch: FetchBox, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the archive says."""
    caplog.set_level("DEBUG", "gateway")
    send(fetch.box.port, make_files(1))
    fetch.look_until_complete()

    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("gateway"))
    assert "2 series fetched" in said
    for secret in (*PATIENT.values(), "Doe", STUDY, SERIES, SECOND):
        assert str(secret) not in said


def test_threads_that_wait_for_work_end_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever work came: one of several that share a ``SimpleQueue`` with a timeout could wait for ever, where another
    took what had woken it as its time was up. Busy processors make that likely."""
    monkeypatch.setattr("gateway.fetch.fetcher.POLL_SECONDS", 0.002)
    stop, calm, pauses = threading.Event(), threading.Event(), random.Random(7)

    def be_busy() -> None:
        while not stop.is_set():
            sum(range(200))

    with open_box(tmp_path / "queue") as box:
        fetcher = Fetcher(box.folder, box.arrivals, None, 1.0, stop)
        threads = [threading.Thread(target=fetcher.run, args=(stop,), daemon=True) for _ in range(8)]
        threads += [threading.Thread(target=be_busy, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(400):
            fetcher._tasks.put(lambda: None)
            calm.wait(pauses.uniform(0, 0.003))
        stop.set()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)
