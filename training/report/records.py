"""What a run records of itself: its flags, the state of the code, figures by name, and reference answers.

It only writes what it is given; nothing is trained or predicted here.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.flags import flag_of
from training.config import TrainConfig
from training.evaluation.figures import Level

PATH_FLAGS = ("data", "out", "split")
"""Flags that say where things are on one machine; they are not recorded."""


def flatten_figures(levels: Mapping[str, Level]) -> dict[str, float]:
    """Returns ``test_auc``, ``test_auc_low``, ``test_auc_high`` and so on; what cannot be computed is left out.

    Args:
        levels: by what comes before the figure's name: ``test``, ``test_patient``.
    """
    flat: dict[str, float] = {}
    for prefix, level in levels.items():
        for name, figure in level.figures.items():
            for end, value in (("", figure.value), ("_low", figure.low), ("_high", figure.high)):
                flat[f"{prefix}_{name}{end}"] = value
    return {name: round(value, 4) for name, value in flat.items() if np.isfinite(value)}


def recorded_flags(config: TrainConfig) -> str:
    """Returns the flags that repeat the run, as one types them after ``--data`` and ``--out``."""
    words: list[str] = []
    for name, value in asdict(config).items():
        if value is True:
            words.append(flag_of(name))
        elif value is not False and value is not None and name not in (*PATH_FLAGS, "notes"):
            words += [flag_of(name), str(value)]
    return shlex.join(words)


def find_revision() -> str:
    """Returns the git commit of this code, with ``-dirty`` where it was changed since; ``unknown`` without git."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_reference(
    path: Path, labels: Sequence[str], files: Sequence[str], digests: Sequence[str], probabilities: NDArray[np.float32]
) -> None:
    """Writes what the Keras model answers on a few test images, by the SHA-256 of their bytes.

    The converter compares the served answer on the same bytes: that finds an image that is scaled twice or not at all.
    """
    images = [
        {"file": file, "sha256": digest, "probabilities": [float(value) for value in row]}
        for file, digest, row in zip(files, digests, probabilities, strict=True)
    ]
    write_json(path, {"labels": list(labels), "images": images})
