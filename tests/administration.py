"""What tests do as operators of a running server."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server.errors import ChangeRefusedError
from server.models.activation import Activator
from server.models.active import read_active
from server.models.engines.engine import DEFAULT_OPTIONS
from server.models.registry import ModelRegistry
from tests.fakes import build_tiny_model, run_module, with_version, write_model


def add_version(root: Path, version: str, gain: float = 0.05) -> Path:
    """Writes a version of the tiny model that answers in its own way."""
    spec = with_version(version)
    return write_model(root, spec, build_tiny_model(spec, gain=gain))


def operate(folder: Path, *arguments: str) -> tuple[int, str]:
    """Runs ``python -m server model``; returns its exit code and what it has printed, errors or else the result.

    Args:
        folder: of the socket.
        arguments: of the command.
    """
    done = run_module("server", "model", *arguments, env={**os.environ, "STROKE_ADMIN": str(folder)})
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def read_status(folder: Path) -> dict[str, Any]:
    """What ``model status --json`` says."""
    code, text = operate(folder, "status", "--json")
    assert code == 0, text
    document: dict[str, Any] = json.loads(text)
    return document


@dataclass
class Box:
    """A models folder and what is served of it."""

    root: Path
    registry: ModelRegistry
    activator: Activator

    @property
    def served(self) -> dict[str, str]:
        """Channel → version, of the default model."""
        return {channel: served.release.version for channel, served in self.registry.snapshot.default.channels}

    def refuse(self, change: Callable[[Activator], object]) -> str:
        """The reason for which a change is refused; nothing is changed by it, in memory or on the disk."""
        before, written = self.served, read_active(self.root)
        with pytest.raises(ChangeRefusedError) as refusal:
            change(self.activator)
        assert (self.served, read_active(self.root)) == (before, written)
        assert self.activator.failures[-1].reason == refusal.value.reason
        return refusal.value.reason


def start_box(root: Path, wanted: str = "tiny") -> Box:
    """Serves models as a server would."""
    registry = ModelRegistry()
    registry.load(root, wanted)
    return Box(root, registry, Activator(registry, root, DEFAULT_OPTIONS))


def start_second_of_three(root: Path) -> Box:
    """Serves version 2; 1 and 3 are there, too."""
    add_version(root, "2")
    box = start_box(root)
    add_version(root, "1", 0.04)
    add_version(root, "3", 0.06)
    return box
