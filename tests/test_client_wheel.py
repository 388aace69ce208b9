"""The client as a wheel: what is in it, and that it works where nothing of the checkout is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

import client
from tests.fakes import ROOT, ServerProcess

NEEDED = ("grpcio", "protobuf", "typing_extensions")
"""What an installer would bring for the library: its two requirements, and what those require."""

SOURCES = ("client", "proto", "requirements", "pyproject.toml", "README.md", "LICENSE")
IMAGE = ROOT / "samples" / "stroke-1.png"


def build(source: Path, out: Path) -> Path:
    """Builds as ``make wheel`` does, and returns the wheel."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, cwd=out, check=True, capture_output=True, timeout=120)
    (wheel,) = out.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the wheel and what it needs; nothing of the checkout, nor of its environment."""

    folder: Path

    def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment elsewhere than in the checkout."""
        program, *arguments = command
        return subprocess.run(
            [self.folder / "bin" / program, *arguments],
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def run_code(self, code: str, **variables: str) -> str:
        """Returns what ``code`` prints."""
        done = self.run("python", "-c", code, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel installed, with links to the packages that it needs in place of a download."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in NEEDED:
        package = distribution(name)
        for part in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            (packages / part).symlink_to(str(package.locate_file(part)))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, timeout=120)
    return Environment(folder)


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> Message:
    """What the wheel says of itself."""
    with ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode("utf-8"))


