"""What a run folder has recorded, read back for report and model card."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from training.data.split import SPLITS
from training.errors import TrainingError
from training.report.tables import NONE, escape, make_table


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
