"""python -m client: arguments, exit status, and how it ends when something is in its way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType

import grpc
import pytest

import client
from client import StrokeClient
from client.cli.connection import read_connection
from client.cli.main import SUBCOMMANDS, build_parser, main
from client.cli.signals import Interruption
from tests.client_fakes import FakeServer, RefusalError, make_response, wait_for
from tests.command_lines import INTERRUPTIBLE, POSITIVE, run_client
from tests.fakes import ROOT

MOST_MODULES = 20
CLI_MODULES = {"main", "connection", "classify", "selection", "results", "report", "terminal", "signals"}
"""What one image on a pipe takes."""


def test_unreachable_server_is_one_line(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not one line per file; exit 1."""
    assert main(["--server", "127.0.0.1:1", "--timeout", "0.5", "scans"]) == 1

    out, err = capsys.readouterr()
    assert out == ""
    summary, error = err.splitlines()
    assert summary.startswith("4 images: 0 failed, 4 not judged; ")
    assert error == "error: no server answers at 127.0.0.1:1: is it running (python -m server)?"


def test_timeout_holds_for_each_image(cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--timeout reaches the run: a hanging server fails the image, and both of two."""
    cli_server.servicer.judge = cli_server.servicer.hang

    assert main(["--timeout", "0.2", "scans/b.png"]) == 1
    assert "scans/b.png: error: no answer from " in capsys.readouterr().err
    assert main(["--timeout", "0.2", "scans/b.png", "scans/c.jpeg"]) == 1

    assert capsys.readouterr().err.count("within 0.2 s") == 2


@pytest.mark.parametrize(
    "arguments",
    [[], ["--no-such-flag", "x.png"], ["--timeout", "0", "x"], ["--timeout", "x", "x"], ["--server", "box:0", "x"]],
)
def test_wrong_usage_exits_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The mistake is named, and no server is asked."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_server_of_the_environment() -> None:
    """--server wins over STROKE_SERVER, which wins over the default; a wrong one is wrong usage."""
    parser = build_parser()

    def read_server(*arguments: str, **environment: str) -> str:
        return read_connection(parser, parser.parse_args(["x", *arguments]), environment).server

    assert read_server() == "127.0.0.1:50051"
    assert read_server(STROKE_SERVER="box") == "box:50051"
    assert read_server("--server", "other:1", STROKE_SERVER="box") == "other:1"
    with pytest.raises(SystemExit):
        read_server(STROKE_SERVER="box:0")


def test_interrupt_exits_with_130(cli_server: FakeServer, tmp_path: Path) -> None:
    """Ctrl-C during a run leaves one line and no traceback."""
    cli_server.servicer.judge = cli_server.servicer.hang
    (tmp_path / "a.png").write_bytes(POSITIVE)
    with subprocess.Popen(
        [sys.executable, *INTERRUPTIBLE, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        wait_for(lambda: cli_server.servicer.requests)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert (process.returncode, out, err) == (130, b"", b"error: interrupted\n")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C reaches this process, even where the tests run in the background of a script, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_second_interrupt_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first waits for a result that is being written; the second does not wait for anything."""
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)
    written: list[str] = []

    def write(interruption: Interruption) -> None:
        with interruption.shielded():
            signal.raise_signal(signal.SIGINT)
            written.append("a whole result")

    with Interruption() as interruption:
        with pytest.raises(KeyboardInterrupt):
            write(interruption)
        assert (written, ended) == (["a whole result"], [])
        with suppress(KeyboardInterrupt):  # where the process would have ended
            signal.raise_signal(signal.SIGINT)

    assert ended == [130]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_fail_fast_stops_at_the_first_failure(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1; what was before the failure is answered, what was after it is said to be not judged."""
    assert main(["--fail-fast", "scans/b.png", "no.png", "scans/c.jpeg", "scans/a.JPG"]) == 1

    out, err = capsys.readouterr()
    assert out.splitlines() == ["scans/b.png: stroke 0.973  P(stroke) 0.973  (stroke-cnn 1, threshold 0.05)"]
    failure, summary, error = err.splitlines()
    assert failure.startswith("no.png: error: ")
    assert summary.startswith("4 images: 1 positive (stroke), 1 failed, 2 not judged; ")
    assert error == "error: stopped at the first failure (--fail-fast)"


def test_in_flight_reaches_the_run(cli_server: FakeServer, scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--in-flight is what predict_many is given; it is tested there."""
    given: list[int] = []
    predict_many = StrokeClient.predict_many

    def spy(client, images, *, in_flight, **options):
        given.append(in_flight)
        return predict_many(client, images, in_flight=in_flight, **options)

    monkeypatch.setattr(StrokeClient, "predict_many", spy)

    assert main(["--in-flight", "3", "scans"]) == 0
    assert main(["scans"]) == 0

    assert given == [3, 16]


@pytest.mark.parametrize("command", ["health", "models", "bench", "completion"])
def test_first_argument_names_a_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows is the command's own; its module is not imported before it is needed."""
    seen: list[list[str]] = []
    module = ModuleType("command")
    module.main = lambda argv: seen.append(argv) or 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"client.cli{SUBCOMMANDS[command]}", module)

    assert main([command, "--json", "x"]) == 5

    assert seen == [["--json", "x"]]


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (RefusalError(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_REFUSED", "Not you."), "error: Not you.\n"),
        (RefusalError(grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN", "No model."), "scans/b.png: error: No model.\n"),
    ],
)
def test_fault_of_a_single_image_is_told_from_that_of_the_run(
    cli_server: FakeServer, scans: Path, refusal: RefusalError, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What would end a run over many ends that over one, without a record; what one image fails with has its name."""

    def judge(request):
        raise refusal

    cli_server.servicer.judge = judge

    assert main(["--json", "scans/b.png"]) == 1

    out, err = capsys.readouterr()
    assert err == error
    assert out.count("\n") == ("scans" in error)


@pytest.mark.parametrize(
    "refusal",
    [
        RefusalError(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "There is no model 'typo'."),
        RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "MODEL_NAME_INVALID", "There is no model 'typo'."),
    ],
    ids=["unknown", "invalid"],
)
@pytest.mark.parametrize("flags", [(), ("--json",), ("--output", "results.jsonl")], ids=["text", "json", "file"])
def test_model_that_is_not_served_is_said_once(
    cli_server: FakeServer,
    scans: Path,
    refusal: RefusalError,
    flags: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is no fault of the images, so that --resume with the right name judges them all."""

    def judge(request):
        if request.model_name == "typo":
            raise refusal
        return make_response(request)

    cli_server.servicer.judge = judge

    assert main(["--model", "typo", "scans", "no.png", *flags]) == 1

    out, err = capsys.readouterr()
    assert err.count("There is no model 'typo'.") == err.count("error: ") == 1
    assert "typo" not in out
    assert "0 failed, 5 not judged; " in err
    if "--output" in flags:
        assert main(["scans", *flags, "--resume"]) == 0


def test_one_image_loads_few_modules(cli_server: FakeServer, scans: Path) -> None:
    """At most 20 modules of the client: no stream, no result file, no watch, none of the other commands."""
    code = (
        "import atexit, runpy, sys\n"
        "sys.argv = ['client', 'scans/b.png']\n"
        "atexit.register(lambda: print(*(name for name in sys.modules if name.split('.')[0] == 'client')))\n"
        "runpy.run_module('client', run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)

    answer, modules = done.stdout.splitlines()
    names = {*modules.split(), "client.__main__"}  # which runs under another name
    assert answer.startswith("scans/b.png: stroke 0.973  P(stroke) 0.973")
    assert {name.removeprefix("client.cli.") for name in names if name.startswith("client.cli.")} == CLI_MODULES
    assert len(names) <= MOST_MODULES, sorted(names)


def test_file_with_the_name_of_a_command(
    cli_server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """./health is an image."""
    monkeypatch.chdir(tmp_path)
    Path("health").write_bytes(POSITIVE)

    assert main(["./health"]) == 0

    assert capsys.readouterr().out.startswith("./health: stroke")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an image"),
        (["x.png", "health"], "a command comes first, its options after it: python -m client health"),
        (["healht"], "there is no file healht: did you mean python -m client health?"),
        (["--json", "Model", "--card"], "there is no file Model: did you mean python -m client models?"),
        (["help"], "did you mean python -m client --help?"),
        (["x.png", "--sever", "box"], "unrecognized arguments: --sever box; did you mean --server?"),
        (["health", "--wiat=3"], "unrecognized arguments: --wiat=3; did you mean --wait?"),
        (["x.png", "--server", "http://box:1"], "address stands without http://: box:1"),
        (["x.png", "--resume"], "--resume needs the file to go on with"),
        (["x.png", "--csv", "-", "--resume"], "--resume needs the file to go on with"),
        (["-", "--output", "f", "--resume"], "--resume does not go with standard input"),
        (["x.png", "--output", "f", "--retry-failed"], "--retry-failed goes with --resume"),
        (["x.png", "--output", "f", "--csv", "g"], "not allowed with argument"),
        (["x.png", "--json", "--output", "f"], "not allowed with argument"),
        (["x.png", "--excel", "comma"], "--excel goes with --csv"),
        (["x.png", "--csv", "f", "--excel", "tab"], "invalid choice: 'tab'"),
        (["x.png", "--move"], "--move and --beside go with --watch"),
        (["x.png", "--watch", "in"], "--watch goes without images"),
        (["x.png", "--in-flight", "0"], "'0' is not a number of at least 1"),
        (["x.png", "--token-file", "/no/such"], "the token file /no/such cannot be read"),
    ],
)
def test_arguments_that_do_not_go_together(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit 2 and a sentence that says what would do; no file is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["--server", "box", "models", "a"], ["--server", "box", "a"]),
        (["--server=box", "--json", "models"], ["--server=box", "--json"]),
        (["--card", "models"], ["--card"]),
        (["--wait", "models", "models"], ["--wait", "models"]),
        (["--help", "models"], ["--help"]),
    ],
)
def test_flags_may_stand_before_a_command(words: list[str], given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the connection and the command's own; the value of one is no command."""
    seen: list[list[str]] = []
    monkeypatch.setattr("client.cli.models.main", lambda argv: seen.append(argv) or 5)

    assert main(words) == 5

    assert seen == [given]


def test_value_of_a_flag_is_no_command(cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model may be called models, and a file of results health."""
    assert main(["--model", "models", "--csv", "health", "scans/b.png"]) == 0

    assert cli_server.servicer.requests[0].model_name == "models"
    assert Path("health").read_bytes().startswith(b"file,")


@pytest.mark.parametrize(
    "words", ["b.png --json c.jpeg", "--json b.png --quiet c.jpeg", "--json b.png -- c.jpeg", "b.png c.jpeg --json"]
)
def test_images_may_stand_anywhere(
    words: str, cli_server: FakeServer, scans: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between flags and behind them, in the order in which they are named."""
    monkeypatch.chdir(scans)

    assert main(words.split()) == 0

    assert [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()] == ["b.png", "c.jpeg"]


def test_help_states_defaults() -> None:
    """Of the flags that have one, in every command's help."""
    for module in ("main", "health", "models", "bench.command"):
        text = " ".join(import_module(f"client.cli.{module}").build_parser().format_help().split())
        assert "(default: 127.0.0.1:50051)" in text
        assert "seconds that one image may take (default: 10)" in text


@pytest.mark.parametrize("words", [(), ("health",), ("models",), ("bench",), ("completion",)], ids=" ".join)
def test_version_is_that_of_the_package(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """--version of every command prints it and nothing else; exit 0."""
    with pytest.raises(SystemExit) as caught:
        main([*words, "--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{client.__version__}\n"


def test_help_is_there_at_once() -> None:
    """Within 0.15 s of a processor, the start of Python included: the best of some tries, as machines are busy."""
    times = []
    for _ in range(5):
        before = sum(os.times()[2:4])  # of children that have ended
        assert run_client("--help", env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0
        times.append(sum(os.times()[2:4]) - before)

    assert min(times) <= 0.15


def test_help_names_the_program_as_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """``stroke`` where it is installed under that name."""
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/stroke", "--help"])

    text = build_parser().format_help()

    assert text.startswith("usage: stroke [OPTION]")
    assert "  stroke scan.png\n" in text
    assert "python -m" not in text


def test_help_fits_a_screen_and_teaches() -> None:
    """--help has four examples and the statement of use, within 80 columns and 47 lines."""
    done = run_client("--help", env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"})
    text = done.stdout.decode()

    assert done.returncode == 0
    assert "not a medical device" in text
    assert text.split("examples:")[1].count("python -m client") == 4
    assert len(text.splitlines()) <= 47
    assert max(map(len, text.splitlines())) <= 80
    for action in build_parser()._actions:
        assert action.help
        assert (action.option_strings or [action.metavar])[-1] in text
