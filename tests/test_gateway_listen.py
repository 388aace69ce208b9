"""``python -m gateway listen`` as people type it: what cannot be used is said in a line, before anything comes."""

from __future__ import annotations

import logging
import socket
import threading
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.listen.quiet import LIBRARIES, quiet_libraries
from gateway.listen.service import Gateway
from gateway.listen.settings import ListenConfig
from server.process.log import stop_log
from tests.fakes import wait_until
from tests.gateway_box import FakeClient, make_written

NEEDED = ["--folder-to", "."]


def run(captured: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    """Exit code and standard error."""
    try:
        code = main(["listen", *flags])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    stop_log()
    return code, captured.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--send-to is missing"),
        (["--send-to", "ARCHIVE"], "TITLE@HOST:PORT"),
        (["--stow-to", "archive/dicom-web"], "--stow-to is a URL"),
        ([*NEEDED, "--title", "A" * 17], "--title is 1 to 16 printable"),
        ([*NEEDED, "--allow", "A\\B"], "--allow is 1 to 16 printable"),
        ([*NEEDED, "--dicom-host", "0.0.0.0"], "--dicom-insecure"),
        ([*NEEDED, "--dicom-tls-cert", "a"], "--dicom-tls-cert and its key belong together"),
        ([*NEEDED, "--dicom-tls-client-ca", "a"], "means nothing without --dicom-tls-cert"),
        ([*NEEDED, "--send-tls-key", "a"], "--send-tls-cert and its key belong together"),
        ([*NEEDED, "--send-tls-cert", "a", "--send-tls-key", "b"], "means nothing without --send-tls-ca"),
        ([*NEEDED, "--quiet-seconds", "0"], "--quiet-seconds must be"),
        ([*NEEDED, "--results", "pdf"], "--results must be"),
        ([*NEEDED, "--server", ":"], "--server"),
    ],
)
def test_settings_that_cannot_be_used_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    """With exit code 2, one line, and no queue."""
    code, err = run(capsys, "--queue", str(tmp_path / "queue"), *flags)

    assert code == 2
    assert said in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_what_the_machine_refuses_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A port that is taken, a queue that others may read, a folder that is none, a certificate that is none."""
    queue = str(tmp_path / "queue")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, err = run(capfd, "--queue", queue, *NEEDED, "--dicom-port", str(port))
    assert (code, "Address already in use" in err) == (1, True)

    (tmp_path / "open").mkdir(mode=0o755)
    code, err = run(capfd, "--queue", str(tmp_path / "open"), *NEEDED)
    assert (code, "chmod 700" in err) == (1, True)

    code, err = run(capfd, "--queue", str(tmp_path / "other"), "--folder-to", str(tmp_path / "gone"))
    assert (code, "gone: is no folder" in err) == (1, True)

    code, err = run(capfd, "--queue", str(tmp_path / "fourth"), *NEEDED, "--worklist", str(tmp_path / "gone" / "list"))
    assert (code, "gone: is no folder" in err) == (1, True)

    certificate = str(tmp_path / "file.pem")
    Path(certificate).write_text("none")
    tls = ["--dicom-tls-cert", certificate, "--dicom-tls-key", certificate]
    code, err = run(capfd, "--queue", str(tmp_path / "third"), *NEEDED, *tls)
    assert (code, err.startswith("gateway listen: error: ")) == (1, True)


def test_environment_sets_what_flags_do_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of receiver, results and server; a name that is none is told."""
    for name, value in {"QUEUE": "queue", "RESULTS": "sr", "TITEL": "X"}.items():
        monkeypatch.setenv(f"STROKE_{name}", value)
    code, err = run(capsys, "--queue", "queue", *NEEDED, "--dicom-port", "-1")

    assert code == 2
    assert "STROKE_TITEL" in err
    assert "STROKE_RESULTS" not in err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the gateway and of its command."""
    for arguments in (["--help"], ["listen", "--help"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "examples:\n  python -m gateway listen --queue queue" in capsys.readouterr().out


def test_libraries_that_repeat_what_files_say_are_quiet() -> None:
    """pydicom logs and warns of values that it does not like, with the values."""
    levels = {name: logging.getLogger(name).level for name in LIBRARIES}
    try:
        quiet_libraries()
        assert not any(logging.getLogger(name).isEnabledFor(logging.CRITICAL) for name in LIBRARIES)
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def test_worklist_is_kept_while_it_listens(tmp_path: Path) -> None:
    """From the start on, so that one that is empty is not taken for one that is missing; in the queue, or elsewhere."""
    for place in (None, tmp_path / "list.json"):
        config = ListenConfig(queue=tmp_path / "queue", folder_to=(str(tmp_path),), dicom_port=0, worklist=place)
        gateway = Gateway(config, FakeClient(), make_written)  # type: ignore[arg-type]
        thread = threading.Thread(target=gateway.run)
        thread.start()
        wait_until((place or tmp_path / "queue" / "worklist.json").exists)
        gateway.stop()
        thread.join()


def test_defaults_listen_on_this_machine_alone() -> None:
    """Whoever wants more has to say so."""
    config = ListenConfig(queue=Path("queue"), folder_to=(".",))

    assert (config.dicom_host, config.dicom_port, config.title) == ("127.0.0.1", 11112, "STROKESERVE")
