"""What ``predict_study`` takes and returns: plain frozen data, free of gRPC and protobuf.

Annotations are evaluated here, for the reason that ``client._types`` states.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from .._errors import StrokeClientError
from .._types import AnalysisStatus, ImageInput, ImageWarning, Reason, Source, Verdict

StudyInput: TypeAlias = ImageInput | Mapping[str, ImageInput] | Iterable[ImageInput]
"""The slices of a study: a folder, files, or the images by ids of the caller's own."""


@dataclass(frozen=True)
class StudySlice:
    """One slice of a study, or one file that is none."""

    source: Source
    """Where it came from: its path as it was given or found, ``<bytes>``, or the name of the file object."""

    index: int
    """Position of its file among those that were given, from 0; of those of a folder in natural order."""

    id: str
    """What it was called on the wire: its number, or the caller's own id; never its name."""

    frame: int = 0
    """Frame of a multi-frame file, from 1; 0 for a file with one frame."""

    positive_probability: float = 0.0
    """Probability of the positive classes, in [0, 1]."""

    status: AnalysisStatus = AnalysisStatus.ANALYSED
    """Whether this slice was analysed; one that was not has no part in the score of the study."""

    reasons: tuple[Reason, ...] = ()
    """Why it was not analysed; empty when it was."""

    position_mm: float = 0.0
    """Place along the normal of the slices, in millimetres, feet to head; 0 where it is not known."""

    sop_instance_uid: str = ""
    """SOPInstanceUID of a DICOM file."""

    image_sha256: str = ""
    """SHA-256 of the file, checked against the bytes that were sent; empty for one that could not be read."""

    error: StrokeClientError | None = None
    """Why it was not judged at all; None when it was."""

    @property
    def is_analysed(self) -> bool:
        """Whether its probability counts."""
        return self.error is None and self.status == AnalysisStatus.ANALYSED

    @property
    def name(self) -> str:
        """The source as text, with the frame where there are several."""
        return f"{self.source} frame {self.frame}" if self.frame else str(self.source)


@dataclass(frozen=True)
class StudySeries:
    """A series of a study."""

    series_instance_uid: str
    """SeriesInstanceUID; empty for PNG and JPEG files."""

    slices: int
    """Slices that came of it."""

    reason: str = ""
    """Machine-readable, UPPER_SNAKE: why it was left out, such as LOCALIZER, BONE_KERNEL, TOO_FEW_SLICES; empty for the
    one that was judged."""

    message: str = ""
    """A sentence for people."""

    spacing_mm: float = 0.0
    """Distance of slices, in millimetres: the median; 0 where it is not known."""

    tilt_degrees: float = 0.0
    """Tilt of the gantry, in degrees."""


@dataclass(frozen=True)
class StudyPrediction(Verdict):
    """The judgement of one study. ``str()`` gives label, score, model and threshold on one line; of a study that was
    not analysed that and why."""

    label: str
    """The class answered: ``positive_label`` when ``score`` is above ``threshold``; empty when the study was not
    analysed."""

    score: float
    """Score of the study, in [0, 1]: the mean of the ``top_k`` highest probabilities of its slices."""

    threshold: float
    """The threshold that was applied to ``score``, in [0, 1]."""

    top_k: int
    """How many slices ``score`` is the mean of, at most."""

    positive_label: str
    """The most probable of ``positive_labels``, on average over the slices that ``score`` is the mean of; empty when
    there are several and no slice was analysed."""

    status: AnalysisStatus
    """Whether the study was judged."""

    reasons: tuple[Reason, ...]
    """Why it was not analysed; empty when it was."""

    first_look: StudySlice | None
    """The slice to look at first (``source`` and ``frame``): that with the highest probability; None: there is none."""

    slices: tuple[StudySlice, ...]
    """The slices of the series that was judged, from the feet to the head; of PNG and JPEG files in the order of their
    ids. One of which the header alone could be used has an ``error``."""

    series: StudySeries | None
    """The series that was judged; None: none was."""

    left_out: tuple[StudySeries, ...]
    """Every series that was not judged, with its reason."""

    failures: tuple[StudySlice, ...]
    """Files that are no slice of any series: those that could not be read here first, then those that the server could
    not judge. Each has its ``error``."""

    warnings: tuple[ImageWarning, ...]
    """What a careful reader should know, such as SLICE_GAP, SEVERAL_STUDIES, or FILES_LEFT_OUT (by this client, of the
    folder)."""

    model: str
    """Name of the model that judged."""

    version: str
    """Version of that model."""

    digest: str
    """SHA-256 of the model file that judged, 64 lower-case hexadecimal digits."""

    request_id: str
    """Identifies the study in the server's log."""

    source: Source = ""
    """The folder; empty where files were given."""

    study_instance_uid: str = ""
    """StudyInstanceUID of the series that was judged; empty for PNG and JPEG files."""

    positive_labels: tuple[str, ...] = ()
    """The classes that are looked for; a server from before this field has one, ``positive_label``."""

    @property
    def failed(self) -> tuple[StudySlice, ...]:
        """Everything that was not judged: ``failures``, and the slices with an ``error``."""
        return (*self.failures, *(one for one in self.slices if one.error is not None))

    @property
    def analysed_slices(self) -> int:
        """How many slices have a part in the score."""
        return sum(one.is_analysed for one in self.slices)

    def __str__(self) -> str:
        model = f"{self.model} {self.version}"
        if not self.is_analysed:
            why = " ".join(f"[{reason.reason}] {reason.message}" for reason in self.reasons)
            return f"not analysed {why}  ({model})"
        mean = f"mean of {min(self.top_k, self.analysed_slices)} of {self.analysed_slices} slices"
        score = f"score {self.score:.3f} for {self.positive_text}"
        return f"{self.label}  {score}  ({model}, threshold {self.threshold:.3g}, {mean})"


for _result in (StudySlice, StudySeries, StudyPrediction):
    _result.__module__ = __package__.rpartition(".")[0]  # where users import it from
