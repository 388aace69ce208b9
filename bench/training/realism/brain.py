"""Does the amount of brain in a slice predict its class? It does in real slices, and should not in synthetic ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report.machine import say
from bench.training.auc import estimate_auc
from bench.training.realism.heads import SEED, SIZE, list_patients
from training.evaluation.nearest import score_trivially
from training.phantom.dataset import choose_kind
from training.phantom.recipe import Recipe
from training.phantom.slice import generate_slice

BANDS = {
    "face and skull base": (0.0, 0.30),
    "posterior fossa": (0.30, 0.46),
    "ventricles": (0.46, 0.69),
    "above the ventricles": (0.69, 1.03),
}
"""Levels from which to which a slice counts."""

STRIDE = 200
"""Slices from one line of progress to the next."""

LEAST = 10
"""Slices of either class for which an AUC is given."""


def measure_brain(count: int) -> dict[str, Any]:
    """Draws slices as a data set has them; returns the AUC of the share of mid-grey pixels, [value, low, high], and how
    many slices of either class there are: over all levels, by level, and by kind of lesion."""
    shares, levels, kinds = [], [], []
    for index, patient in enumerate(list_patients(count, Recipe())):
        kind = choose_kind(index)
        item = generate_slice(np.random.default_rng([SEED, index, 0]), kind=kind, size=SIZE, patient=patient)
        shares.append(float(score_trivially(item.pixels[None, :, :, None])[0]))
        levels.append(item.level)
        kinds.append(kind or "")
        if (index + 1) % STRIDE == 0:
            say(f"amount of brain: {index + 1} of {count} slices")
    return rank_shares(np.array(shares), np.array(levels), np.array(kinds))


def rank_shares(shares: NDArray[np.float64], levels: NDArray[np.float64], kinds: NDArray[np.str_]) -> dict[str, Any]:
    """Ranks slices by their share of mid-grey pixels.

    Args:
        shares: [N].
        levels: of the slices, [N].
        kinds: of lesions, [N]; empty for normal slices.
    """
    positive = kinds != ""
    chosen = {"all": np.ones(len(kinds), dtype=bool)}
    chosen |= {name: (levels >= low) & (levels < high) for name, (low, high) in BANDS.items()}
    chosen |= {str(kind): ~positive | (kinds == kind) for kind in np.unique(kinds[positive])}
    ranked = {}
    for name, which in chosen.items():
        counts = [int((which & ~positive).sum()), int((which & positive).sum())]
        auc = list(estimate_auc(shares[which], positive[which])) if min(counts) >= LEAST else None
        ranked[name] = {"auc": auc, "normal": counts[0], "stroke": counts[1]}
    return ranked
