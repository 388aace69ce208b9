"""Kill -9 while a study is completed by its scanner or from the archive: it has its results, once, and all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.queue.notes import NAME
from tests.fakes import wait_until
from tests.gateway_box import Archive, make_files, open_archive, send
from tests.gateway_driver import STEPS_OF_FETCHES, STEPS_OF_SCANNERS
from tests.procedure_steps import list_uids, make_begin, make_end, tell
from tests.query_archive import open_query_archive
from tests.studies import SERIES
from tests.test_gateway_restart import list_open, run_again, run_to_death, send_until_death

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

ALL = (("create", make_begin()), ("set", make_end({SERIES: list_uids(3)})))


def check_results(queue: Path, archive: Archive) -> None:
    """One object, and nothing that waits."""
    assert len(archive.datasets) == 1
    assert [path.name for path in queue.rglob("*") if path.suffix in (".dcm", ".part") or path.name == NAME] == []
    assert len(list((queue / "done").iterdir())) == 1
    assert list((queue / "failed").iterdir()) == []


@pytest.mark.parametrize("step", STEPS_OF_SCANNERS)
def test_study_that_its_scanner_completes(tmp_path: Path, step: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A scanner that had no answer tells again, as it does of images."""
    queue, files = tmp_path / "queue", make_files(3)
    with open_archive() as archive:
        with run_to_death(queue, archive, step, quiet=60.0) as port:
            if send_until_death(port, files) == [0, 0, 0]:
                tell(port, *ALL, seconds=3.0)
        with run_again(queue, archive, capsys, quiet=0.5) as (_, port):
            if "step" in step and step != "step settled":
                assert tell(port, *ALL) == [0, 0]
            wait_until(lambda: archive.datasets and list_open(queue) == [])
        check_results(queue, archive)

    (path,) = (queue / "steps").iterdir()
    assert len(json.loads(path.read_text())["came"]) == 3


@pytest.mark.parametrize("step", STEPS_OF_FETCHES)
def test_study_that_is_fetched(tmp_path: Path, step: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The archive is asked again for what is not here."""
    queue, files = tmp_path / "queue", [*make_files(3), *make_files(2, series="1.2.9")]
    with open_archive() as archive, open_query_archive(files) as pacs:
        with run_to_death(queue, archive, step, fetch_from=pacs.address) as port:
            pacs.gateway_port = port
            send(port, files[:1])
        with run_again(queue, archive, capsys, quiet=0.5, fetch_from=pacs.address) as (_, port):
            pacs.gateway_port = port
            wait_until(lambda: archive.datasets and list_open(queue) == [])
        check_results(queue, archive)
