"""Imports go one way: client needs no server, the serving box needs no TensorFlow. Each checked in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import ROOT, ServerProcess

TRAINING_STACK = {"tensorflow", "keras", "tf2onnx", "onnx", "matplotlib"}
NOT_FOR_CLIENTS = {"server", "converter", "training", "numpy", "PIL", "onnxruntime"}


def list_imports(*modules: str) -> set[str]:
    """Top-level names in ``sys.modules`` after importing ``modules`` in a new interpreter."""
    code = f"import sys, {', '.join(modules)}; print('\\n'.join(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name.partition(".")[0] for name in output.split()}


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        (("client", "client.cli.main", "client._client"), TRAINING_STACK | NOT_FOR_CLIENTS),
        (("server.cli", "server.app"), TRAINING_STACK | {"client", "converter", "training"}),
        (
            ("server.models.contract", "server.images.preprocess"),
            TRAINING_STACK | {"grpc", "onnxruntime", "client", "google"},
        ),
        (("training.cli",), {"tensorflow", "keras", "onnxruntime", "grpc", "client", "converter"}),
        (("converter.cli",), {"tensorflow", "keras", "onnxruntime", "grpc", "client"}),
    ],
)
def test_import_boundary(modules: tuple[str, ...], forbidden: set[str]) -> None:
    """What must not be imported is not imported."""
    assert list_imports(*modules) & forbidden == set()


def test_server_never_imports_the_training_stack_while_it_serves(tiny_server: ServerProcess) -> None:
    """Not even lazily: the process has no such library mapped."""
    maps = Path(f"/proc/{tiny_server.process.pid}/maps").read_text()

    assert "onnxruntime" in maps
    assert "tensorflow" not in maps
    assert "site-packages/onnx/" not in maps


def test_proto_is_ours() -> None:
    """proto-plus of PyPI imports under the same name."""
    import proto

    assert proto.__file__ == str(ROOT / "proto" / "__init__.py")
