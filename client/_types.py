"""What the client returns: plain frozen data, free of gRPC and protobuf.

Annotations are evaluated here, unlike elsewhere, so that ``typing.get_type_hints`` and what builds on it work for
classes that give the package for their home.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import BinaryIO, TypeAlias

from ._errors import StrokeClientError

ImageInput: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO
"""An image to judge: a path, the bytes of an encoded image, or a file opened in binary mode."""

Source: TypeAlias = str | os.PathLike[str]
"""Where an image came from: its path as it was given, ``<bytes>``, or the name of the file object."""


class HealthStatus(StrEnum):
    """What a server says of itself (grpc.health.v1). Compares equal to its name."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    """It starts or stops."""

    SERVICE_UNKNOWN = "SERVICE_UNKNOWN"
    """It is no StrokeServe server."""


class AnalysisStatus(StrEnum):
    """Whether there was something to judge. Compares equal to its name."""

    ANALYSED = "ANALYSED"
    NOT_ANALYSED = "NOT_ANALYSED"
    """There is no label, and reasons say why: the image is blank, no head, unlike all that the model knows, too near
    the threshold, and so on."""


@dataclass(frozen=True)
class Reason:
    """Why an image, or a study, was not analysed."""

    reason: str
    """Machine-readable, UPPER_SNAKE: IMAGE_BLANK, IMAGE_INVERTED, NO_HEAD, INSUFFICIENT_QUALITY, OUT_OF_DISTRIBUTION,
    INDETERMINATE; of studies also WRONG_MODALITY and NO_SERIES; more may come."""

    message: str
    """A sentence for people."""


@dataclass(frozen=True)
class ImageWarning:
    """Something about an image, or a study, that did not keep it from being judged."""

    reason: str
    """Machine-readable, UPPER_SNAKE, for example IMAGE_LOSSY, or SLICE_GAP of a study."""

    message: str
    """A sentence for people."""


@dataclass(frozen=True)
class Timings:
    """Times that the request spent in the server, in milliseconds, all >= 0."""

    decode_ms: float
    """Checking and decoding the image and bringing it to the model's input size."""

    queue_ms: float
    """Waiting for a free worker."""

    inference_ms: float
    """Running the model."""


class Verdict:
    """What the judgements of images and of studies say of themselves, by their fields of these names."""

    label: str
    status: AnalysisStatus
    positive_label: str
    positive_labels: tuple[str, ...]

    @property
    def is_analysed(self) -> bool:
        """False when there is no label."""
        return self.status == AnalysisStatus.ANALYSED

    @property
    def is_positive(self) -> bool:
        """Whether ``label`` is a class that is looked for."""
        return self.is_analysed and self.label == self.positive_label

    @property
    def positive_text(self) -> str:
        """The positive classes, for people: ``haemorrhagic or ischaemic``."""
        return " or ".join(self.positive_labels) or self.positive_label


@dataclass(frozen=True)
class Prediction(Verdict):
    """The judgement of one image. ``str()`` gives label, confidence, probability of the positive classes (by which
    lines compare, whatever their labels), model and threshold on one line; of an image that was not analysed that and
    why."""

    label: str
    """The class answered: the most probable positive one when ``positive_probability`` is above ``threshold``. A key of
    ``scores``, or empty when the image was not analysed."""

    confidence: float
    """Probability of ``label``, in [0, 1]; 0 without a label. With a low threshold a positive answer can have a low
    confidence: what compares images of all classes is ``positive_probability``."""

    scores: Mapping[str, float]
    """Probability of every class, in [0, 1], in the model's order. Meaningless where the image was not analysed."""

    threshold: float
    """The threshold that was applied to ``positive_probability``, in [0, 1]."""

    model: str
    """Name of the model that judged."""

    version: str
    """Version of that model."""

    digest: str
    """SHA-256 of the model file that judged, 64 lower-case hexadecimal digits."""

    image_sha256: str
    """SHA-256 of the image bytes that were judged, checked against the bytes that were sent."""

    timings: Timings
    """Where the server's time went."""

    warnings: tuple[ImageWarning, ...]
    """What a careful reader should know about this image; usually empty."""

    request_id: str
    """Identifies the request in the server's log."""

    source: Source
    """Where the image came from."""

    index: int = 0
    """Position among the images of ``predict_many``, from 0; with ``ordered=False`` it tells whose result this is."""

    positive_label: str = ""
    """The most probable of ``positive_labels``. A server from before this field does not say: then it is the one that
    fits label and scores, of several the last in the model's order."""

    positive_probability: float = 0.0
    """Probability of ``positive_labels``, their sum where there are several, in [0, 1], whatever ``label`` is."""

    status: AnalysisStatus = AnalysisStatus.ANALYSED
    """Whether the image was judged; servers from before this field judge every image."""

    reasons: tuple[Reason, ...] = ()
    """Why the image was not analysed; empty when it was."""

    channel: str = ""
    """``stable``, or ``canary`` for a version on trial, which answers a share of the images; empty for another version
    that was asked for, and from a server from before this field."""

    outlier_score: float = 0.0
    """How unlike the slices that the model knows this one is, >= 0: above ``ModelInfo.outlier_threshold`` it is not
    analysed. 0: the model does not tell."""

    frame: int = 0
    """Which frame of a multi-frame file was asked for, from 1; 0: the only one."""

    positive_labels: tuple[str, ...] = ()
    """The classes that are looked for; a server from before this field has one, ``positive_label``."""

    def __str__(self) -> str:
        if not self.is_analysed:
            why = " ".join(f"[{reason.reason}] {reason.message}" for reason in self.reasons)
            return f"not analysed {why}  ({self.model} {self.version})"
        origin = f"({self.model} {self.version}, threshold {self.threshold:.3g})"
        positive = f"P({self.positive_text}) {self.positive_probability:.3f}"
        return f"{self.label} {self.confidence:.3f}  {positive}  {origin}"


