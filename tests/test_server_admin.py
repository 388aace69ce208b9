"""Operators change what a real server serves: found by itself, nobody else lets in, no call is lost."""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from client import RetryConfig, StrokeClient
from proto import admin_pb2, admin_pb2_grpc
from server.lifecycle.model_command import main
from server.lifecycle.sockets import name_socket
from tests.access import token_of, write_tokens
from tests.administration import add_version, operate, read_status
from tests.certificates import CA, chain, issue_server, key, settings
from tests.fakes import ServerProcess, encode, make_slice, run_module, run_server, wait_until

IMAGES = [encode(make_slice(level, seed=level)) for level in (90, 110, 130, 150)]
GAINS = {"1": 0.04, "2": 0.05, "3": 0.06}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Holds version 1; ``add_version`` adds others."""
    add_version(tmp_path / "models", "1", GAINS["1"])
    return tmp_path / "models"


@pytest.fixture
def box(models: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    """Serves version 1; 2 is there, too."""
    with run_server(models, "--model", "tiny", "--admin", str(tmp_path / "admin")) as server:
        add_version(models, "2", GAINS["2"])
        yield server


@pytest.fixture
def stub(box: ServerProcess, tmp_path: Path) -> Iterator[admin_pb2_grpc.AdminStub]:
    """An administrator without a command line."""
    with grpc.insecure_channel(f"unix:{tmp_path / 'admin' / name_socket(box.address)}") as channel:
        yield admin_pb2_grpc.AdminStub(channel)


def activate(stub: admin_pb2_grpc.AdminStub, version: str) -> str:
    """Returns the last thing that is said, or the reason of a refusal."""
    try:
        return list(stub.Activate(admin_pb2.ActivateRequest(name="tiny", version=version), timeout=60))[-1].text
    except grpc.RpcError as error:
        return dict(error.trailing_metadata())["stroke-reason"]


def find_answers(address: str) -> dict[str, list[float]]:
    """What the stable version answers to the images."""
    with StrokeClient(address) as client:
        found = [client.predict(image) for image in IMAGES]
    (version,) = {one.version for one in found}
    return {version: [one.positive_probability for one in found]}


def test_day_of_an_operator(box: ServerProcess, models: Path, tmp_path: Path) -> None:
    """Every command, in the order in which they are needed; and a restart in between."""
    folder = tmp_path / "admin"

    code, text = operate(folder, "activate", "tiny", "2", "--canary", "50")
    assert (code, text) == (0, "tiny 2 answers 50 % of the images, 1 the others.\n")
    assert operate(folder, "promote", "tiny") == (0, "tiny 2 is stable; before, 1 was.\n")
    code, text = operate(folder, "activate", "tiny", "1")
    assert (code, text.count("[VERSION_FALLS]")) == (1, 1)
    (models / "tiny" / "3").mkdir()
    code, text = operate(folder, "list")
    assert [line.split()[1:4] for line in text.splitlines()[1:]] == [
        ["3", "half-copied", text.splitlines()[1].split()[3]],
        ["2", "stable", "whole"],
        ["1", "whole"],
    ]
    assert box.stop(signal.SIGKILL) != 0
    with run_server(models, "--model", "tiny", "--admin", str(folder)) as again:
        assert "tiny 2 " in again.banner
        assert operate(folder, "rollback", "tiny") == (0, "tiny 1 is stable again, 2 no longer.\n")
        assert len(os.listdir(folder)) == 1, "the socket of the server that was killed is gone"
        (model,) = read_status(folder)["models"]
        assert [(one["version"], one["channel"], one["on_disk"]) for one in model["versions"]] == [
            ("3", "", "half-copied"),
            ("2", "", "whole"),
            ("1", "stable", "whole"),
        ]
        assert again.stop() == 0
    assert os.listdir(folder) == []
    assert operate(folder, "status")[0] == 3


def test_activations_under_load_lose_no_call(box: ServerProcess, models: Path, stub: admin_pb2_grpc.AdminStub) -> None:
    """Versions rise and fall under callers that do not come again by themselves: every call is answered, by one of the
    versions, as that answers; and a caller's versions never fall but at a rollback."""
    golden = find_answers(box.address)
    assert activate(stub, "2") == "tiny 2 is stable; before, 1 was."
    golden |= find_answers(box.address)
    list(stub.RollBack(admin_pb2.RollBackRequest(name="tiny"), timeout=60))
    assert golden["1"] != golden["2"]
    stop, seen = threading.Event(), list[tuple[int, str, float]]()
    faults: list[BaseException] = []

    def call() -> None:
        with StrokeClient(box.address, retry=RetryConfig(max_attempts=1)) as client:
            while not stop.is_set():
                for index, image in enumerate(IMAGES):
                    try:
                        answer = client.predict(image)
                        seen.append((index, answer.version, answer.positive_probability))
                    except BaseException as error:
                        faults.append(error)

    def wait_for_answers() -> None:
        before = len(seen)
        wait_until(lambda: len(seen) > before + 10)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for _ in range(10):
        assert activate(stub, "2").startswith("tiny 2 is stable")
        wait_for_answers()
        list(stub.RollBack(admin_pb2.RollBackRequest(name="tiny"), timeout=60))
        wait_for_answers()
    stop.set()
    for caller in callers:
        caller.join()

    assert faults == []
    assert {version for _, version, _ in seen} == {"1", "2"}
    assert [one for one in seen if golden[one[1]][one[0]] != one[2]] == []


