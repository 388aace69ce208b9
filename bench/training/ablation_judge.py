"""How a trained variant is judged: on held-out slices of the whole generator, as they are and compressed as JPEG."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import spearmanr

from bench.training.auc import estimate_auc
from server.images.preprocess import InputFormat, load_pixels
from training.evaluation import nearest
from training.evaluation.ranking import compute_matched_auc

JPEG_QUALITY = 50
FALSE_POSITIVE_RATE = 0.1
"""At which variants are compared: each calls this share of the normal slices stroke, whatever its scores are."""

PREDICTION_BATCH = 32
GREY = InputFormat(256, 256, "grey", "bilinear", "stretch")
"""As the networks are trained and served."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out slices, decoded; arrays are [N]."""

    images: Mapping[str, NDArray[np.uint8]]
    """[N, 256, 256, 1] by condition: "plain", and "jpeg" for compressed."""

    positive: NDArray[np.bool_]
    findings: tuple[frozenset[str], ...]
    """Hard negatives of each slice; all empty where labels.csv does not tell."""


def read_slices(folder: Path) -> HeldOut:
    """Reads a folder that ``python -m training phantom`` has written."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as stream:
        rows = sorted(csv.DictReader(stream), key=lambda row: row["file"])
    files = [(folder / row["file"]).read_bytes() for row in rows]
    return HeldOut(
        {"plain": decode_files(files), "jpeg": decode_files([compress(data) for data in files])},
        np.array([row["label"] == "stroke" for row in rows]),
        tuple(frozenset(row.get("findings", "").split()) for row in rows),
    )


def decode_files(files: Sequence[bytes]) -> NDArray[np.uint8]:
    """Decodes as the server does: uint8 [N, 256, 256, 1]."""
    return np.stack([load_pixels(data, GREY).array for data in files])


def compress(data: bytes) -> bytes:
    """Returns an image as JPEG of ``JPEG_QUALITY``."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("L").save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def predict_slices(model: Path, slices: HeldOut) -> dict[str, NDArray[np.float64]]:
    """Returns the probabilities of stroke, [N] for each condition, of a Keras file."""
    import keras

    network = keras.models.load_model(model)
    return {
        condition: np.concatenate(
            [
                network.predict_on_batch(np.repeat(images[start : start + PREDICTION_BATCH], 3, axis=3))[:, 1]
                for start in range(0, len(images), PREDICTION_BATCH)
            ]
        ).astype(np.float64)
        for condition, images in slices.images.items()
    }


def judge_scores(scores: Mapping[str, NDArray[np.float64]], slices: HeldOut) -> dict[str, Any]:
    """Returns AUC with interval by condition, what the amount of brain has to do with it (the matched AUC, and the rank
    correlation with the score among normal slices), and the false positives by finding at ``FALSE_POSITIVE_RATE``."""
    brain, normal = score_trivially(slices.images["plain"]), ~slices.positive
    return {
        "matched_auc": compute_matched_auc(scores["plain"], slices.positive, brain),
        "brain_correlation": float(spearmanr(scores["plain"][normal], brain[normal]).statistic),
        "auc": {condition: list(estimate_auc(values, slices.positive)) for condition, values in scores.items()},
        "false_positives": count_false_positives(scores["plain"], slices.positive, slices.findings),
    }


def count_false_positives(
    scores: NDArray[np.float64], positive: NDArray[np.bool_], findings: Sequence[frozenset[str]]
) -> dict[str, list[int]]:
    """Returns, by finding, how many normal slices with it are called stroke, and how many there are.

    The threshold is such that the share ``FALSE_POSITIVE_RATE`` of all normal slices is called stroke.
    """
    threshold = np.quantile(scores[~positive], 1 - FALSE_POSITIVE_RATE)
    counts = {}
    for finding in sorted(frozenset().union(*findings)):
        normal = ~positive & np.array([finding in entry for entry in findings])
        counts[finding] = [int((scores[normal] > threshold).sum()), int(normal.sum())]
    return counts


def score_trivially(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Returns the share of mid-grey pixels of each image: the score without a model that stands beside every AUC."""
    scores: NDArray[np.float64] = nearest.score_trivially(images)
    return scores