def test_wheel_holds_the_client_alone(wheel: Path) -> None:
    """One package with its types, and nothing of the server, the tests or the checkout's own stubs."""
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    built = {name for name in names if ".dist-info/" not in name}
    tracked = subprocess.run(["git", "ls-files", "client"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert wheel.name == f"strokeserve_client-{client.__version__}-py3-none-any.whl"
    assert {name.removeprefix("strokeserve_client/") for name in built} == {
        *(name.removeprefix("client/") for name in tracked.split() if name != "client/_proto.py"),
        *(f"_proto/{name}" for name in ("__init__.py", "stroke_pb2.py", "stroke_pb2.pyi")),
    }
    assert "strokeserve_client/py.typed" in names


def test_wheel_requires_what_the_lock_files_are_made_from(metadata: Message) -> None:
    """gRPC and protobuf for the library, the extra ``cli`` for more comfort on a terminal."""
    required = [
        Requirement(line.partition("#")[0].strip() + extra)
        for name, extra in (("client.in", ""), ("cli.in", "; extra == 'cli'"))
        for line in (ROOT / "requirements" / name).read_text().splitlines()
        if not line.startswith(("#", "-r"))
    ]

    assert metadata.get_all("Provides-Extra") == ["cli"]
    assert set(map(Requirement, metadata.get_all("Requires-Dist", []))) == set(required)
    assert metadata["Version"] == client.__version__


def test_same_sources_give_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    """A wheel can be checked by building it again, in another folder and on another day."""
    source, out = tmp_path / "elsewhere", tmp_path / "out"
    out.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    for path in source.rglob("*"):
        os.utime(path, (1e9, 1e9))

    assert build(source, out).read_bytes() == wheel.read_bytes()


def test_readme_example_runs(environment: Environment, tiny_server: ServerProcess) -> None:
    """What the README shows of the library works under the name of the package, the checkout out of reach."""
    (example,) = re.findall(r"```python\n(from client .*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    example = example.replace("from client import", "from strokeserve_client import")
    example = example.replace("127.0.0.1:50051", tiny_server.address).replace("samples/", f"{ROOT}/samples/")

    printed = environment.run_code(f"{example}\nimport sys; print(*sorted(sys.modules))").splitlines()

    modules = {name.split(".")[0] for name in printed[-1].split()}
    assert not modules & {"client", "proto", "server", "numpy", "rich", "shtab"}
    assert re.match(r"\S+ 0\.\d+  P\(stroke\) 0\.\d+  \(tiny 1, threshold", printed[1])
    assert printed[2].startswith("PredictionFailure(source='missing.png', error=ImageReadError(")
    assert printed[3].startswith("IMAGE_")


def test_command_classifies(environment: Environment, tiny_server: ServerProcess) -> None:
    """``stroke`` does what ``python -m client`` does in a checkout, on a pipe without the packages of the extra."""
    server = {"STROKE_SERVER": tiny_server.address}
    image = environment.run("stroke", IMAGE, **server)
    health = environment.run("stroke", "health", **server)
    module = environment.run("python", "-m", "strokeserve_client", IMAGE, **server)

    assert (image.returncode, image.stderr, image.stdout.count("\n")) == (0, "", 1)
    assert image.stdout.startswith(f"{IMAGE}: ")
    assert health.stdout.split()[:2] == [tiny_server.address, "SERVING"]
    assert (module.returncode, module.stdout) == (0, image.stdout)


def test_version_is_known(environment: Environment) -> None:
    """The package says which version it is, and so does what installed it."""
    code = "import importlib.metadata as m, strokeserve_client as s; print(s.__version__, m.version(s.__name__))"

    assert environment.run_code(code).split() == [client.__version__] * 2
    assert environment.run("stroke", "--version").stdout.split() == [client.__version__]


def test_traceback_names_the_package(environment: Environment) -> None:
    """Nobody has to know in which module an error is at home."""
    done = environment.run(
        "python", "-c", "import strokeserve_client as s; s.StrokeClient('unix:/no/such').predict(b'')"
    )

    assert done.stderr.splitlines()[-1].startswith("strokeserve_client.InvalidImageError: the image is empty")


def test_types_of_typical_uses(environment: Environment, tmp_path: Path) -> None:
    """A strict type checker of a user finds in the package what it finds in the checkout."""
    file = tmp_path / "typical_uses.py"
    uses = (ROOT / "tests" / "typical_uses.py").read_text("utf-8")
    file.write_text(uses.replace("from client import", "from strokeserve_client import"))
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\n[mypy-grpc.*]\nignore_missing_imports = true\n")
    python = environment.folder / "bin" / "python"
    command = [sys.executable, "-m", "mypy", "--python-executable", str(python), file.name]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    assert (done.returncode, done.stdout) == (0, "Success: no issues found in 1 source file\n")


@pytest.mark.parametrize("order", ["client, strokeserve_client", "strokeserve_client, client"])
def test_wheel_and_checkout_live_in_one_process(
    environment: Environment, tiny_server: ServerProcess, order: str
) -> None:
    """Either can be first to register the messages, which protobuf keeps by the name of their file."""
    code = f"""
for package in map(__import__, {order!r}.split(", ")):
    with package.StrokeClient({tiny_server.address!r}) as client:
        print(client.predict({str(IMAGE)!r}).label, *(result.label for result in client.predict_many([{str(IMAGE)!r}])))
import sys
assert {{"proto.stroke_pb2", "strokeserve_client._proto.stroke_pb2"}} <= sys.modules.keys()
"""
    first, second = environment.run_code(code, PYTHONPATH=str(ROOT)).splitlines()

    assert first == second


def test_packages_of_the_same_names_are_left_alone(
    environment: Environment, tiny_server: ServerProcess, tmp_path: Path
) -> None:
    """``client`` and ``proto`` are names that others use, too, and ours is not the only service with ``_pb2`` files."""
    for name in ("client", "proto", "tls", "stroke_pb2"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('imported')")
    code = f"""
import strokeserve_client
with strokeserve_client.StrokeClient({tiny_server.address!r}, timeout=5) as client:
    print(client.predict({str(IMAGE)!r}).label, len(list(client.predict_many([{str(IMAGE)!r}]))))
"""
    assert environment.run_code(code, PYTHONPATH=str(tmp_path)).split()[1] == "1"
