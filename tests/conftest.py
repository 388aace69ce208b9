"""Fixtures that several test modules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from client import StrokeClient
from tests.client_fakes import FakeServer, serve
from tests.client_kinds import KINDS, ClientKind
from tests.fakes import RSNA, ServerProcess, run_server, write_model

collect_ignore = ["cluster"]
"""Tests of what runs on Ray have an environment of their own: make test-cluster."""

pytest_plugins = ("tests.processes", "tests.coverage_table", "tests.converting", "tests.browsing")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the tiny model; do not change it."""
    root = tmp_path_factory.mktemp("models")
    write_model(root)
    return root


@pytest.fixture(scope="module")
def tiny_server(tiny_models: Path) -> Iterator[ServerProcess]:
    """A server process with the tiny model."""
    with run_server(tiny_models) as server:
        yield server


@pytest.fixture(scope="module")
def blank_plots() -> Iterator[None]:
    """Plots are files without a drawing, for tests of runs that look at none: drawing takes a second a run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FigureCanvasAgg, "draw", FigureCanvasAgg.get_renderer)
        yield


@pytest.fixture
def cli_server(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """A fake server that the client's command line asks when it is told no other."""
    monkeypatch.setenv("STROKE_SERVER", server.target)
    return server


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, other files, hidden ones, and a folder below; it is the working directory's child."""
    folder = tmp_path / "scans"
    for name in ("b.png", "a.JPG", "c.jpeg", "notes.txt", ".hidden.png", "B.PNG", "sub/d.png", ".git/e.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"stroke " + name.encode())
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture(scope="session")
def rsna() -> Path:
    """The folder of real slices; they may not be redistributed, so they are not everywhere."""
    if not RSNA.is_dir():
        pytest.skip(f"real slices are not here ({RSNA.name} beside the checkout, in shared/data): not tested on them")
    return RSNA


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A fake server for tests of the client."""
    with serve() as running:
        yield running


@pytest.fixture
def client(server: FakeServer) -> Iterator[StrokeClient]:
    """A client of the fake server."""
    with StrokeClient(server.target, timeout=5) as connected:
        yield connected


@pytest.fixture(params=KINDS)
def either(request: pytest.FixtureRequest, server: FakeServer) -> ClientKind:
    """The blocking, then the asynchronous client of the fake server."""
    return KINDS[request.param](server.target)


@pytest.fixture
def hot(tmp_path: Path) -> Path:
    """An empty folder to watch."""
    folder = tmp_path / "hot"
    folder.mkdir()
    return folder
