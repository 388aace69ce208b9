"""What a run records of itself: its flags, the state of the code, figures by name, and reference answers; and what is
read back for report and model card.

It only writes what it is given; nothing is trained or predicted here.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.flags import Settings, list_settings
from training.data.groups import SPLITS
from training.errors import TrainingError
from training.evaluation.figures import ClassFigures, Figure, Level
from training.report.tables import NONE, escape, make_table
from training.settings.train import TrainConfig

PATH_FLAGS = ("data", "out", "parent")
"""Flags that say where things are on one machine; they are not recorded, nor is a file that ``--split`` names."""


def flatten_figures(levels: Mapping[str, Level]) -> dict[str, float]:
    """Returns ``test_auc``, ``test_auc_low``, ``test_auc_high`` and so on; what cannot be computed is left out.

    Args:
        levels: by what comes before the figure's name: ``test``, ``test_patient``.
    """
    return flatten(
        {f"{prefix}_{name}": figure for prefix, level in levels.items() for name, figure in level.figures.items()}
    )


def flatten_classes(prefix: str, classes: ClassFigures) -> dict[str, float]:
    """Returns the figures over all classes likewise: ``test_macro_auc``, ``test_class_accuracy``; of people with
    the prefix ``test_patient``."""
    names = {"accuracy": "class_accuracy"}
    return flatten({f"{prefix}_{names.get(name, name)}": figure for name, figure in classes.overall.items()})


def flatten(figures: Mapping[str, Figure]) -> dict[str, float]:
    """Returns figures and the ends of their intervals by name; what cannot be computed is left out."""
    flat = {
        f"{name}{end}": value
        for name, figure in figures.items()
        for end, value in (("", figure.value), ("_low", figure.low), ("_high", figure.high))
    }
    return {name: round(value, 4) for name, value in flat.items() if np.isfinite(value)}


def recorded_flags(config: TrainConfig, names: Sequence[str] | None = None) -> str:
    """Returns the flags that repeat the run, as one types them after ``--data`` and ``--out``.

    They are all of its settings, unless ``names`` says which.
    """
    words: list[str] = []
    kind: type[Settings] = type(config)
    for one in list_settings(kind):
        if names is not None and one.name not in names:
            continue
        value = getattr(config, one.name)
        is_path = one.name in PATH_FLAGS or (one.name == "split" and config.split_file)
        if value is True:
            words.append(one.flag)
        elif value not in (False, None, ()) and not is_path and one.name != "notes":
            texts = list(map(str, value if isinstance(value, tuple) else (value,)))
            words += [one.flag, *([one.details.separator.join(texts)] if one.details.separator else texts)]
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


def count_split(folder: Path) -> str:
    """Returns a table of images and people by split, or by fold, and label; empty where there is no ``split.csv``."""
    path = folder / "split.csv"
    if not path.exists():
        return ""
    images: Counter[tuple[str, str]] = Counter()
    people: defaultdict[str, set[str]] = defaultdict(set)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            split = row["split"] if "split" in row else f"held out in fold {row['fold']}"
            images[split, row["label"]] += 1
            if row.get("patient"):
                people[split].add(row["patient"])
    labels = sorted({label for _, label in images})
    rows = [
        [
            escape(split),
            *(f"{images[split, label]:,}" for label in labels),
            f"{len(people[split]):,}" if people[split] else NONE,
        ]
        for split in sorted({split for split, _ in images}, key=order_split)
    ]
    return make_table(["split", *(f"images of {escape(label)}" for label in labels), "people by id"], rows)


def order_split(split: str) -> tuple[int, str]:
    """Sorts splits as they are used, and folds behind them by their number."""
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS) + len(split), split)


def read_document(path: Path) -> dict[str, Any]:
    """Reads a JSON object; empty where there is no such file.

    Raises:
        TrainingError: naming the file, when it holds something else.
    """
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise TrainingError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(document, dict):
        raise TrainingError(f"{path}: must be a JSON object")
    return document
