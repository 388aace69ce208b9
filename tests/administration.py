"""What tests do as operators of a running server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

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
