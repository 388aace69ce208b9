"""The surface of the client package, and what importing it costs."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
import traceback
from dataclasses import is_dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import get_type_hints

import client

ROOT = Path(__file__).parent.parent
FORBIDDEN = ("numpy", "PIL", "onnxruntime", "tensorflow", "server", "grpc_health", "training", "converter")
# A module that is None in sys.modules cannot be imported; grpc itself tries grpc_health and does without.
BLOCK = f"import sys\nsys.modules.update(dict.fromkeys({FORBIDDEN!r}))"


LIBRARY = [path for path in (ROOT / "client").rglob("*.py") if "cli" not in path.parts]
DATA = client.ImageWarning("IMAGE_BLANK", "the image is blank")
ERROR = client.InvalidImageError("the image is empty", "IMAGE_EMPTY", None, "r-4")


def list_imports(file: Path) -> set[str]:
    """Returns the modules that a file imports: at the top, in functions, and for type checkers alone."""
    names = set()
    package = file.parent.relative_to(ROOT).parts
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            parts = {f"{module}.{alias.name}" for alias in node.names}
            # `from .tls import probe` imports a module, `from ._config import TLSConfig` a name.
            names.update(parts if (ROOT / module.replace(".", "/")).is_dir() else {module})
    return names


def test_library_has_no_circles() -> None:
    """Imports go one way, those in functions and for types included, and never to the command line."""
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in LIBRARY}
    edges = {name: list_imports(file) & modules.keys() for name, file in modules.items()}

    assert len(edges) > 15
    TopologicalSorter(edges).prepare()  # raises CycleError
    importers = {name for name, file in modules.items() if any(".cli" in module for module in list_imports(file))}
    assert importers == {"client.__main__"}
    for leaf in ("_errors", "_address"):
        assert edges[f"client.{leaf}"] == set()
    assert edges["client._config"] == {"client._address"}
    assert edges["client._types"] == {"client._errors"}


def test_generated_messages_have_one_door() -> None:
    """Where the messages come from is known to one module, which the wheel replaces."""
    doors = [
        file.name
        for file in (ROOT / "client").rglob("*.py")
        if any(module.split(".")[0] == "proto" for module in list_imports(file))
    ]

    assert doors == ["_proto.py"]


def test_public_names_are_at_home_in_the_package() -> None:
    """Tracebacks and representations call things as users import them, not by the module that holds them."""
    assert {getattr(client, name).__module__ for name in client.__all__} == {"client"}
    assert traceback.format_exception_only(ERROR) == ["client.InvalidImageError: the image is empty\n"]


def test_results_and_errors_survive_pickling() -> None:
    """Both can cross to another process, under their public names."""
    data, error = pickle.loads(pickle.dumps((DATA, ERROR)))

    assert data == DATA
    assert (type(error), str(error), error.request_id) == (client.InvalidImageError, str(ERROR), "r-4")
    assert b"client._" not in pickle.dumps((DATA, ERROR, client.HealthStatus.SERVING, client.RetryConfig()))


def test_fields_tell_their_types() -> None:
    """What reads annotations at run time, as validation and serialisation do, can resolve those of all public data."""
    data = [kind for name in client.__all__ if is_dataclass(kind := getattr(client, name))]

    assert len(data) == 14
    for kind in data:
        assert not any(isinstance(hint, str) for hint in get_type_hints(kind).values())
    assert get_type_hints(client.PredictionFailure)["error"] is client.StrokeClientError


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

    assert client.__all__ == sorted(imported - {"__version__"})
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


def test_version_does_without_grpc() -> None:
    """The version is known to a Python that lacks what the client needs."""
    modules = list_modules_after("import client\nassert client.__version__")

    assert not modules & {"grpc", "google.protobuf"}


def test_single_image_does_without_streams_and_tls() -> None:
    """A call in plain text passes through few modules, so that a first answer is soon there and easily followed."""
    modules = list_modules_after(
        "import client\ntry:\n    client.StrokeClient('unix:/no/such', timeout=0.1).predict(b'x')\n"
        "except client.StrokeClientError as error:\n    assert error.code == 'UNAVAILABLE', error"
    )

    parts = [
        "_address",
        "_channel",
        "_client",
        "_config",
        "_core",
        "_errors",
        "_exchange",
        "_proto",
        "_retry",  # of a call that fails
        "_types",
    ]
    assert {name for name in modules if name.startswith("client")} == {"client", *(f"client.{part}" for part in parts)}


def test_import_takes_a_quarter_of_a_second_at_most() -> None:
    """gRPC included; counted is processor time, which neighbours on the machine do not change much."""
    code = "import time, client; client.StrokeClient; print(time.process_time())"
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True).stdout)
        for _ in range(3)
    ]

    assert min(seconds) < 0.25


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
