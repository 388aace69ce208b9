"""What tests of folders that are judged share: a folder of images, and the command with a server that is told what to
answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.folder.command import name_file, run
from gateway.folder.judge import Layout
from gateway.folder.settings import JudgeConfig
from gateway.results.settings import ResultSettings
from tests.gateway_box import FakeClient, make_files


@dataclass
class FakeConnection:
    """A way to a server that is none."""

    client: FakeClient

    @contextmanager
    def open_client(self) -> Iterator[FakeClient]:
        yield self.client


def write_files(folder: Path, files: Iterable[bytes] = ()) -> Path:
    """A folder of images whose names name a patient."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files or make_files(3)):
        (folder / f"Doe_Jane_{number}").write_bytes(file)
    return folder


def judge(
    client: FakeClient, folder: Path, out: Path, *, results: tuple[str, ...] = ("sr", "sc"), **config: Any
) -> int:
    """Judges a folder in this process. Returns the exit code."""
    settings = JudgeConfig(folder=folder, out=out, **config)
    connection: Any = FakeConnection(client)
    return run("judge", settings, ResultSettings(results=results), connection, Layout(name_file))


def read_result(out: Path) -> dict[str, Any]:
    """What result.json says."""
    document: dict[str, Any] = json.loads((out / "result.json").read_text())
    return document
