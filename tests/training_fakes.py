"""An evaluation with figures made up by hand, and the answers that it could be of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from server.models.contract import ModelSpec
from training.evaluation.figures import (
    Band,
    Baselines,
    Confusion,
    DecisionCurve,
    Evaluation,
    Figure,
    Level,
    PatientLevel,
    Predictions,
    Reliability,
    Restated,
)

THRESHOLD = 0.2
GRID = np.linspace(0, 1, 21)

SPEC = ModelSpec(
    "stroke-cnn",
    "1",
    ("normal", "stroke"),
    ("stroke",),
    THRESHOLD,
    temperature=1.25,
    provenance={
        "data": "scans",
        "data_fingerprint": "ab" * 32,
        "images": "200",
        "warnings": "",
        "seed": "7",
        "trained": "2026-01-31T12:00:00+00:00",
        "git_revision": "c" * 40,
    },
)

LEVEL = Level(
    count=40,
    positives=16,
    threshold=THRESHOLD,
    figures={
        "auc": Figure(0.831, 0.781, 0.874),
        "average_precision": Figure(0.7, 0.6, 0.8),
        "sensitivity": Figure(0.75, 0.5, 0.9),
        "specificity": Figure(0.875, 0.7, 0.95),
        "ppv": Figure(0.8, 0.6, 0.9),
        "npv": Figure(0.84, 0.7, 0.95),
        "f1": Figure(0.774, 0.6, 0.9),
        "accuracy": Figure(0.825, 0.7, 0.9),
        "brier": Figure(0.151, 0.1, 0.2),
        "ece": Figure(0.061, 0.02, 0.1),
        "matched_auc": Figure(0.789, 0.7, 0.85),
    },
    confusion=Confusion(true_positives=12, false_negatives=4, false_positives=3, true_negatives=21),
)

PATIENTS = PatientLevel(
    count=10,
    positives=4,
    threshold=0.3,
    figures={"auc": Figure(0.917, 0.7, 1.0), "accuracy": Figure(0.9, 0.6, 1.0), "ppv": Figure(*[float("nan")] * 3)},
    confusion=Confusion(true_positives=3, false_negatives=1, false_positives=0, true_negatives=6),
    top_k=3,
)

EVALUATION = Evaluation(
    model="stroke-cnn 1",
    data="scans",
    operating_point="sensitivity=0.95, chosen on 30 validation images",
    slices=LEVEL,
    patients=PATIENTS,
    baselines=Baselines(
        majority_accuracy=0.6,
        trivial_auc=Figure(0.712, 0.6, 0.8),
        nearest_accuracy=Figure(0.556, 0.5, 0.62),
        nearest_random_accuracy=0.931,
        random_split={"auc": 0.987, "accuracy": 0.964},
    ),
    restated=(Restated(0.027, Figure(0.143, 0.1, 0.2), Figure(0.992, 0.98, 1.0)),),
    roc=Band(GRID, np.sqrt(GRID), GRID, np.minimum(np.sqrt(GRID) + 0.1, 1)),
    precision_recall=Band(GRID, 1 - GRID / 2, 0.8 - GRID / 2, np.minimum(1.1 - GRID / 2, 1)),
    reliability=Reliability(
        predicted=np.array([0.1, 0.4, np.nan, 0.9]),
        observed=np.array([0.05, 0.5, np.nan, 1.0]),
        low=np.array([0.01, 0.3, np.nan, 0.6]),
        high=np.array([0.2, 0.7, np.nan, 1.0]),
        counts=np.array([20, 10, 0, 10]),
    ),
    decision=DecisionCurve(GRID[1:-1], 0.4 - GRID[1:-1] / 2, 0.4 - 0.6 * GRID[1:-1] / (1 - GRID[1:-1])),
)


def make_predictions(count: int = 40, *, people: int = 10) -> Predictions:
    """Answers whose scores rise with the position; every fifth person has it."""
    groups = np.arange(count) % people
    positive = groups % 5 >= 3
    return Predictions(
        files=tuple(
            f"{'stroke' if has else 'normal'}/{group} ({i}).png"
            for i, (group, has) in enumerate(zip(groups, positive, strict=True))
        ),
        scores=np.linspace(0.01, 0.99, count),
        positive=positive,
        groups=groups.astype(np.int64),
        trivial=np.linspace(0.5, 0.1, count),
        has_patients=True,
    )


def read_images(indices: np.ndarray) -> np.ndarray:
    """Noise, uint8 [n, 64, 64], the same for the same position."""
    return np.stack([np.random.default_rng(int(index)).integers(0, 256, (64, 64), np.uint8) for index in indices])


def without_patients(evaluation: Evaluation = EVALUATION) -> Evaluation:
    """The same where people are not known and nothing was measured beside the model but what is free."""
    bare = Baselines(evaluation.baselines.majority_accuracy, evaluation.baselines.trivial_auc)
    return replace(evaluation, patients=None, baselines=bare, restated=())
