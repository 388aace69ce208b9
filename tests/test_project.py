"""What keeps the project installable and honest."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.fakes import ROOT

PURPOSES = ("client", "cli", "server", "web", "openvino", "training", "dev")


def read_pins(purpose: str) -> dict[str, str]:
    """Package (with its environment marker) → version, from a lock file."""
    text = (ROOT / "requirements" / f"{purpose}.lock").read_text()
    return {
        name + marker: version
        for name, version, marker in re.findall(r"^([a-z0-9._-]+)==(\S+)( ; [^\\\n]+)?", text, re.MULTILINE)
    }


@pytest.mark.parametrize("purpose", PURPOSES)
def test_every_pin_has_hashes_and_names_no_host(purpose: str) -> None:
    """A fresh machine gets the bytes that were tested, from whatever index it uses."""
    text = (ROOT / "requirements" / f"{purpose}.lock").read_text()

    requirements = re.split(r"\n(?=[a-z])", text)
    assert all("--hash=sha256:" in requirement for requirement in requirements)
    assert "://" not in text


def test_locks_agree_with_what_was_tested() -> None:
    """Client, server and training pins are those of the development lock."""
    tested = read_pins("dev")
    for purpose in PURPOSES[:-1]:
        pins = read_pins(purpose)
        assert pins
        assert pins.items() <= tested.items()


def test_client_and_server_need_neither_tensorflow_nor_onnx() -> None:
    """Serving stays small."""
    for purpose in ("client", "server"):
        assert not {"tensorflow", "keras", "tf2onnx", "onnx", "openvino"} & {
            name.split(" ")[0] for name in read_pins(purpose)
        }
    assert {name.split(" ")[0] for name in read_pins("client")} == {"grpcio", "protobuf", "typing-extensions"}


def test_make_alone_lists_the_targets() -> None:
    """The default target is help."""
    command = ["make", "--no-print-directory"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    for target in ("install", "demo", "serve", "test", "bench", "model", "proto", "lock"):
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
