"""``python -m gateway fetch``: a study that nobody has sent, by its UID or accession number."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.fetch import command, orders
from gateway.fetch.orders import (
    Order,
    Progress,
    expire_orders,
    find_order,
    find_state,
    list_orders,
    read_order,
    read_progress,
    read_wish,
    write_order,
    write_progress,
)
from tests.fakes import wait_until
from tests.gateway_box import make_files
from tests.query_archive import FetchBox, open_fetch_box
from tests.studies import SERIES, STUDY

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of pynetdicom as the other side

ACCESSION = "A4711"
FILES = [*make_files(3, AccessionNumber=ACCESSION), *make_files(2, series="1.2.9", AccessionNumber=ACCESSION)]


@contextmanager
def run_fetch_box(root: Path, files: list[bytes] = FILES, **options: Any) -> Iterator[tuple[FetchBox, list[str]]]:
    """A gateway that looks for orders; the jobs that it has completed."""
    over, jobs = threading.Event(), list[str]()
    with open_fetch_box(root, files, **options) as fetch:

        def run() -> None:
            while not over.wait(0.05):
                jobs.extend(fetch.look())

        looker = threading.Thread(target=run)
        looker.start()
        try:
            yield fetch, jobs
        finally:
            over.set()
            looker.join()


def run(captured: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    try:
        code = main(["fetch", *map(str, words)])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    return code, *captured.readouterr()


@pytest.mark.parametrize("wish", [STUDY, ACCESSION])
def test_study_that_is_wanted_comes(tmp_path: Path, capsys: pytest.CaptureFixture[str], wish: str) -> None:
    """All of its CT images; then it goes on as if it had been sent, and nothing of the order stays."""
    with run_fetch_box(tmp_path / "queue") as (fetch, jobs):
        code, out, err = run(capsys, wish, "--queue", tmp_path / "queue")
        wait_until(lambda: jobs)
        (job,) = jobs
        assert len(list((fetch.box.folder.waiting / job).glob("*.dcm"))) == 5
        wait_until(lambda: list(fetch.box.folder.fetching.iterdir()) == [])

    assert (code, out) == (0, "5 images of a study have come; the results go where all go\n")
    assert "the archive is asked" in err or "images" in err or not err


def test_end_is_told_to_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON, with the figures."""
    with run_fetch_box(tmp_path / "queue"):
        code, out, _ = run(capsys, ACCESSION, "--queue", tmp_path / "queue", "--json")

    said = json.loads(out)
    assert (code, said["state"], said["studies"], said["announced"], said["completed"]) == (0, "done", 1, 5, 5)


def test_study_that_the_archive_does_not_have_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An archive that names other studies than the one that was asked for is not believed."""
    with run_fetch_box(tmp_path / "queue") as (fetch, jobs):
        fetch.archive.ignores_keys = True
        code, _, err = run(capsys, "A471", "--queue", tmp_path / "queue")
        assert (code, jobs, fetch.archive.moved) == (1, [], [])

    assert err.endswith("gateway fetch: error: the archive has no CT series of it [NOT_FOUND]\n")


def test_number_of_very_many_studies_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is none of one examination."""
    files = [make_files(1, study=f"1.2.3.{number}", AccessionNumber=ACCESSION)[0] for number in range(11)]
    with run_fetch_box(tmp_path / "queue", files) as (fetch, _):
        code, _, err = run(capsys, ACCESSION, "--queue", tmp_path / "queue")
        assert (code, fetch.archive.moved) == (1, [])

    assert "more than 10 studies" in err


def test_gateway_without_an_archive_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The setting is named."""
    with run_fetch_box(tmp_path / "queue", has_archive=False):
        code, _, err = run(capsys, STUDY, "--queue", tmp_path / "queue")

    assert (code, "--fetch-from [NO_ARCHIVE]" in err) == (1, True)


def test_images_that_do_not_come_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What has come is judged, and the rest is named."""

    def send_nothing(event: Any) -> Iterator[Any]:
        yield ("127.0.0.1", 1)
        yield 0

    with run_fetch_box(tmp_path / "queue") as (fetch, _):
        fetch.archive.move = send_nothing
        code, _, err = run(capsys, STUDY, "--queue", tmp_path / "queue")

    assert code == 1
    assert "[" in err.splitlines()[-1]


