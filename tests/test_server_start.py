"""What the machine refuses at the start: one line and exit code 1, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from server.process.program import explain, run_guarded, watch_interrupts
from tests.fakes import ROOT, wait_until, write_model
from tests.host_faults import open_stub, run_badly, stop, wait_until_serving

WITHOUT_USER = (
    "-c",
    "import pwd, runpy; pwd.getpwuid = {}.__getitem__; runpy.run_module('server', run_name='__main__', alter_sys=True)",
)
"""Instead of ``-m server``: as a user whom no list knows."""


def run_without_user(models: Path, socket: Path, home: str | None, **options: object) -> subprocess.Popen[bytes]:
    """Starts a server of a user without a home."""
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    environment |= {} if home is None else {"HOME": home}
    command = [sys.executable, *WITHOUT_USER, "--models", str(models), "--host", f"unix:{socket}"]
    return subprocess.Popen(command, cwd=ROOT, env=environment, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_user_without_a_home_is_served(tiny_models: Path, tmp_path: Path, home: str | None) -> None:
    """There is no cache then, and one warning says so."""
    with run_without_user(tiny_models, tmp_path / "s", home, stderr=subprocess.PIPE) as process:
        with open_stub(tmp_path / "s") as (_, health):
            wait_until_serving(health)
            assert stop(process) == 0
        assert process.stderr is not None
        log = process.stderr.read().decode()

    assert log.count("WARNING") == 1
    assert "no cache: this user has no home folder" in log
    assert not (ROOT / "relative").exists()


@pytest.mark.parametrize(
    ("command", "limit"),
    [((), f"-v {megabytes * 1024}") for megabytes in (40, 110, 160, 200, 250)]
    + [(("tune", "--seconds", "1"), f"-v {110 * 1024}"), ((), "-n 12")],
)
def test_refusal_of_the_machine_is_one_line(tiny_models: Path, command: tuple[str, ...], limit: str) -> None:
    """Memory, threads and files that there are too few of; it neither waits nor shows a traceback."""
    flags = ("--models", str(tiny_models), "--cache", "off", *(() if command else ("--port", "0")))

    # A shell sets the limit: what forks this process with it would meet it in gRPC's threads, before the server starts.
    shell = ["sh", "-c", f'ulimit {limit} && exec "$@"', "sh", sys.executable, "-m", "server", *command, *flags]
    result = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, timeout=300)

    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stdout == ""


def test_unreadable_models_are_named(tmp_path: Path) -> None:
    """With the folder that may not be read."""
    write_model(tmp_path / "models")
    (tmp_path / "models").chmod(0)
    if os.access(tmp_path / "models", os.R_OK):
        without_rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    else:
        without_rights = []
    command = [*without_rights, sys.executable, "-m", "server", "--models", str(tmp_path / "models"), "--port", "0"]
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("root reads everything, and there is no setpriv")

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"server: error: {tmp_path / 'models'}")
    assert "Permission denied" in line


def fail(error: BaseException) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "server: interrupted"),
        (MemoryError(), 1, "server: error: there is not enough memory"),
        (RuntimeError("std::bad_alloc"), 1, "server: error: there is not enough memory"),
        (RuntimeError("can't start new thread"), 1, "server: error: no more threads can be started"),
        (ImportError("no module"), 1, "server: error: a part of the program cannot be loaded: no module"),
        (OSError(24, "Too many open files"), 1, "server: error: Too many open files: raise"),
        (PermissionError(13, "Permission denied", "/x"), 1, "server: error: /x: Permission denied"),
        (RuntimeError("first\nsecond"), 1, "server: error: RuntimeError: first"),
    ],
)
def test_each_refusal_has_its_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What happened, and what helps."""
    assert run_guarded("server", fail(error)) == code

    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith(line)


def test_cause_is_said_and_not_the_advice_around_it() -> None:
    """numpy wraps what the linker says into a page."""
    error = ImportError("IMPORTANT: PLEASE READ THIS")
    error.__cause__ = ImportError("lib.so: failed to map segment from shared object")

    assert "not enough memory (lib.so" in explain(error)


def test_variables_of_kubernetes_do_not_stop_a_server(tiny_models: Path, tmp_path: Path) -> None:
    """A Service called stroke."""
    environment = {"STROKE_PORT": "tcp://10.96.0.12:50051", "STROKE_SERVICE_HOST": "10.96.0.12"}
    with (
        run_badly(tiny_models, tmp_path / "s", stderr=subprocess.PIPE, env=environment) as process,
        open_stub(tmp_path / "s") as (_, health),
    ):
        wait_until_serving(health)
        assert stop(process) == 0
        assert process.stderr is not None
        with process.stderr:
            assert process.stderr.readline().startswith(b"server: warning: STROKE_PORT=tcp://10.96.0.12:50051")


def test_interrupted_tuning_is_one_line(tiny_models: Path, tmp_path: Path) -> None:
    """Ctrl-C, whatever it is at: exit code 130, at once, and nothing written."""
    interruptible = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('server', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", interruptible, "tune", "--models", str(tiny_models), "--seconds", "3600"]
    cache = tmp_path / "cache"
    with subprocess.Popen([*command, "--cache", str(cache)], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_until(cache.exists)  # the check of the place comes before the measuring
        process.send_signal(signal.SIGINT)

        assert process.wait(20) == 130
        assert process.stderr is not None
        assert len(process.stderr.read().splitlines()) == 1
    assert not list(cache.glob("*tuning*"))


def test_interrupt_is_not_raised_inside_a_library() -> None:
    """One at work when it is raised makes another error of it: that the model is broken, say. The second one is."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        is_interrupted = watch_interrupts()
        assert not is_interrupted()
        signal.raise_signal(signal.SIGINT)
        assert is_interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
