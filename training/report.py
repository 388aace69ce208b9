"""What a run leaves to read: figures of the held-out images, provenance, and the page about them.

It only writes what it is given; nothing is trained or predicted here.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.contract import ModelSpec
from training.config import TrainConfig
from training.data import ImageSet
from training.evaluate import (
    Bools,
    Floats,
    bootstrap_interval,
    compute_auc,
    compute_matched_auc,
    count_confusion,
    cut_octiles,
    weighted_auc,
    weighted_share,
)
from training.flags import flag_of
from training.split import SPLITS

PATH_FLAGS = ("data", "out")
"""Flags that say where things are on one machine; they are not recorded."""


@dataclass(frozen=True)
class Figure:
    """One figure with its 95 % interval."""

    value: float
    low: float
    high: float


def measure(
    scores: Floats, positive: Bools, groups: NDArray[np.int64], trivial: Floats, threshold: float
) -> dict[str, Figure]:
    """Computes the figures of the held-out images, with intervals by bootstrap over groups (see ``evaluate``)."""
    groups = np.unique(groups, return_inverse=True)[1]
    confusion = count_confusion(scores, positive, threshold)
    called, every = scores > threshold, np.ones(len(scores), bool)
    statistics = {
        "auc": (compute_auc(scores, positive), weighted_auc(scores, positive)),
        "trivial_auc": (compute_auc(trivial, positive), weighted_auc(trivial, positive)),
        "matched_auc": (
            compute_matched_auc(scores, positive, trivial),
            weighted_auc(scores, positive, cut_octiles(trivial)),
        ),
        "sensitivity": (confusion.sensitivity, weighted_share(called, positive)),
        "specificity": (confusion.specificity, weighted_share(~called, ~positive)),
        "accuracy": (confusion.accuracy, weighted_share(called == positive, every)),
    }
    return {name: Figure(value, *bootstrap_interval(of, groups)) for name, (value, of) in statistics.items()}


def flatten_figures(figures: Mapping[str, Figure]) -> dict[str, float]:
    """Returns ``test_auc``, ``test_auc_low``, ``test_auc_high`` and so on; what cannot be computed is left out."""
    flat: dict[str, float] = {}
    for name, figure in figures.items():
        flat |= {f"test_{name}": figure.value, f"test_{name}_low": figure.low, f"test_{name}_high": figure.high}
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


def render_report(
    spec: ModelSpec,
    images: ImageSet,
    split: NDArray[np.int64],
    figures: Mapping[str, Figure],
    confusion: Mapping[str, int],
    warnings: Sequence[str],
    notes: Sequence[str],
) -> str:
    """Writes the page about a run, in Markdown."""
    lines = [f"# {spec.name} {spec.version}", "", spec.intended_use]
    lines += [f"\n**{warning}**" for warning in warnings] + [f"\n{note}" for note in notes]
    lines += ["", "## Images", "", f"| | {' | '.join(images.labels)} |", "|---" * (len(images.labels) + 1) + "|"]
    for index, name in enumerate(SPLITS):
        counts = np.bincount(images.targets[split == index], minlength=len(images.labels))
        lines.append(f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |")
    lines += [
        "",
        "## Held-out test images",
        "",
        f"Positive: {spec.positive_label}, answered where p > {spec.threshold:g}. Intervals: 95 %, bootstrap over "
        "people. The trivial AUC is that of the share of mid-grey pixels, which needs no model; the matched AUC "
        "compares only images of the same octile of that share.",
        "",
        "| | value | 95 % interval |",
        "|---|---|---|",
    ]
    for name, figure in figures.items():
        lines.append(f"| {name.replace('_', ' ')} | {figure.value:.3f} | {figure.low:.3f} to {figure.high:.3f} |")
    lines += ["", ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in confusion.items()) + ".", ""]
    lines += ["## Training", "", "![Accuracy](accuracy.png) ![Loss](loss.png)", "", "| | |", "|---|---|"]
    lines += [f"| {key.replace('_', ' ')} | {value} |" for key, value in spec.provenance.items() if value]
    return "\n".join(lines) + "\n"