def test_who_does_not_want_it_any_more_cancels_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ctrl-C: the archive is told to stop, and nothing of the order stays."""
    with run_fetch_box(tmp_path / "queue") as (fetch, _):
        fetch.archive.move = fetch.archive.go_on_for_ever

        def interrupt(seconds: float) -> None:
            wait_until(lambda: fetch.archive.moved)
            raise KeyboardInterrupt

        monkeypatch.setattr(command, "POLL_SECONDS", 0.05)
        with monkeypatch.context() as patch:
            patch.setattr(command, "time", Sleepless(interrupt))
            assert main(["fetch", STUDY, "--queue", str(tmp_path / "queue")]) == 130
        assert fetch.archive.cancelled.wait(20)
        wait_until(lambda: list(fetch.box.folder.fetching.iterdir()) == [])


class Sleepless:
    """Time in which somebody presses keys instead of waiting."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, sleep: Any) -> None:
        self.sleep = sleep


def test_queue_that_is_none_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And is not made."""
    code, _, err = run(capsys, STUDY, "--queue", tmp_path / "queue")

    assert (code, "there is no queue of the gateway here" in err) == (2, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wish", ["", "A*", "A?1", "A\\B", "x" * 17, "A\tB"])
def test_wish_that_would_be_for_more_than_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wish: str
) -> None:
    """Wildcards would fetch other people's studies."""
    code, _, err = run(capsys, wish, "--queue", tmp_path)

    assert (code, "STUDY_UID|ACCESSION must be" in err) == (2, True)


def test_queue_without_a_gateway_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the order does not lie there for whoever comes."""
    monkeypatch.setattr(command, "TAKE_SECONDS", 0.0)
    (tmp_path / "fetching").mkdir()
    code, _, err = run(capsys, STUDY, "--queue", tmp_path)

    assert (code, "nobody takes orders from this queue" in err) == (1, True)
    assert list((tmp_path / "fetching").iterdir()) == []


def test_order_that_is_left_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --wait 0, and for who asks again its end is there."""
    (tmp_path / "queue").mkdir(mode=0o700)
    (tmp_path / "queue" / "fetching").mkdir()
    assert run(capsys, STUDY, "--queue", tmp_path / "queue", "--wait", "0") == (0, "", "")
    with run_fetch_box(tmp_path / "queue") as (_, jobs):
        wait_until(lambda: jobs)
        code, out, _ = run(capsys, STUDY, "--queue", tmp_path / "queue")

    assert (code, out.startswith("5 images of a study")) == (0, True)


def test_order_of_a_gateway_that_was_stopped_is_taken_again(tmp_path: Path) -> None:
    """At the next start; one that has ended is not."""
    with run_fetch_box(tmp_path / "queue") as (fetch, _):
        fetch.archive.move = fetch.archive.go_on_for_ever
        path = find_order(fetch.box.folder.fetching, Order(study=STUDY))
        write_order(path, Order(study=STUDY))
        wait_until(lambda: fetch.archive.moved)
    progress = read_progress(path)
    assert progress is not None
    assert not progress.is_over

    with run_fetch_box(tmp_path / "queue") as (fetch, _):
        wait_until(lambda: (found := read_progress(path)) is not None and found.state == "done")
        moved = list(fetch.archive.moved)
        fetch.fetcher.look()
        assert fetch.fetcher._tasks.empty()
        assert fetch.archive.moved == moved
        assert set(moved) == {SERIES, "1.2.9"}


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a UID and of an accession number."""
    code, out, _ = run(capsys, "--help")

    assert (code, "examples:\n  python -m gateway fetch 1.2.840." in out) == (0, True)


def test_what_is_wanted_is_told_by_its_form() -> None:
    """Numbers with three dots or more are UIDs."""
    assert read_wish(" 1.2.840.1 ") == Order(study="1.2.840.1")
    assert read_wish("2026.11") == Order(accession="2026.11")
    assert read_wish("A 1") == Order(accession="A 1")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"study": 1}', '{"study": "*", "accession": "*"}'])
def test_order_that_another_program_has_written_is_none(tmp_path: Path, text: str) -> None:
    """It is ended, with a reason."""
    with run_fetch_box(tmp_path / "queue") as (fetch, _):
        path = fetch.box.folder.fetching / f"x{orders.ORDER}"
        path.write_text(text)
        assert read_order(path) is None
        wait_until(lambda: (found := read_progress(path)) is not None and found.state == "failed")


def test_orders_that_nobody_comes_back_for_go(tmp_path: Path) -> None:
    """After a day; and so many are looked at."""
    for number in range(orders.MOST_ORDERS + 5):
        write_order(find_order(tmp_path, Order(study=f"1.2.3.{number}")), Order(study=f"1.2.3.{number}"))
    assert len(list_orders(tmp_path)) == orders.MOST_ORDERS
    path = list_orders(tmp_path)[0]
    write_progress(path, Progress("done"))
    past = time.time() - orders.KEEP_SECONDS - 1
    os.utime(path, (past, past))
    expire_orders(tmp_path)

    assert (path.exists(), find_state(path).exists()) == (False, True)
