"""The surface of the client package, and what importing it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import client

ROOT = Path(__file__).parent.parent
FORBIDDEN = ("numpy", "PIL", "onnxruntime", "tensorflow", "server", "grpc_health", "training", "converter")
# A module that is None in sys.modules cannot be imported; grpc itself tries grpc_health and does without.
BLOCK = f"import sys\nsys.modules.update(dict.fromkeys({FORBIDDEN!r}))"


def list_modules_after(code: str) -> set[str]:
    """Returns the names in sys.modules after ``code`` ran in a fresh interpreter, which cannot import ``FORBIDDEN``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{BLOCK}\n{code}\nprint(*(name for name in sys.modules if sys.modules[name]))"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split("\n")[-2].split())


def test_all_is_sorted_and_complete() -> None:
    """__all__ names what type checkers see, in order, and each name can be had."""
    tree = ast.parse((ROOT / "client/__init__.py").read_text())
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {alias.name for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}

    assert client.__all__ == sorted(imported)
    assert set(client.__all__) <= set(dir(client))
    for name in client.__all__:
        assert getattr(client, name).__name__ == name


def test_unknown_name_is_an_attribute_error() -> None:
    """Lazy exports do not make up names."""
    assert not hasattr(client, "no_such_name")


def test_client_needs_nothing_but_grpc_and_protobuf() -> None:
    """Neither the server nor any package for images, arrays or models is imported."""
    modules = list_modules_after(
        "import client, client._client, client.cli.main, client.cli.report, client.cli.selection"
    )

    assert "grpc" in modules
    assert not [name for name in modules if name.startswith(FORBIDDEN)]


def test_help_and_usage_do_without_grpc() -> None:
    """--help starts fast because gRPC is imported only when images are sent."""
    modules = list_modules_after(
        "import client.cli.main\ntry:\n    client.cli.main.main(['--help'])\nexcept SystemExit:\n    pass"
    )

    assert "client.cli.main" in modules
    assert not modules & {"grpc", "google.protobuf", "proto"}


def test_missing_package_is_one_line() -> None:
    """A Python without gRPC, such as that of the system, is told what to do."""
    code = "import sys; sys.modules['grpc'] = None; from client.cli.main import main; sys.exit(main(['x.png']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the package grpc is not installed in ")
    assert done.stderr.count("\n") == 1


def test_typed_marker_exists() -> None:
    """Type checkers of users may read the annotations."""
    assert (ROOT / "client/py.typed").is_file()