def test_storm_of_activations(box: ServerProcess, models: Path, stub: admin_pb2_grpc.AdminStub) -> None:
    """Of twenty at once some are refused, none breaks anything, and what is served is what was asked for."""
    said: list[str] = []
    callers = [threading.Thread(target=lambda: said.append(activate(stub, "2"))) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert len(said) == 20
    assert said.count("tiny 2 is stable; before, 1 was.") == 1
    others = {"tiny 2 is stable already.", "CHANGE_IN_PROGRESS", "TOO_MANY_CALLS"}
    assert set(said) <= others | {"tiny 2 is stable; before, 1 was."}
    assert list(find_answers(box.address)) == ["2"]


def test_altered_files_show_in_the_status(box: ServerProcess, models: Path, tmp_path: Path) -> None:
    """What is served lives in memory; that its folder is another one by now is seen, bit by bit."""
    path = models / "tiny" / "1" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    (model,) = read_status(tmp_path / "admin")["models"]
    shown = {one["version"]: one for one in model["versions"]}
    assert shown["1"]["on_disk"] == "altered"
    assert "copy the model folder again" in shown["1"]["fault"]
    assert (shown["2"]["is_newer"], shown["2"]["on_disk"]) == (True, "whole")
    assert list(find_answers(box.address)) == ["1"]


def test_only_the_user_of_the_server_may_enter(box: ServerProcess, tmp_path: Path) -> None:
    """Folder and socket are closed to others, and the main port knows no such service without tokens."""
    folder = tmp_path / "admin"
    (path,) = folder.iterdir()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with grpc.insecure_channel(box.address) as channel, pytest.raises(grpc.RpcError) as refusal:
        admin_pb2_grpc.AdminStub(channel).GetStatus(admin_pb2.GetStatusRequest(), timeout=10)
    assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_folder_that_others_could_enter_is_not_used(kind: str, tiny_models: Path, tmp_path: Path) -> None:
    """Where it was asked for the server does not start."""
    folder = tmp_path / "admin"
    if kind == "open":
        folder.mkdir(mode=0o755)
    elif kind == "link":
        (tmp_path / "other").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "other")
    else:
        folder.write_text("")

    done = run_module("server", "--models", str(tiny_models), "--port", "0", "--admin", str(folder))

    assert done.returncode == 1
    assert str(folder) in done.stderr


