"""python -m client: when the system takes no results, or refuses something else."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from client.cli.main import main
from tests.client_fakes import FakeServer
from tests.command_lines import POSITIVE
from tests.fakes import ROOT


def test_reader_that_leaves_early_is_no_crash(cli_server: FakeServer, tmp_path: Path) -> None:
    """`| head` ends the client without a traceback."""
    for index in range(50):
        (tmp_path / f"{index}.png").write_bytes(POSITIVE)
    read_end, write_end = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "client", str(tmp_path)], stdout=write_end, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        os.close(write_end)
        os.close(read_end)
        errors = process.communicate(timeout=60)[1]

    assert process.returncode == 1
    assert b"Traceback" not in errors
    assert b"BrokenPipe" not in errors


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_one_line(cli_server: FakeServer, tmp_path: Path) -> None:
    """Results that cannot be written are a failure that is named."""
    (tmp_path / "a.png").write_bytes(POSITIVE)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "client", str(tmp_path)], stdout=full, stderr=subprocess.PIPE, cwd=ROOT, timeout=60
        )

    assert done.returncode == 1
    assert done.stderr == b"error: the results cannot be written: No space left on device\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    "command", [["scans"], ["scans", "--json"], ["scans", "--csv", "-"], ["no.png", "--csv", "-"], ["models"]]
)
def test_full_disk_is_said_of_every_form(
    command: list[str], cli_server: FakeServer, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it results or what another command prints."""
    with open("/dev/full", "w") as full, monkeypatch.context() as patch, suppress(OSError):
        patch.setattr("sys.stdout", full)
        errors = io.StringIO()
        patch.setattr("sys.stderr", errors)
        assert main(command) == 1

        assert errors.getvalue().splitlines()[-1] == "error: the results cannot be written: No space left on device"


@pytest.mark.parametrize("command", [["--json"], ["--csv", "-"], ["--csv", "-", "--watch"]])
def test_closed_output_is_told(
    command: list[str],
    cli_server: FakeServer,
    scans: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a service manager may start a program; there is a file for what is to be kept."""
    monkeypatch.setattr("sys.stdout", None)

    assert main([*command, "scans"]) == 2
    assert capsys.readouterr().err == (
        "error: standard output is closed: name a file with --output FILE or --csv FILE\n"
    )


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (OSError(errno.EMFILE, "Too many open files", "scans/b.png"), "scans/b.png: Too many open files"),
        (PermissionError(errno.EACCES, "Permission denied", "/etc/token"), "/etc/token: Permission denied"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "/tmp/x: No space left on device"),
        (OSError("no such thing\n"), "no such thing\\n"),
        (TimeoutError(), "TimeoutError"),
    ],
)
@pytest.mark.parametrize("step", ["classify.list_images", "connection.Connection.open_client"])
def test_fault_of_the_system_is_named_as_what_it_is(
    cli_server: FakeServer,
    scans: Path,
    step: str,
    fault: OSError,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is no fault of writing results wherever it does not come from there; one line, exit 1."""

    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(f"client.cli.{step}", fail)

    assert main(["scans"]) == 1

    assert capsys.readouterr().err == f"error: {message}\n"


def test_working_directory_that_has_gone_is_no_fault_of_results(cli_server: FakeServer, tmp_path: Path) -> None:
    """Images with whole paths are judged all the same."""
    (tmp_path / "a.png").write_bytes(POSITIVE)
    (tmp_path / "gone").mkdir()
    code = "import os, sys; os.rmdir(os.getcwd()); from client.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.png"), "b.png"],
        cwd=tmp_path / "gone",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout.startswith(f"{tmp_path}/a.png: stroke")
    assert done.stderr.startswith("b.png: error: the image cannot be read: No such file")
