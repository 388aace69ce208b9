"""What the performer can be told, and what is refused before anything is claimed."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from gateway.cli import main
from gateway.deliver.exchange import NoAnswerError, ask
from gateway.perform.settings import PerformConfig
from gateway.queue.folder import QueueError, QueueFolder
from tests.gateway_box import make_files
from tests.perform_box import perform_once
from tests.ups_server import add_task, run_service

NEEDED = ["--worklist", "http://ris/dicom-web", "--queue", "tasks"]


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ([], "--workitem-code is missing: or --station, or --label"),
        (["--label", "X", "--worklist", "ftp://ris"], "--worklist is a URL"),
        (["--label", "X", "--worklist", "http://"], "--worklist is a URL"),
        (["--label", "X", "--worklist", "http://user:secret@ris/rs"], "--worklist is a URL"),
        (["--label", "X", "--archive", "http://pacs/rs?x=1"], "--archive is a URL"),
        (["--label", "X", "--archive", "http://pacs:port/rs"], "--archive is a URL"),
        (["--label", "X", "--retrieve-from", "pacs"], "--retrieve-from is a URL"),
        (["--workitem-code", "110004"], "--workitem-code is a code"),
        (["--workitem-code", "110004^"], "--workitem-code is a code"),
        (["--station", "^99HOSP"], "--station is a code"),
        (["--label", "X", "--title", "A" * 17], "--title is 1 to 16"),
        (["--label", "X", "--tasks", "0"], "--tasks must be 1 to 16"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    flags: list[str], why: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a line that names the flag."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["perform", *NEEDED, *flags])

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_events_need_their_library(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is said at once, and not when somebody wants a task canceled."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        main(["perform", *NEEDED, "--label", "X", "--events"])
    assert ended.value.code == 2
    assert "websockets" in capsys.readouterr().err


def test_archive_is_that_of_the_worklist_unless_told() -> None:
    """Many services have both."""
    config = PerformConfig(worklist="http://ris/rs", queue=Path("tasks"), label="X")
    assert config.archive_url == "http://ris/rs"
    assert PerformConfig(worklist="http://ris/rs", queue=Path("tasks"), label="X", archive="http://a").archive_url == (
        "http://a"
    )


def test_queue_of_another_process_is_not_shared(tmp_path: Path) -> None:
    """Both would perform the same tasks."""
    folder = QueueFolder(tmp_path / "queue")
    try:
        with run_service() as service, pytest.raises(QueueError, match="another process has this queue"):
            perform_once(tmp_path / "queue", service)
    finally:
        folder.close()


def test_worklist_and_archive_prove_who_they_are(tmp_path: Path) -> None:
    """By --web-ca; a stranger is not spoken to, and gets no token."""
    authority, stranger = trustme.CA(), trustme.CA()
    for name, one in (("ca.pem", authority), ("other.pem", stranger)):
        one.cert_pem.write_to_path(str(tmp_path / name))
    (tmp_path / "token").write_text("s3cret")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with run_service(make_files(3), tls=context) as service:
        task = add_task(service)
        token = {"web_token": tmp_path / "token"}
        assert perform_once(tmp_path / "queue", service, web_ca=tmp_path / "other.pem", **token) == 1
        assert service.requests == []
        assert perform_once(tmp_path / "queue", service, web_ca=tmp_path / "ca.pem", **token) == 0
        assert task.state == "COMPLETED"
        assert service.tokens == {"Bearer s3cret"}

        with (
            pytest.raises(NoAnswerError, match="cannot be reached"),
            ask("GET", service.url, None, {}, ca=tmp_path / "other.pem", token=None),
        ):
            pass
