"""What a model that tells more than two classes apart is worth for each: one against the rest, and which for which."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from training.evaluation.bootstrap import Ratio, Statistic, bootstrap_intervals, wilson_interval
from training.evaluation.figures import Bools, ClassAnswers, ClassFigures, Figure, Floats
from training.evaluation.positive import answer_classes
from training.evaluation.ranking import compute_auc, weighted_auc

AUCS = "auc"
"""Name of the statistic that has the AUC of each class and, at the end, their mean."""


def evaluate_classes(answers: ClassAnswers, threshold: float | Floats, groups: NDArray[np.int64]) -> ClassFigures:
    """Evaluates the answers class by class.

    A class without images has no figures, and the means are over the others.

    Args:
        answers: of the model, [N].
        threshold: of the decision on the positive classes together; one, or one for each image [N].
        groups: [N], number of the person, 0 to G-1; intervals are over people.
    """
    targets, count = answers.targets, len(answers.labels)
    answered = answer_classes(answers.probabilities, answers.positive, threshold)
    present = np.unique(targets)
    members = [targets == index for index in range(count)]
    called = [answered == index for index in range(count)]
    aucs = np.array([compute_auc(answers.probabilities[:, index], members[index]) for index in range(count)])
    shares = {
        **{f"sensitivity {index}": (called[index] & members[index], members[index]) for index in range(count)},
        **{f"ppv {index}": (called[index] & members[index], called[index]) for index in range(count)},
        "accuracy": (answered == targets, np.ones(len(targets), bool)),
    }
    ratios = {name: Ratio(*share) for name, share in shares.items()}
    sensitivities = [ratios[f"sensitivity {index}"] for index in present]
    statistics: dict[str, Statistic] = {
        **ratios,
        AUCS: stack_aucs(answers.probabilities, members, present),
        "balanced": lambda weights: np.mean([ratio(weights) for ratio in sensitivities], axis=0),
    }
    ends = bootstrap_intervals(statistics, groups)
    figures = {name: measure_share(*share, ends[name], groups) for name, share in shares.items()}
    balanced = float(np.mean([figures[f"sensitivity {index}"].value for index in present]))
    return ClassFigures(
        labels=answers.labels,
        positive_labels=tuple(answers.labels[index] for index in answers.positive),
        figures=tuple(
            {
                "auc": Figure(float(aucs[index]), *map(float, ends[AUCS][:, index])),
                "sensitivity": figures[f"sensitivity {index}"],
                "ppv": figures[f"ppv {index}"],
            }
            for index in range(count)
        ),
        overall={
            "macro_auc": Figure(float(aucs[present].mean()), *map(float, ends[AUCS][:, -1])),
            "macro_sensitivity": Figure(balanced, *map(float, ends["balanced"])),
            "accuracy": figures["accuracy"],
        },
        majority_accuracy=float(np.bincount(targets).max() / len(targets)),
        confusion=tuple(map(tuple, confusion_matrix(targets, answered, labels=range(count)).tolist())),
    )


def stack_aucs(probabilities: Floats, members: list[Bools], present: NDArray[np.int64]) -> Statistic:
    """Returns the AUC of each class against the rest, and the mean of those ``present``, [R, C + 1], of weights."""
    parts = [weighted_auc(probabilities[:, index], own) for index, own in enumerate(members)]

    def statistic(weights: Floats) -> Floats:
        values = np.stack([part(weights) for part in parts], axis=1)
        return np.concatenate([values, values[:, present].mean(axis=1, keepdims=True)], axis=1)

    return statistic


def measure_share(hits: Bools, among: Bools, ends: Floats, groups: NDArray[np.int64]) -> Figure:
    """Returns a share with its interval: by bootstrap, or of 0 and 1 by Wilson's method, with people as the count."""
    if not among.any():
        return Figure(np.nan, np.nan, np.nan)
    value = float(hits.sum() / among.sum())
    if value in (0.0, 1.0):
        people = len(np.unique(groups[among]))
        return Figure(value, *wilson_interval(round(value * people), people))
    return Figure(value, *map(float, ends))
