"""The one place where a benchmark names a model's precision: to the server, and to the bare loop."""

from __future__ import annotations

from pathlib import Path

from server.models.engines.engine import DEFAULT_OPTIONS, EngineOptions
from server.models.repository import find_only_model
from server.models.runtime import OnnxModel, load_model

FILES = {"int8": "model.int8.onnx", "fp32": "model.onnx"}
"""Precision → file in a model's folder; the one that the server prefers first."""


def list_precisions(models: Path) -> list[str]:
    """Returns the precisions in which the only model of a folder can be served, the preferred one first."""
    folder = find_only_model(models)
    return [precision for precision, file in FILES.items() if (folder / file).is_file()]


def server_flags(models: Path, precision: str) -> list[str]:
    """Returns what makes ``python -m server`` serve that precision."""
    return ["--precision", precision] if len(list_precisions(models)) > 1 else []


def load_bare(models: Path, precision: str) -> OnnxModel:
    """Loads the model as the server does, with one thread inside a run."""
    options = EngineOptions(precision) if len(list_precisions(models)) > 1 else DEFAULT_OPTIONS
    return load_model(find_only_model(models), options)
