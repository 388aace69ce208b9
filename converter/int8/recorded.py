"""Checks against what the training run wrote down: the probabilities that Keras gave on files, by their SHA-256.

The proof of parity feeds both models the same array, so it cannot see an image that reaches them otherwise than in
training. This check starts from the bytes of the file, as the server does, and so finds that too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from converter.errors import OutputValuesError, SourceError
from server.errors import ImageError
from server.images.preprocess import load_pixels
from server.models.runtime import OnnxModel

REFERENCE_FILE = "reference.json"
"""Written by training beside the model."""


def check_recorded(model: OnnxModel, reference: Path, images: Path, *, allowed: float) -> int:
    """Compares the model's answers on files with the recorded ones.

    Args:
        model: the converted model.
        reference: ``reference.json``; it need not exist.
        images: folder in which the recorded files are looked for, by relative path and digest.
        allowed: largest difference of a probability.

    Returns:
        How many files were found and compared.

    Raises:
        SourceError: the reference is damaged.
        OutputValuesError: an answer differs; the message has the file and the difference.
    """
    if not reference.exists():
        return 0
    try:
        document = json.loads(reference.read_text("utf-8"))
        labels = tuple(document["labels"])
        recorded = {str(entry["file"]): (entry["sha256"], entry["probabilities"]) for entry in document["images"]}
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{reference}: damaged ({error!r}); remove it, or train again") from None
    if labels != model.spec.labels:
        raise SourceError(f"--labels {','.join(model.spec.labels)}: {reference} says that they are {','.join(labels)}")
    compared = 0
    for name, (digest, probabilities) in recorded.items():
        path = images / name
        if not path.is_file() or hashlib.sha256(data := path.read_bytes()).hexdigest() != digest:
            continue
        try:
            answer = model.run(load_pixels(data, model.input_format).array[np.newaxis])[0]
        except ImageError as error:
            raise SourceError(f"{path}: {error.message}") from None
        if len(probabilities) != len(answer):
            raise SourceError(f"{reference}: {name} has {len(probabilities)} probabilities, not {len(answer)}")
        difference = float(np.abs(answer - np.array(probabilities)).max())
        if not difference <= allowed:
            raise OutputValuesError(
                f"{path}: the answer differs by {difference:.3g} from the one that training recorded for this file "
                f"(allowed: {allowed:.2g}): it is decoded or scaled otherwise than in training"
            )
        compared += 1
    return compared