@dataclass(frozen=True)
class Explanation:
    """The judgement of one image, and where in it the evidence lies. For research, not for localisation."""

    prediction: Prediction
    """What ``predict`` returns."""

    overlay_png: bytes
    """The image as the model sees it with the heatmap over it, as a PNG; empty when the image was not analysed."""

    heatmap: tuple[tuple[float, ...], ...]
    """Rows from the top, columns from the left: what the log-odds of ``prediction.positive_labels`` gain from each
    cell, at least 0. Empty when the image was not analysed."""

    box: tuple[float, float, float, float]
    """Left, top, right and bottom of the heatmap in the picture, in its pixels; it may reach beyond the picture."""


@dataclass(frozen=True)
class PredictionFailure:
    """An image of ``predict_many`` that was not judged."""

    source: Source
    """Where the image came from."""

    error: StrokeClientError
    """Why it was not judged; ``raise failure.error`` where a failure shall end the run."""

    index: int = 0
    """Position among the images, from 0."""


@dataclass(frozen=True)
class Window:
    """A window of CT values, in Hounsfield units: ``level - width / 2`` becomes black, ``level + width / 2`` white."""

    level: float
    """Level (window centre), in Hounsfield units."""

    width: float
    """Width, in Hounsfield units, > 0."""

    def __str__(self) -> str:
        return f"level {self.level:g} width {self.width:g} HU"


@dataclass(frozen=True)
class ModelInfo:
    """A served model, as its file describes it."""

    name: str
    """Name, unique together with ``version``."""

    version: str
    """Version."""

    digest: str
    """SHA-256 of the model file, 64 lower-case hexadecimal digits."""

    is_default: bool
    """True for the model that answers a request without a name."""

    task: str
    """What it decides."""

    intended_use: str
    """What it may be used for, and what not."""

    labels: tuple[str, ...]
    """Classes, in the order of ``Prediction.scores``."""

    positive_label: str
    """The only one of ``positive_labels``; empty when there are several."""

    threshold: float
    """Decision threshold on the probability of ``positive_labels``, in [0, 1]."""

    input_height: int
    """Height of the image that the network sees, in pixels; any image is brought to it."""

    input_width: int
    """Width of the image that the network sees, in pixels."""

    input_channels: int
    """Channels of the image that the network sees: 1 (grey) or 3 (RGB)."""

    precision: str
    """What the model file that judges computes with: ``fp32`` or ``int8``."""

    runtime: str
    """What runs it: ``onnxruntime`` or ``openvino``."""

    runtime_version: str
    """Version of ``runtime``."""

    threads: int
    """Threads inside one run while the server has little else to do."""

    busy_threads: int
    """Threads inside one run while many images are in work."""

    workers: int
    """Images that the server judges at the same time."""

    profile: str
    """The profile that the numbers of threads and workers come from."""

    server_version: str = ""
    """Version of the server; empty when it is older than this field."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """Recorded figures by name; empty when none were recorded."""

    provenance: Mapping[str, str] = field(default_factory=dict)
    """Where it comes from, by name; empty when not recorded."""

    model_card: str = ""
    """What to know before relying on it, in Markdown; empty when there is none, and always from ``list_models()``."""

    windows: tuple[Window, ...] = ()
    """How CT values become the grey levels of the image that the network sees: one window, or one for each channel;
    empty: it takes no DICOM files."""

    study_top_k: int = 0
    """The score of a study is the mean of so many highest probabilities of its slices; 0: it judges no studies."""

    study_threshold: float = 0.0
    """Threshold on the score of a study, in [0, 1]."""

    outlier_threshold: float = 0.0
    """``Prediction.outlier_score`` above which an image is not analysed; 0: it has no such score."""

    indeterminate_margin: float = 0.0
    """An image whose probability is nearer to ``threshold`` than this is not analysed; 0: none is."""

    explains: bool = False
    """The server shows where in an image the evidence for this model's answer lies."""

    positive_labels: tuple[str, ...] = ()
    """The classes that are looked for: the most probable of them is answered when the sum of their probabilities is
    above ``threshold``. Of a server from before this field ``positive_label`` alone."""

    @property
    def positive_text(self) -> str:
        """The positive classes, for people: ``haemorrhagic or ischaemic``."""
        return " or ".join(self.positive_labels) or self.positive_label

    @property
    def judges_studies(self) -> bool:
        """Whether ``predict_study`` can be asked of it."""
        return self.study_top_k > 0


for _result in (
    *(AnalysisStatus, HealthStatus, Reason, ImageWarning, Timings, Prediction, Explanation, PredictionFailure),
    *(Window, ModelInfo),
):
    _result.__module__ = __package__  # where users import it from
