"""From judgements to output tensors: those that the caller asks for, in that order."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.core.detector import Detection
from server.models.contract import OUTLIER_NAME, ModelSpec
from server.oip.request import (
    SHARED_MEMORY,
    Parameters,
    WantedOutput,
    invalid_parameter,
    invalid_tensor,
    read_whole_number,
)

FP32, BYTES = "FP32", "BYTES"
PROBABILITIES = "probabilities"
CLASSIFICATION = "classification"
"""The parameter of Triton's extension: how many classes are wanted as text."""

TEXTS: dict[str, Callable[[Detection], str]] = {
    "label": lambda detection: detection.label,
    "status": lambda detection: "NOT_ANALYSED" if detection.reasons else "ANALYSED",
    "reasons": lambda detection: ",".join(one.reason for one in detection.reasons),
    "warnings": lambda detection: ",".join(one.reason for one in detection.warnings),
    "image_sha256": lambda detection: detection.image_sha256,
}
"""Outputs of one text for each image, by name. ``label`` is empty of an image that was not analysed."""

NUMBERS: dict[str, Callable[[Detection], float]] = {
    OUTLIER_NAME: lambda detection: detection.outlier_score,
    "positive_probability": lambda detection: detection.positive_probability,
}
"""Outputs of one number for each image, by name."""

NAMES = (PROBABILITIES, *TEXTS, *NUMBERS)


@dataclass(frozen=True)
class OutputTensor:
    """A tensor of the answer."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    elements: NDArray[np.float32] | list[bytes]
    """In row-major order: float32 of FP32, one bytes object for each element of BYTES."""

    def to_raw(self) -> bytes:
        """The elements in one piece: little-endian, and each of BYTES after its length in 4 bytes."""
        if isinstance(self.elements, list):
            return b"".join(part for text in self.elements for part in (len(text).to_bytes(4, "little"), text))
        return self.elements.astype("<f4").tobytes()


def check_wanted(wanted: Sequence[WantedOutput]) -> None:
    """Looks at what is asked for before anything is judged.

    Raises:
        RequestError: reasons TENSOR_INVALID and PARAMETER_INVALID.
    """
    seen: set[str] = set()
    for output in wanted:
        if output.name not in NAMES:
            raise invalid_tensor("Output", output.name, f"one of {', '.join(NAMES)}", "one that is not known")
        if output.name in seen:
            raise invalid_tensor("Output", output.name, "it once", "it again")
        seen.add(output.name)
        if SHARED_MEMORY in output.parameters:
            raise invalid_tensor("Output", output.name, "to be answered", "a name of shared memory")
        if read_class_count(output) and output.name != PROBABILITIES:
            raise invalid_parameter(CLASSIFICATION, f"only on output {PROBABILITIES!r}", output.name)


def read_class_count(output: WantedOutput) -> int:
    """How many classes are wanted as text; 0: the numbers are wanted."""
    return read_whole_number(output.parameters, CLASSIFICATION, 0, "a number of classes from 1") or 0


def make_outputs(detections: Sequence[Detection], wanted: Sequence[WantedOutput]) -> list[OutputTensor]:
    """Returns the tensors that were asked for; all of them, where none were.

    Args:
        detections: of all images of a request, by one model.
        wanted: what ``check_wanted`` has looked at.
    """
    return [make_output(detections, output) for output in wanted or [WantedOutput(name) for name in NAMES]]


def make_output(detections: Sequence[Detection], output: WantedOutput) -> OutputTensor:
    """Returns one tensor."""
    number = len(detections)
    if output.name in TEXTS:
        texts = [TEXTS[output.name](detection).encode() for detection in detections]
        return OutputTensor(output.name, BYTES, (number,), texts)
    if output.name in NUMBERS:
        numbers = np.array([NUMBERS[output.name](detection) for detection in detections], np.float32)
        return OutputTensor(output.name, FP32, numbers.shape, numbers)
    spec = detections[0].model.spec
    if classes := min(read_class_count(output), len(spec.labels)):
        texts = [text for detection in detections for text in classify(detection.probabilities, spec, classes)]
        return OutputTensor(output.name, BYTES, (number, classes), texts)
    numbers = np.array([detection.probabilities for detection in detections], np.float32)
    return OutputTensor(output.name, FP32, numbers.shape, numbers.ravel())


def classify(probabilities: Sequence[float], spec: ModelSpec, classes: int) -> list[bytes]:
    """The most probable classes as ``probability:index:label``, the most probable first."""
    order = sorted(range(len(probabilities)), key=lambda index: -probabilities[index])  # of equals, the first one
    return [f"{np.float32(probabilities[index])!s}:{index}:{spec.labels[index]}".encode() for index in order[:classes]]


def describe_judgement(detection: Detection) -> Parameters:
    """The parameters of an answer: by what its images were judged."""
    spec = detection.model.spec
    return {
        "threshold": spec.threshold,
        **({"positive_label": spec.only_positive_label} if spec.only_positive_label else {}),
        "positive_labels": json.dumps(spec.positive_labels, ensure_ascii=False),
        "model_digest": detection.model.digest,
        "runtime": detection.model.runtime,
    }
