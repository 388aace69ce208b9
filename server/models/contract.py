"""The contract between the maker of a model and the server: ``ModelSpec``, written as JSON into the ONNX file.

It holds what the graph does not say of itself: labels, decision, and how an image becomes the graph's input. Sizes and
dtypes are not repeated here, they are read from the graph. It does not hold digests: a file cannot state its own; see
``server.models.manifest``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from server.errors import ModelFileError
from server.images.dicom.window import Window
from server.images.fit import FITS
from server.images.resample import RESAMPLE_FILTERS
from server.models.strict_json import is_unicode, parse_strictly

METADATA_KEY = "stroke.model"
"""Key of the JSON in the ONNX file's ``metadata_props``."""

SCHEMA_OF_ONE, SCHEMA_OF_SEVERAL = 1, 2
"""Versions of this contract: with one positive label, and with several, which a server that knows one alone must refuse
to misjudge nothing. A file with another one is refused."""

POSITIVE_KEYS = {SCHEMA_OF_ONE: "positive_label", SCHEMA_OF_SEVERAL: "positive_labels"}
"""Where a file of each schema says what is positive."""

INPUT_NAME = "image"
"""Name of the graph's input: uint8 [N, H, W, C], C = 1 (grey) or 3 (RGB), values 0 to 255."""

OUTPUT_NAME = "probabilities"
"""Name of the graph's output: float32 [N, len(labels)], each row in [0, 1] and summing to 1."""

OUTLIER_NAME = "outlier_score"
"""Name of the graph's second output, where it has one: float32 [N], >= 0, how unlike all that the model knows an image
is."""

HEATMAP_NAME = "heatmap"
"""Name of the second output of a model's explain file: float32 [N, rows, columns], >= 0, what the log-odds of the
positive labels gain from each cell."""

HEATMAP_KEY = "stroke.heatmap"
"""Key in that file's ``metadata_props`` of JSON ``{"area": [left, top, right, bottom]}``: which part of the input the
cells share out evenly, in pixels; it may reach beyond the input."""

MOST_STUDY_SLICES = 1000

COLOURS = ("grey", "rgb")
HEAD_CT, NO_CHECKS = "head-ct", "none"
CHECKS = (HEAD_CT, NO_CHECKS)

SPEC_CHARACTERS = 512 * 1024
"""Longest spec: all of it is an answer of GetModel, which must stay below the 4 MiB of gRPC's default."""

MOST_LABELS = 1000
LABEL_CHARACTERS = 200
"""A label is in every answer, so the bounds of both are those of an answer."""

MODEL_CARD_BYTES = 64 * 1024
"""Longest model card, in bytes of UTF-8: a page to read, small beside the 4 MiB that gRPC lets through by default."""


