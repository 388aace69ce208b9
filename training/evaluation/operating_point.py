"""The operating point: the threshold above which a probability is called positive, chosen on validation images only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

PAPER_THRESHOLD = 0.05
RULES = "paper, youden, sensitivity=0.95 or another share, specificity=0.95 likewise, or a number in [0, 1]"


def parse_rule(rule: str) -> tuple[str, float]:
    """Splits ``--operating-point`` into its kind and its number.

    Returns:
        ("fixed", threshold), ("sensitivity", wanted share), ("specificity", wanted share) or ("youden", NaN).

    Raises:
        TrainingError: it is none of ``RULES``.
    """
    kind, _, share = rule.partition("=")
    try:
        if rule == "paper":
            return "fixed", PAPER_THRESHOLD
        if rule == "youden":
            return "youden", np.nan
        if kind in ("sensitivity", "specificity") and 0 < float(share) <= 1:
            return kind, float(share)
        if not share and 0 <= float(rule) <= 1:
            return "fixed", float(rule)
    except ValueError:
        pass
    raise TrainingError(f"--operating-point {rule!r} is not {RULES}")


def choose_threshold(rule: str, scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Returns the threshold that a rule chooses on validation images.

    Args:
        rule: see ``parse_rule``.
        scores: [N], calibrated probabilities of the positive label on validation images.
        positive: [N], true for images that have it; both classes must occur.

    Returns:
        A threshold in [0, 1] to be exceeded: with ``sensitivity=S`` the largest at which at least the share S of the
        positive images exceeds it; with ``specificity=S`` the smallest that at least the share S of the others does not
        exceed, or the highest score, which none does; with ``youden`` one that maximises sensitivity + specificity - 1
        (Youden 1950). These lie midway between neighbouring scores, so that no answer sits on the edge. 0 where
        positive images with a score of 0 keep the share S out of reach.
    """
    kind, number = parse_rule(rule)
    if kind == "fixed":
        return number
    values = np.unique(scores)
    edges = np.concatenate(([values[0] / 2], (values[:-1] + values[1:]) / 2))
    hits, others = scores[positive], scores[~positive]
    sensitivity = count_above(hits, edges) / len(hits)
    if kind == "sensitivity":
        enough = edges[sensitivity >= number]
        return float(enough[-1]) if len(enough) else 0.0
    specificity = (len(others) - count_above(others, edges)) / len(others)
    if kind == "specificity":
        enough = edges[specificity >= number]
        return float(enough[0]) if len(enough) else float(values[-1])
    return float(edges[np.argmax(sensitivity + specificity)])


def count_above(scores: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns how many scores exceed each threshold.

    By search: to compare all with all would take a byte for each pair.
    """
    above: NDArray[np.float64] = len(scores) - np.searchsorted(np.sort(scores), thresholds, side="right").astype(
        np.float64
    )
    return above