def test_server_without_a_socket(tiny_models: Path, tmp_path: Path) -> None:
    """It is wanted by default, not needed: where it cannot be, the log says so; ``off`` says nothing."""
    (tmp_path / f"strokeserve-{os.geteuid()}").write_text("in the way")
    with run_server(tiny_models, XDG_RUNTIME_DIR=str(tmp_path)) as server:
        wait_until(lambda: any("will not find this server" in line for line in server.log))
        assert server.stop() == 0
    with run_server(tiny_models, "--admin", "off", XDG_RUNTIME_DIR=str(tmp_path)) as server:
        assert server.stop() == 0
        assert not any("will not find" in line for line in server.log)


def test_server_is_found_by_itself(
    models: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The only one; of two, the one that is named. What a killed one has left is no server."""
    tmp_path = tmp_path_factory.mktemp("s")  # the path of a socket has 107 bytes at most
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("STROKE_ADMIN", raising=False)
    assert main(["list"]) == 3
    with run_server(models) as one:
        stale = tmp_path / f"strokeserve-{os.geteuid()}" / "127.0.0.1-1.sock"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(stale))
        assert main(["list"]) == 0
        with run_server(models) as two:
            assert not stale.exists()
            assert main(["list"]) == 3
            assert main(["list", "--server", one.address]) == 0
            assert main(["list", "--server", two.address]) == 0
    said = capfd.readouterr().err
    assert "2 servers run here" in said
    assert "no server was found" in said


CANARY = ["activate", "tiny", "1", "--canary"]
WRONG = [[], ["start"], ["activate"], [*CANARY, "0"], [*CANARY, "5", "--shadow"], ["list", "--token-file", "x"]]


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_usage_is_told(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """In one line, with exit code 2."""
    assert run_main(arguments) == 2
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", ["", "list", "status", "activate", "promote", "rollback", "unload"])
def test_help_has_examples(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Of each command."""
    assert not run_main([*filter(None, [command]), "--help"])
    assert f"python -m server model {command}" in capfd.readouterr().out


def run_main(arguments: list[str]) -> object:
    """The exit code."""
    try:
        return main(arguments)
    except SystemExit as error:
        return error.code


def test_role_admin_is_let_in_over_tls(tiny_models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With a token that has it, on the main port; others are refused."""
    tokens = write_tokens(tmp_path / "tokens", chief="roles=admin", ward="roles=predict")
    own = issue_server()
    for name, data in (("ca.pem", CA), ("server.pem", chain(own)), ("server.key", key(own))):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    flags = ["--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key")]
    with run_server(tiny_models, *flags, "--tokens", str(tokens), "--admin", "off") as server:
        for name in ("chief", "ward"):
            (tmp_path / name).write_text(token_of(name))
        way = ["--server", server.address, "--tls-ca", str(tmp_path / "ca.pem")]
        assert main(["list", *way, "--token-file", str(tmp_path / "chief")]) == 0
        assert main(["list", *way, "--token-file", str(tmp_path / "ward")]) == 1
        assert main(["list", *way]) == 1
        assert main(["list", "--server", server.address, "--timeout", "5"]) == 3
        with StrokeClient(server.address, tls=settings(), token=token_of("ward")) as client:
            client.predict(IMAGES[0])
    said = capfd.readouterr()
    assert "tiny   1        stable   whole" in said.out
    assert "[ROLE_MISSING]" in said.err
    assert "[TOKEN_MISSING]" in said.err


def test_names_of_sockets_differ() -> None:
    """By address, whatever its form, and short enough for a socket."""
    addresses = [
        "127.0.0.1:50051",
        "[::1]:50051",
        "0.0.0.0:50051",
        "unix:/run/a",
        "unix:/run/b",
        "unix:" + "/a" * 50,
    ]
    names = [name_socket(address) for address in addresses]

    assert names[0] == "127.0.0.1-50051.sock"
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 60
    assert "/" not in "".join(names)
