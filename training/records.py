"""What a run folder has recorded, read back for report and model card."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from training.errors import TrainingError
from training.tables import NONE, escape, make_table


def count_split(folder: Path) -> str:
    """Returns a table of images and people by split and label from ``split.csv``; empty where it is not there."""
    path = folder / "split.csv"
    if not path.exists():
        return ""
    images: Counter[tuple[str, str]] = Counter()
    people: defaultdict[str, set[str]] = defaultdict(set)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            images[row["split"], row["label"]] += 1
            if row.get("patient"):
                people[row["split"]].add(row["patient"])
    labels = sorted({label for _, label in images})
    rows = [
        [
            escape(split),
            *(f"{images[split, label]:,}" for label in labels),
            f"{len(people[split]):,}" if people[split] else NONE,
        ]
        for split in dict.fromkeys(split for split, _ in images)
    ]
    return make_table(["split", *(f"images of {escape(label)}" for label in labels), "people by id"], rows)


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
