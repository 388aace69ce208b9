"""What keeps the project installable and honest."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.fakes import ROOT

LOCKS = sorted((ROOT / "requirements").rglob("*.lock"))
PURPOSES = ("client", "cli", "server", "web", "openvino", "training", "dev")


def read_pins(purpose: str) -> dict[str, str]:
    """Package (with its environment marker) → version, from a lock file."""
    text = (ROOT / "requirements" / f"{purpose}.lock").read_text()
    return {
        name + marker: version
        for name, version, marker in re.findall(r"^([a-z0-9._-]+)==(\S+)( ; [^\\\n]+)?", text, re.MULTILINE)
    }


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_pin_has_hashes_and_names_no_host(lock: Path) -> None:
    """A fresh machine gets the bytes that were tested, from whatever index it uses."""
    text = lock.read_text()

    requirements = re.split(r"\n(?=[a-z])", text)
    assert all("--hash=sha256:" in requirement for requirement in requirements)
    assert "://" not in text


def test_locks_agree_with_what_was_tested() -> None:
    """Client, server and training pins are those of the development lock; neighbours run apart from all that."""
    tested = read_pins("dev")
    for purpose in PURPOSES[:-1]:
        pins = read_pins(purpose)
        assert pins
        assert pins.items() <= tested.items()


def test_client_and_server_need_neither_tensorflow_nor_onnx() -> None:
    """Serving stays small, with HTTP too; and without HTTP it has none of what that takes."""
    for purpose in ("client", "server", "web"):
        assert not {"tensorflow", "keras", "tf2onnx", "onnx", "openvino"} & {
            name.split(" ")[0] for name in read_pins(purpose)
        }
    assert not {"starlette", "uvicorn", "python-multipart"} & set(read_pins("server"))
    assert {name.split(" ")[0] for name in read_pins("client")} == {"grpcio", "protobuf", "typing-extensions"}


def test_web_has_nothing_beside_what_it_is_chosen_for() -> None:
    """Bare uvicorn: a faster parser in C is one that the server's bounds on time and connections do not reach."""
    added = read_pins("web").keys() - read_pins("server").keys()

    assert {name.split(" ")[0] for name in added} == {
        *("anyio", "click", "h11", "idna", "python-multipart", "starlette", "uvicorn"),
    }


def test_every_neighbour_is_locked_and_set_up() -> None:
    """`make test` sets up what its tests run."""
    makefile = (ROOT / "Makefile").read_text()
    (names,) = re.findall("^NEIGHBOURS = (.+)$", makefile, re.MULTILINE)

    assert sorted(names.split()) == sorted(lock.stem for lock in LOCKS if lock.parent.name == "neighbours")
    assert re.search("^test: .*install-neighbours", makefile, re.MULTILINE)


def test_make_alone_lists_the_targets() -> None:
    """The default target is help."""
    command = ["make", "--no-print-directory"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    for target in (
        "install",
        "install-web",
        "install-openvino",
        "demo",
        "serve",
        "test",
        "bench",
        "model",
        "proto",
        "lock",
    ):
        assert f"make {target} " in output


def test_ci_runs_the_readmes_test_command() -> None:
    """Nothing is tested that the README does not explain."""
    commands = [
        line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith(("#", "set "))
    ]

    assert commands == ['cd "$(dirname "$0")/.."', "make test"]
    assert "$ make test" in (ROOT / "README.md").read_text()


def test_no_real_scan_and_no_large_file_is_committed() -> None:
    """Licensed slices stay where they are."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    assert not [name for name in files if re.search(r"ID_[0-9a-f]{9}", name)]
    assert not [name for name in files if (ROOT / name).exists() and (ROOT / name).stat().st_size > 1_500_000]
