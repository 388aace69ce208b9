"""Settings of ``python -m training compare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.flags import REQUIRED, setting
from training.settings.evaluate import JudgeConfig


@dataclass(frozen=True, kw_only=True)
class CompareConfig(JudgeConfig):
    """Settings of ``python -m training compare``."""

    first: str = setting(
        REQUIRED,
        "Run folder, .keras or .h5 file with its spec.json beside it, model folder, .onnx file, or HOST:PORT of a "
        "running server.",
        positional=True,
        metavar="A",
    )
    second: str = setting(
        REQUIRED, "Likewise; differences are its figures less those of A.", positional=True, metavar="B"
    )
    out: Path | None = setting(
        None,
        "Folder to write comparison.md, comparison.json, answers.csv and, where people have several slices, "
        "people.csv to; it must not exist or be empty.",
    )
    json: bool = setting(False, "Print JSON instead of Markdown.")
