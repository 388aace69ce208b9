"""Imports go one way, in every module: those inside functions and those for type checkers included."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.fakes import ROOT, ServerProcess

SERVER_PARTS = tuple(f"server.{part}" for part in ("errors", "flags", "images", "machine", "models", "process"))
"""What others may use of the server: no gRPC, no serving."""

MAY_IMPORT = {
    "proto": (),
    "client": ("proto",),
    "client.cli": ("client",),
    "server": ("proto",),
    "converter": (*SERVER_PARTS, "training.fit.models", "training.phantom"),
    "training": SERVER_PARTS,
    "training.judge": (*SERVER_PARTS, "client"),
    "gateway": ("client", "proto", "server.flags", "server.machine", "server.process"),
    "bench": ("client", "converter", "proto", "server", "training"),
    "cluster": (*SERVER_PARTS, "server.admission", "server.api", "server.config", "server.core", "proto"),
}
"""What each package may import of the others; of two names that fit a module the longer one counts."""

REST = "*"
"""Every part that is not named; these may import each other."""

FLOORS = {
    "client": [("__main__",), ("cli",), (REST,)],
    "server": [
        ("__main__",),
        ("cli",),
        ("lifecycle",),
        ("metrics",),
        ("web",),
        ("oip",),
        ("api", "audit"),
        ("admission",),
        ("security",),
        ("core",),
        ("config",),
        ("flags", "models"),
        ("images",),
        ("machine", "process"),
        ("errors",),
    ],
    "training": [
        ("__main__",),
        ("cli",),
        ("own",),
        ("run", "judge", "audit"),
        ("report", "fit"),
        ("evaluation",),
        ("data",),
        ("phantom",),
        ("progress",),
        ("errors",),
    ],
}
"""The parts of a package from top to bottom: each may import what is below it, and nothing beside or above it.

``training.settings`` stands on no floor: it names the choices that parts offer, and parts read their settings from it.
"""

CLUSTER_ALONE = {"ray", "pyarrow", "fsspec"}
"""What only ``cluster`` needs; serving, training and the rest go without."""

TRAINING_STACK = {"tensorflow", "keras", "tf2onnx", "onnx", "matplotlib"}
NOT_FOR_CLIENTS = {"server", "converter", "training", "numpy", "PIL", "onnxruntime"}


@cache
def list_modules() -> dict[str, Path]:
    """Every module of the product by its name."""
    packages = [name for name in MAY_IMPORT if "." not in name]
    paths = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@cache
def list_imports(module: str) -> frozenset[str]:
    """The modules of the product that a module imports, wherever in it that is written."""
    path, modules = list_modules()[module], list_modules()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *(node.module.split(".") if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else base for name in names}
    return frozenset(found & modules.keys())


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def find_floor(module: str) -> int | None:
    """How far down its package a module lies; None for a package itself, and where there are no floors."""
    package, _, rest = module.partition(".")
    part = rest.partition(".")[0]
    floors = FLOORS.get(package, []) if part else []
    return next((number for number, parts in enumerate(floors) if part in parts or REST in parts), None)


def is_allowed(module: str, imported: str) -> bool:
    """Whether the rules let a module import another one."""
    if imported.partition(".")[0] != module.partition(".")[0]:
        rule = max((name for name in MAY_IMPORT if is_within(module, name)), key=len)
        return any(is_within(imported, allowed) for allowed in MAY_IMPORT[rule])
    here, there = find_floor(module), find_floor(imported)
    if here is None or there is None or module.split(".")[1] == imported.split(".")[1]:
        return True
    return here < there or (here == there and REST in FLOORS[module.partition(".")[0]][here])


def test_every_module_imports_what_it_may() -> None:
    """Between the packages, and between the parts of one."""
    faults = [
        f"{module} imports {imported}"
        for module in list_modules()
        for imported in sorted(list_imports(module))
        if not is_allowed(module, imported)
    ]

    assert faults == []


def test_only_the_cluster_needs_ray() -> None:
    """Nor pyarrow and fsspec: they are in no other environment."""
    users = {
        module
        for module, path in list_modules().items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if name.partition(".")[0] in CLUSTER_ALONE
    }

    assert users
    assert not [module for module in users if not is_within(module, "cluster")]


def test_no_module_imports_itself_by_way_of_others() -> None:
    """No circles: a module can be read, tested and moved without what is above it."""
    graph = {module: list_imports(module) - {module} for module in list_modules()}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))

    assert len(order) == len(graph)


def test_rules_see_every_kind_of_import() -> None:
    """Absolute, relative, of a module or a name, within a function."""
    assert "client._client" in list_imports("client")
    assert "client.cli.main" in list_imports("client.__main__")
    assert "server.lifecycle.app" in list_imports("server.cli")
    assert "server.models.engines.openvino_engine" in list_imports("server.models.runtime")


def test_client_has_no_stubs_that_others_have_too() -> None:
    """Programs that use it use tritonclient, too: two packages with that protocol cannot be loaded together."""
    users = {module for module in list_modules() if "proto.inference_pb2" in list_imports(module)}

    assert users
    assert not [module for module in users if is_within(module, "client")]


def list_loaded(*modules: str) -> set[str]:
    """Top-level names in ``sys.modules`` after importing ``modules`` in a new interpreter."""
    code = f"import sys, {', '.join(modules)}; print('\\n'.join(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {name.partition(".")[0] for name in output.split()}


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        (("client", "client.cli.main", "client._client"), TRAINING_STACK | NOT_FOR_CLIENTS),
        (
            ("server.cli", "server.lifecycle.app"),
            TRAINING_STACK | {"client", "converter", "training", "starlette", "uvicorn", "h11", "python_multipart"},
        ),
        (("server.web.face", "server.web.port", "server.web.tls"), TRAINING_STACK | {"grpc", "google", "client"}),
        (
            ("server.models.contract", "server.images.preprocess"),
            TRAINING_STACK | {"grpc", "onnxruntime", "client", "google"},
        ),
        (("training.cli",), {"tensorflow", "keras", "onnxruntime", "grpc", "client", "converter"}),
        (("gateway.cli",), TRAINING_STACK | {"numpy", "onnxruntime", "grpc", "pydicom", "pynetdicom", "highdicom"}),
        (("converter.cli",), {"tensorflow", "keras", "onnxruntime", "grpc", "client"}),
        (("cluster.cli",), {"ray", "pyarrow", "onnxruntime", "grpc", "client"}),
    ],
)
def test_import_boundary(modules: tuple[str, ...], forbidden: set[str]) -> None:
    """What must not be imported is not imported."""
    assert list_loaded(*modules) & forbidden == set()


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