@dataclass(frozen=True)
class ModelSpec:
    """What a model file says of itself.

    Raises:
        ModelFileError: reason MODEL_SPEC_INVALID, when a field is missing, of the wrong type or out of range.
    """

    name: str
    """Name under which it is served: letters, digits, ``-``, ``_`` and ``.``."""

    version: str
    """Version, same characters as the name."""

    labels: tuple[str, ...]
    """Classes in the order of the graph's output, at least two, all different."""

    positive_labels: tuple[str, ...]
    """Those that are looked for: at least one, all different, and not all of ``labels``. The most probable of them is
    answered when the sum of their probabilities exceeds ``threshold``, otherwise the most probable of the others. In
    JSON one alone is ``positive_label``, a text."""

    threshold: float
    """Decision threshold on the probability of ``positive_labels``, in [0, 1]."""

    colour: str = "rgb"
    """Colour of the graph's input, one of ``COLOURS``."""

    resample: str = "bilinear"
    """How an image is resized, one of ``RESAMPLE_FILTERS``."""

    fit: str = "stretch"
    """What is done about the aspect ratio, one of ``FITS``."""

    windows: tuple[Window, ...] = ()
    """How CT values become grey levels: one window, or one for each channel of an ``rgb`` input. In JSON ``[[level,
    width]]``, Hounsfield units. Empty: the model takes no CT values, and so no DICOM files."""

    checks: str = HEAD_CT
    """What an image must look like to be judged, one of ``CHECKS``: a slice of a head CT, or anything."""

    study_top_k: int = 0
    """The score of a study is the mean of so many highest probabilities of its slices; 0: no studies are judged."""

    study_threshold: float = 0.0
    """Decision threshold on the score of a study, in [0, 1]."""

    outlier_threshold: float = 0.0
    """Largest score of the graph's output ``OUTLIER_NAME`` with which an image is judged, >= 0; 0: there is no such
    output."""

    indeterminate_margin: float = 0.0
    """An image whose probability is nearer to ``threshold`` than this is not judged, in [0, 1]; 0: all are."""

    temperature: float = 1.0
    """Calibration temperature that is already in the graph; > 0; 1 means uncalibrated."""

    task: str = "stroke classification of one brain-CT slice"
    intended_use: str = "Research only. Not a medical device. Not for diagnosis or triage of patients."

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Recorded figures by name."""

    provenance: Mapping[str, str] = field(default_factory=dict)
    """Where it comes from: data set and its fingerprint, git revision, versions of the tools."""

    model_card: str = ""
    """What people should know before they rely on it, in Markdown, at most ``MODEL_CARD_BYTES``; empty: not written."""

    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys that this version does not know, kept so that a round trip loses nothing."""

    def __post_init__(self) -> None:
        for name in ("name", "version"):
            if not is_identifier(getattr(self, name)):
                raise invalid_spec(f"'{name}' must be made of letters, digits, '-', '_' and '.'")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels) or not all(self.labels):
            raise invalid_spec("'labels' must be at least two different names")
        if len(self.labels) > MOST_LABELS or max(map(len, self.labels)) > LABEL_CHARACTERS:
            raise invalid_spec(f"'labels' must be at most {MOST_LABELS}, of at most {LABEL_CHARACTERS} characters")
        self._check_positive()
        if not 0 <= self.threshold <= 1:
            raise invalid_spec(f"'threshold' {self.threshold} is not in [0, 1]")
        if len(self.windows) not in ((0, 1) if self.colour == "grey" else (0, 1, 3)):
            raise invalid_spec(f"'windows' must be one, or one for each channel, not {len(self.windows)}")
        if not 0 <= self.study_top_k <= MOST_STUDY_SLICES:
            raise invalid_spec(f"'study_top_k' {self.study_top_k} is not in 0 to {MOST_STUDY_SLICES}")
        for name in ("study_threshold", "indeterminate_margin"):
            if not 0 <= getattr(self, name) <= 1:
                raise invalid_spec(f"'{name}' {getattr(self, name)} is not in [0, 1]")
        if not self.outlier_threshold >= 0:
            raise invalid_spec(f"'outlier_threshold' {self.outlier_threshold} is below 0")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise invalid_spec(f"'temperature' {self.temperature} is not a positive number")
        for name, choices in (
            ("colour", COLOURS),
            ("resample", RESAMPLE_FILTERS),
            ("fit", FITS),
            ("checks", CHECKS),
        ):
            if getattr(self, name) not in choices:
                raise invalid_spec(f"'{name}' {getattr(self, name)!r} is not one of {', '.join(choices)}")

        for spec_field in fields(self):  # JSON can hold half a surrogate pair, a protobuf string cannot
            if spec_field.name == "windows":
                continue  # numbers, of a kind that JSON does not know
            value = getattr(self, spec_field.name)
            if not is_unicode(dict(value) if isinstance(value, Mapping) else value):
                raise invalid_spec(f"'{spec_field.name}' is not Unicode text")
        size = len(self.model_card.encode())
        if size > MODEL_CARD_BYTES:
            raise invalid_spec(f"'model_card' has {size:,} bytes, at most {MODEL_CARD_BYTES:,} are carried; shorten it")

    def _check_positive(self) -> None:
        """Whether the positive labels are what they must be."""
        key, positive = POSITIVE_KEYS[self.schema], self.positive_labels
        for label in positive:
            if label not in self.labels:
                raise invalid_spec(f"'{key}' {label!r} is not among the labels {list(self.labels)}")
        if not positive or len(set(positive)) != len(positive) or len(positive) == len(self.labels):
            raise invalid_spec(f"'{key}' {list(positive)} must be some of the labels, each once, and not all of them")

    @property
    def schema(self) -> int:
        """Version of this contract that the file is written in: the oldest that can say all of it."""
        return SCHEMA_OF_ONE if len(self.positive_labels) == 1 else SCHEMA_OF_SEVERAL

    @cached_property
    def positive_indices(self) -> tuple[int, ...]:
        """Indices of the positive labels in ``labels`` and in the graph's output."""
        return tuple(map(self.labels.index, self.positive_labels))

    @cached_property
    def _sides(self) -> tuple[list[int], list[int]]:
        """Indices of the positive labels and of the others, each in their order."""
        indices = range(len(self.labels))
        return sorted(self.positive_indices), [index for index in indices if index not in self.positive_indices]

    @property
    def only_positive_label(self) -> str:
        """The positive label where there is one alone, otherwise empty."""
        return self.positive_labels[0] if len(self.positive_labels) == 1 else ""

    @property
    def positive_text(self) -> str:
        """The positive labels, for people: ``haemorrhagic or ischaemic``."""
        return " or ".join(self.positive_labels)

    def positive_scores(self, probabilities: ArrayLike) -> NDArray[np.floating]:
        """Returns the probability of the positive labels, which the thresholds are for; see ``sum_positive``."""
        return sum_positive(probabilities, self.positive_indices)

    def positive_score(self, probabilities: Sequence[float] | NDArray[np.floating]) -> float:
        """``positive_scores`` of one image, of probabilities [len(labels)], in plain numbers: NumPy takes longer."""
        total, *rest = (float(probabilities[index]) for index in self.positive_indices)
        if not rest:
            return total
        for one in rest:  # one after the other: sum() of CPython 3.12 rounds otherwise
            total += one
        return min(total, 1.0)

    def find_top_positive(self, probabilities: Sequence[float] | NDArray[np.floating]) -> int:
        """Returns the index of the most probable positive label of one image; of equals, the first of the labels."""
        return max(self._sides[0], key=lambda index: probabilities[index])

    def find_label(self, probabilities: Sequence[float], threshold: float | None = None) -> int:
        """Returns the index of the label that is answered; this is the only definition.

        The most probable positive label where the probability of all of them exceeds the threshold (as in the paper:
        risk > 0.05), otherwise the most probable of the others; of equals, the first of the labels. The threshold stays
        the double that training chose and every answer carries: rounded to float32, as NumPy would compare it, it could
        lie on the other side.

        Args:
            probabilities: of one image, [len(labels)], none of them NaN.
            threshold: another one than the model's.
        """
        positive, others = self._sides
        is_positive = self.positive_score(probabilities) > (self.threshold if threshold is None else threshold)
        return max(positive if is_positive else others, key=lambda index: probabilities[index])

    def find_labels(self, probabilities: NDArray[np.floating], threshold: float | None = None) -> NDArray[np.intp]:
        """``find_label`` of many images, of probabilities [N, len(labels)]: their indices, [N]."""
        return np.array([self.find_label(row, threshold) for row in probabilities.tolist()], np.intp)

    def to_json(self) -> str:
        """Returns the JSON text that belongs under ``METADATA_KEY``; unknown keys included, keys sorted."""
        document = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        positive = document.pop("positive_labels")
        document[POSITIVE_KEYS[self.schema]] = positive[0] if self.schema == SCHEMA_OF_ONE else positive
        document["schema"] = self.schema
        for key in ("metrics", "provenance"):
            document[key] = dict(document[key])
        document["windows"] = [[window.level, window.width] for window in self.windows]
        return json.dumps({**self.extra, **document}, sort_keys=True, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Reads what ``to_json`` wrote.

        Raises:
            ModelFileError: reason MODEL_SPEC_INVALID when it is no such JSON, MODEL_SPEC_UNKNOWN_SCHEMA when it was
                written by a newer converter.
        """
        if len(text) > SPEC_CHARACTERS:
            raise invalid_spec(f"it has {len(text):,} characters, at most {SPEC_CHARACTERS:,} are read")
        try:
            document = parse_strictly(text)
        except ValueError as error:
            raise invalid_spec(f"it is not JSON ({error})") from None
        if not isinstance(document, dict):
            raise invalid_spec("it is not a JSON object")
        schema = document.pop("schema", None)
        if type(schema) is not int or schema not in POSITIVE_KEYS:
            raise ModelFileError(
                "MODEL_SPEC_UNKNOWN_SCHEMA",
                f"the model's spec has schema {str(schema)[:20]}, this server knows "
                f"{' and '.join(map(str, POSITIVE_KEYS))}; "
                "update the server, or convert the model again with its converter",
            )
        key = POSITIVE_KEYS[schema]
        for other in POSITIVE_KEYS.values():
            if other != key and other in document:  # which of the two holds?
                raise invalid_spec(f"'{other}' is not for schema {schema}, which has '{key}'")
        missing = {"name", "version", "labels", key, "threshold"} - document.keys()
        if missing:
            raise invalid_spec(f"{', '.join(sorted(missing))} is missing")
        positive = read_field(key, document.pop(key))
        known: dict[str, Any] = {"positive_labels": (positive,) if schema == SCHEMA_OF_ONE else positive}
        for spec_field in fields(cls):
            if spec_field.name in document and spec_field.name != "extra":
                known[spec_field.name] = read_field(spec_field.name, document.pop(spec_field.name))
        return cls(**known, extra=document)


def read_field(name: str, value: Any) -> Any:
    """Checks the JSON type of one known field and returns it in the dataclass's type."""
    if name in ("labels", "positive_labels"):
        good = isinstance(value, list) and all(isinstance(label, str) for label in value)
        value = tuple(value) if good else value
    elif name == "metrics":
        good = isinstance(value, dict) and all(is_number(v) for v in value.values())
    elif name == "provenance":
        good = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    elif name == "windows":
        good = isinstance(value, list) and all(
            isinstance(pair, list) and len(pair) == 2 and all(map(is_number, pair)) and pair[1] > 0 for pair in value
        )
        value = tuple(Window(float(level), float(width)) for level, width in value) if good else value
    elif name == "study_top_k":
        good = isinstance(value, int) and not isinstance(value, bool)
    elif name in ("threshold", "temperature", "study_threshold", "outlier_threshold", "indeterminate_margin"):
        good = is_number(value)
        value = float(value) if good else value
    else:
        good = isinstance(value, str)
    if not good:
        raise invalid_spec(f"'{name}' has the wrong type")
    return value


def sum_positive(probabilities: ArrayLike, indices: Sequence[int]) -> NDArray[np.floating]:
    """Returns the probability of some labels together, which thresholds are for; this is the only definition.

    Of one label it is that of the label itself, to the bit and in its dtype. Of several it is their sum, in double
    precision and one after the other: by that an image gets the same whatever is computed with it. Rounding of the
    graph's own may lead to a little more than 1, which is taken for 1.

    Args:
        probabilities: as the graph answers them, [..., C].
        indices: of the labels, into the last axis.

    Returns:
        Of the same shape without the last axis, in [0, 1]; NaN where there is one.
    """
    first, *rest = (np.asarray(probabilities)[..., index] for index in indices)
    if not rest:
        return first
    total = first.astype(np.float64)
    for one in rest:
        total = total + one
    return np.minimum(total, 1.0)


def is_number(value: Any) -> bool:
    """True for a finite number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_identifier(text: Any) -> bool:
    """True for a name that is safe as a folder, in a log line and in a URL."""
    return (
        isinstance(text, str)
        and 0 < len(text) <= 100
        and text.isascii()
        and text.replace("-", "").replace("_", "").replace(".", "").isalnum()
        and text[0].isalnum()
    )


def invalid_spec(why: str) -> ModelFileError:
    return ModelFileError(
        "MODEL_SPEC_INVALID", f"the model's spec is not usable: {why}; convert the model again (python -m converter)"
    )
