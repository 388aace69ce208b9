"""What tells the classes apart without looking at the disease: how well one property of a file predicts the label.

A network takes the easiest way. Where one class came from another scanner or was saved by another program, it learns
the program, and its figures hold for no other hospital.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.audit.inspection import FileFacts
from training.data.groups import share_groups
from training.evaluation.ranking import compute_auc

SUSPICIOUS_AUC = 0.65
"""From here on a property is flagged. By chance alone, with 40 people in each class, the AUC of something that is the
same for all slices of a person has a standard error of 0.065 (Hanley and McNeil 1982): 0.63 is just not significant."""

FOLDS = 5


@dataclass(frozen=True)
class Shortcut:
    """How well one property predicts the label."""

    name: str

    auc: float
    """Area under the ROC curve of the label by this property alone, 0.5 to 1."""

    values: int
    """Different values that the property has."""

    @property
    def is_suspicious(self) -> bool:
        """Whether the property alone predicts the label too well."""
        return self.auc >= SUSPICIOUS_AUC


def find_class_shortcuts(
    facts: Sequence[FileFacts], targets: NDArray[np.int64], groups: NDArray[np.int64], labels: Sequence[str]
) -> list[Shortcut]:
    """Measures each property of the files against the label, the strongest first.

    Of more than two classes each is told from the rest, and of each property the class counts that it tells best.

    Args:
        facts: of N images.
        targets: [N], class of each image.
        groups: [N], person of each image, 0 to G-1.
        labels: the classes' names.
    """
    if len(labels) == 2:
        return find_shortcuts(facts, targets == 1, groups)
    best: dict[str, Shortcut] = {}
    for index, label in enumerate(labels):
        for found in find_shortcuts(facts, targets == index, groups):
            if found.name not in best or found.auc > best[found.name].auc:
                best[found.name] = replace(found, name=f"{found.name} ({label} or not)")
    return sorted(best.values(), key=lambda shortcut: -shortcut.auc)


def find_shortcuts(
    facts: Sequence[FileFacts], positive: NDArray[np.bool_], groups: NDArray[np.int64]
) -> list[Shortcut]:
    """Measures each property of the files against one class, the strongest first.

    Args:
        facts: of N images.
        positive: [N], true for images of the class.
        groups: [N], person of each image, 0 to G-1.
    """
    categories = {
        "image size": [f"{fact.size[0]} x {fact.size[1]}" for fact in facts],
        "colour mode": [fact.mode for fact in facts],
        "JPEG tables": [fact.tables for fact in facts],
    }
    numbers = {
        "black border": [fact.border for fact in facts],
        "brightness": [fact.brightness for fact in facts],
        "file size": [float(fact.file_bytes) for fact in facts],
    }
    shortcuts = [
        Shortcut(name, predict_by_category(values, positive, groups), len(set(values)))
        for name, values in categories.items()
    ]
    for name, numeric in numbers.items():
        auc = compute_auc(np.array(numeric), positive)
        shortcuts.append(Shortcut(name, max(auc, 1 - auc), len(set(numeric))))
    return sorted(shortcuts, key=lambda shortcut: -shortcut.auc)


def predict_by_category(values: Sequence[str], positive: NDArray[np.bool_], groups: NDArray[np.int64]) -> float:
    """Returns the AUC, at least 0.5, of scoring each image by how often its value is positive among other people.

    Other people: a value that one person's images alone have says who it is, and would otherwise predict perfectly.
    """
    numbers = np.unique(values, return_inverse=True)[1]
    folds = share_groups(groups, positive.astype(np.int64), np.full(FOLDS, 1 / FOLDS), seed=0)
    scores = np.empty(len(positive))
    for fold in range(FOLDS):
        seen = folds != fold
        count = np.bincount(numbers[seen], minlength=numbers.max() + 1)
        hits = np.bincount(numbers[seen], weights=positive[seen], minlength=numbers.max() + 1)
        # One pseudo-image of the overall share: values that nobody else has are scored by it.
        scores[~seen] = ((hits + positive.mean()) / (count + 1))[numbers[~seen]]
    return max(0.5, compute_auc(scores, positive))
