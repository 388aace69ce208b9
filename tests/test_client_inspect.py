"""``health`` and ``models``: what they print, and with which exit status."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from client import StrokeClient
from client._core import model_from_proto
from client.cli.connection import Connection
from client.cli.health import list_alarms, list_servers
from client.cli.main import main
from client.cli.models import describe_model, print_models
from client.cli.terminal import Terminal
from proto import stroke_pb2
from tests.certificates import CA, chain, credentials, issue_client, issue_server, key
from tests.client_fakes import MODEL, FakeServer, serve
from tests.command_lines import open_session, render_screen
from tests.fakes import ROOT, ServerProcess

FILES = {"ca": "ca.pem", "cert": "own.pem", "key": "own.key"}


def test_healthy_server_is_one_line(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Address, state, and the time that the answer took; exit 0."""
    assert main(["health", "--server", server.target]) == 0

    address, state, milliseconds, unit = capsys.readouterr().out.split()
    assert (address, state, unit) == (server.target, "SERVING", "ms")
    assert 0 < float(milliseconds) < 2000


def test_each_server_of_a_list_is_asked_on_its_own(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One that serves does not hide one that starts and one that is away; exit 1."""
    with serve() as starting:
        starting.set_serving(False)
        servers = f"{server.target},{starting.target},127.0.0.1:1"
        assert main(["health", "--server", servers, "--json"]) == 1

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["server"], line["state"]) for line in lines] == [
        (server.target, "SERVING"),
        (starting.target, "NOT_SERVING"),
        ("127.0.0.1:1", "SERVER_UNREACHABLE"),
    ]
    assert lines[0].keys() == {"server", "state", "ms", "error", "alarms", "certificate_not_after"}
    assert (lines[0]["error"], lines[0]["alarms"], lines[0]["certificate_not_after"]) == (None, [], None)
    assert lines[2]["error"].startswith("no server answers at 127.0.0.1:1")


def test_alarms_are_lines_of_their_own_and_do_not_change_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    """A part that is well, or not in use, is not mentioned; the server serves all the same."""
    with serve() as server:
        server.health.set("stroke.alarm.audit", HealthCheckResponse.NOT_SERVING)
        server.health.set("stroke.alarm.access", HealthCheckResponse.SERVING)
        assert main(["health", "--server", server.target]) == 0
        assert main(["health", "--server", server.target, "--json"]) == 0

    first, alarm, fields = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == [server.target, "SERVING"]
    assert alarm == f"{server.target}  alarm: audit: the audit log cannot be written; see the server's log"
    assert json.loads(fields)["alarms"] == ["audit"]


def test_alarms_are_not_waited_for_longer_than_the_timeout() -> None:
    """Without time left nothing is asked, and that is no error."""
    with serve() as server, StrokeClient(server.target) as client:
        server.health.set("stroke.alarm.certificates", HealthCheckResponse.NOT_SERVING)
        assert list_alarms(client, time.monotonic() + 10) == ("certificates",)
        assert list_alarms(client, time.monotonic() - 1) == ()


@pytest.mark.parametrize("host", ["localhost", "unix"])
def test_end_of_the_servers_certificate_is_shown(host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To who knows its authority, also of a server that asks for a client's certificate; not through plain text."""
    own = issue_client()
    for name, content in (("ca.pem", CA), ("own.pem", chain(own)), ("own.key", key(own))):
        (tmp_path / name).write_bytes(content)
    tls = [word for flag in ("ca", "cert", "key") for word in (f"--tls-{flag}", str(tmp_path / FILES[flag]))]
    pair = credentials(issue_server(not_after=datetime(2097, 5, 4, 3, 2, 1, tzinfo=UTC)), asks=True)
    address = f"unix:{tmp_path / 'socket'}" if host == "unix" else ""
    with serve(credentials=pair, address=address) as server:
        target = server.target if address else f"localhost:{server.port}"
        assert main(["health", "--server", target, *tls]) == 0
        assert main(["health", "--server", target, "--json", *tls]) == 0

    text, fields = capsys.readouterr().out.splitlines()
    assert text.endswith("  certificate until 2097-05-04 03:02 UTC")
    assert json.loads(fields)["certificate_not_after"] == "2097-05-04T03:02:01Z"


def test_addresses_of_a_name_are_asked_one_by_one() -> None:
    """dns:/// stands for each of its addresses; a certificate must still hold the name."""
    plain = list(list_servers(Connection(server="dns:///localhost:50051")))
    secured = list(list_servers(Connection(server="dns:///localhost:50051", tls_ca="ca.pem")))

    assert "127.0.0.1:50051" in [single.server for single in plain]
    assert {single.tls_name for single in plain} == {""}
    assert {single.tls_name for single in secured} == {"localhost"}


def test_health_waits_until_the_server_serves(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """--wait ends as soon as it serves, and exits 1 when it does not in time."""
    server.set_serving(False)
    assert main(["health", "--server", server.target, "--wait", "0.1"]) == 1
    assert "SERVER_NOT_READY" in capsys.readouterr().out

    threading.Timer(0.2, server.set_serving, [True]).start()
    assert main(["health", "--server", server.target, "--wait", "10"]) == 0
    assert "SERVING" in capsys.readouterr().out


def test_models_are_a_table(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One line per model under the heads."""
    assert main(["models", "--server", server.target]) == 0

    head, row = capsys.readouterr().out.splitlines()
    heads = "name version default precision runtime input threshold window studies labels digest"
    assert " ".join(head.split()) == heads
    assert (
        " ".join(row.split()) == f"stroke-cnn 1 yes int8 onnxruntime 256x256x3 0.05 40/80 yes normal/stroke {6 * 'ab'}"
    )
    assert [head.index(word) for word in ("version", "labels")] == [row.index(" 1 ") + 1, row.index("normal")]


@pytest.mark.parametrize("columns", [120, 40])
def test_models_on_a_terminal(server: FakeServer, columns: int) -> None:
    """A table where it fits, otherwise a block of lines; none is wider than the terminal."""
    with open_session("models", "--server", server.target, columns=columns, cwd=ROOT) as session:
        pass

    lines = render_screen(session.raw)
    assert max(map(len, lines)) <= columns
    if columns == 120:
        head, row = lines
        assert head.split()[:3] == ["name", "version", "default"]
        assert [head.index(word) for word in ("version", "labels")] == [row.index(" 1 ") + 1, row.index("normal")]
        assert head.index("threshold") + len("threshold") == row.index("0.05") + len("0.05")
    else:
        assert lines[:2] == ["name       stroke-cnn", "version    1"]


def test_one_model_is_shown_whole(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """With figures, provenance and what runs it."""
    assert main(["models", "stroke-cnn", "1", "--server", server.target]) == 0

    out = capsys.readouterr().out
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    values = {name: value.strip() for name, value in lines.items()}
    assert values["version"] == "1 (default)"
    assert values["positive"] == "stroke above 0.05"
    assert values["metrics.auc"] == "0.9"
    assert values["provenance.data"] == "synthetic"
    assert values["digest"] == "ab" * 32
    assert values["window"] == "level 40 width 80 HU"
    assert values["studies"] == "stroke above 0.35, mean of the 2 highest slices"
    assert values["outliers"] == "not analysed above 12.5"
    assert "margin" not in values


def test_model_without_dicom_and_studies_is_shown(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so, and has no lines of what it does not have."""
    plain = stroke_pb2.Model()
    plain.CopyFrom(MODEL)
    for field in ("windows", "study_top_k", "study_threshold", "outlier_threshold"):
        plain.ClearField(field)
    monkeypatch.setattr("tests.client_fakes.MODEL", plain)

    assert main(["models", "stroke-cnn", "--server", server.target]) == 0
    lines = [line.split(None, 1) for line in capsys.readouterr().out.splitlines()]
    assert ["window", "none: it takes no DICOM files"] in lines
    assert ["studies", "not judged"] in lines
    assert "outliers" not in [line[0] for line in lines]
    assert main(["models", "--server", server.target]) == 0
    assert capsys.readouterr().out.split()[-4:] == ["-", "no", "normal/stroke", 6 * "ab"]


def test_interval_stands_beside_its_figure() -> None:
    """NAME_low and NAME_high are shown with NAME; one that has no figure of its own stays as it is."""
    metrics = {"auc": 0.93, "auc_low": 0.91, "auc_high": 0.95, "dose_low": 1.0}

    text = describe_model(replace(model_from_proto(MODEL), metrics=metrics))

    assert "0.93 (0.91 to 0.95)" in text
    assert "auc_low" not in text
    assert "metrics.dose_low" in text


def test_text_of_a_model_cannot_drive_the_terminal() -> None:
    """Control characters are escaped."""
    model = replace(model_from_proto(MODEL), name="a\x1b[2J", provenance={"x\n": "y\x07"})

    stream = io.StringIO()

    print_models([model], Terminal(stream))
    text = stream.getvalue() + describe_model(model)

    assert "a\\x1b[2J" in text
    assert text.replace("\n", "").isprintable()


def test_model_card_is_printed_as_it_is(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """As Markdown, of the model named or of the default one."""
    assert main(["models", "--card", "--server", server.target]) == 0
    assert capsys.readouterr().out == "# Model card\n"


def test_model_in_json_has_all_fields(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One object for each model; the card comes with a single one."""
    assert main(["models", "--json", "--server", server.target]) == 0
    assert main(["models", "stroke-cnn", "--json", "--server", server.target]) == 0

    listed, single = map(json.loads, capsys.readouterr().out.splitlines())
    assert listed["labels"] == ["normal", "stroke"]
    assert listed["metrics"] == {"auc": 0.9, "sensitivity": 0.8}
    assert (listed["model_card"], single["model_card"]) == ("", "# Model card\n")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["models", "none"], "error: There is no model 'none'.\n"),
        (["models", "--server", "127.0.0.1:1", "--timeout", "0.5"], "error: no server answers at 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_answered_is_one_line(
    server: FakeServer, arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1, nothing on stdout."""
    if "--server" not in arguments:
        arguments = [*arguments, "--server", server.target]
    assert main(arguments) == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(error)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["health", "--wait", "-1"],
        ["health", "scan.png"],
        ["health", "--token-file", "/none"],
        ["models", "--card", "--json"],
        ["models", "a", "b", "c"],
        ["bench"],
        ["bench", "x.png", "--clients", "0"],
        ["bench", "x.png", "--clients", "1,x"],
        ["bench", "x.png", "--rate", "-1"],
        ["bench", "x.png", "--rate", "1", "--clients", "1"],
        ["bench", "x.png", "--rate", "1", "--stream"],
        ["bench", "x.png", "--seconds", "0"],
        ["bench", "x.png", "--arrivals", "fixed"],
    ],
)
def test_wrong_usage_exits_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The mistake is named, and no server is asked."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["health", "models", "bench"])
def test_help_fits_a_screen_and_needs_no_grpc(command: str) -> None:
    """At most 40 lines of 80 columns with examples, without the time to import gRPC."""
    code = (
        "import sys; from client.cli.main import main\n"
        f"try: main(['{command}', '--help'])\n"
        "finally: print('grpc' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert done.stderr == "False\n"
    assert done.stdout.count(f"  python -m client {command}") >= 2
    assert len(done.stdout.splitlines()) <= 40
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_real_server_process(tiny_server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """Both commands against ``python -m server``."""
    assert main(["health", "--server", tiny_server.address]) == 0
    assert main(["models", "--server", tiny_server.address]) == 0

    assert "SERVING" in capsys.readouterr().out
