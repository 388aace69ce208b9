"""One study's way out and back: the message of each file, and the checks on the answer. It knows no thread and no event
loop."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from .._channel import SERVICE
from .._errors import (
    DeadlineExceededError,
    ImageReadError,
    IntegrityError,
    InvalidRequestError,
    ServerError,
    StrokeClientError,
    error_from_status,
)
from .._exchange import (
    check_text,
    describe_source,
    is_consistent,
    read_image,
    read_reasons,
    read_status,
    read_warnings,
)
from .._proto import stroke_pb2
from .._types import AnalysisStatus
from .files import StudyFile, StudyFiles
from .types import StudyPrediction, StudySeries, StudySlice

NoteFile = Callable[[int], None]
"""Takes how many files of a study have been read and handed over so far."""


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What ``predict_study`` was asked for, checked."""

    files: StudyFiles
    model: str
    version: str
    id: str
    timeout: float
    max_image_bytes: int
    target: str
    on_file: NoteFile | None

    def start(self) -> StudyTry:
        """Returns a try of the call."""
        return StudyTry(self)

    def stalled(self) -> StrokeClientError:
        """Returns the error for a server that does not get on."""
        return DeadlineExceededError(
            f"the server at {self.target} did not get on with the study for {self.timeout:g} s: allow more time, or "
            "see why it is slow",
            "DEADLINE_EXCEEDED",
            "DEADLINE_EXCEEDED",
            self.id,
        )


def make_settings(
    files: StudyFiles,
    *,
    model: str,
    version: str,
    request_id: str | None,
    timeout: float,
    max_image_bytes: int,
    target: str,
    on_file: NoteFile | None,
) -> StudySettings:
    """Checks what ``predict_study`` was asked for.

    Raises:
        InvalidRequestError: there is no file (STUDY_EMPTY), or a text cannot be sent (REQUEST_REFUSED).
    """
    check_text(model, version, request_id or "")
    if files.count == 0:
        where = f" in {files.source}" if files.source else ""
        others = "".join(f" ({warning.message.rstrip('.')})" for warning in files.warnings)
        raise InvalidRequestError(f"there is no PNG, JPEG or DICOM file{where}{others}", "STUDY_EMPTY")
    return StudySettings(
        files=files,
        model=model,
        version=version,
        id=request_id or uuid.uuid4().hex,
        timeout=timeout,
        max_image_bytes=max_image_bytes,
        target=target,
        on_file=on_file,
    )


def open_study(channel: Any, messages: Iterable[bytes] | None, metadata: tuple[tuple[str, str], ...]) -> Any:
    """Starts the call on a channel of ``grpc`` (messages given) or ``grpc.aio`` (they are written to the call)."""
    call = channel.stream_unary(
        f"/{SERVICE}/PredictStudy",
        request_serializer=None,  # they are bytes, made where files are read
        response_deserializer=stroke_pb2.PredictStudyResponse.FromString,
    )
    return call(metadata=metadata) if messages is None else call.future(messages, metadata=metadata)


class StudyTry:
    """One try of the call: what has been sent, so that the answer can be checked against it. No file is kept.

    Args:
        settings: of the call.
    """

    def __init__(self, settings: StudySettings) -> None:
        self._settings = settings
        self._sent: dict[str, StudySlice] = {}
        self._failures: list[StudySlice] = []

    def load(self, file: StudyFile) -> bytes | None:
        """Reads a file and returns its message; None: it cannot be read, which is one of the study's failures.

        Raises:
            TypeError: it is nothing that can be read.
        """
        slice_ = StudySlice(describe_source(file.image), file.index, file.id)
        try:
            data = read_image(file.image, self._settings.max_image_bytes)
        except StrokeClientError as error:
            self._failures.append(replace(slice_, error=error))
            return None
        sha256 = hashlib.sha256(data).hexdigest()
        message = stroke_pb2.PredictStudyRequest(image=data, image_sha256=sha256, id=file.id)
        if not self._sent:
            message.model_name = self._settings.model
            message.model_version = self._settings.version
            message.study_id = self._settings.id
        self._sent[file.id] = replace(slice_, image_sha256=sha256)
        serialised: bytes = message.SerializeToString()
        return serialised

    def note(self) -> None:
        """Says how many files are through."""
        if self._settings.on_file is not None:
            self._settings.on_file(len(self._sent) + len(self._failures))

    def check_sent(self) -> None:
        """Raises what is to be raised when no file could be sent.

        Raises:
            ImageReadError: none could be read; the first one's reason.
            InvalidRequestError: there was none (STUDY_EMPTY).
        """
        if self._sent:
            return
        if not self._failures:
            raise InvalidRequestError("there is no file in the study", "STUDY_EMPTY")
        first = self._failures[0]
        count = len(self._failures)
        what = "the only file of the study cannot" if count == 1 else f"none of the {count} files of the study can"
        raise ImageReadError(
            f"{what} be read; {first.source}: {first.error}",
            first.error.reason if first.error is not None else "IMAGE_UNREADABLE",
        )

    def read_answer(self, response: stroke_pb2.PredictStudyResponse) -> StudyPrediction:
        """Returns the judgement in ``response`` when it is sound and is of the files that were sent.

        Raises:
            IntegrityError: it is of another study or has a slice that was not sent (ANSWER_MISPLACED), or other bytes
                were judged (IMAGE_ALTERED).
            ServerError: its figures are no probabilities, or it has a label though it was not analysed
                (ANSWER_INVALID).
        """
        settings = self._settings
        if response.id != settings.id:
            raise self._misplaced()
        slices = tuple(map(self._read_slice, response.slices))
        prediction = StudyPrediction(
            label=response.label,
            score=response.score,
            threshold=response.threshold,
            top_k=response.top_k,
            positive_label=response.positive_label,
            status=read_status(response.status),
            reasons=read_reasons(response.reasons),
            first_look=self._find_first_look(response, slices),
            slices=slices,
            series=_read_series(response.series) if response.HasField("series") else None,
            left_out=tuple(map(_read_series, response.left_out)),
            failures=(*self._failures, *map(self._read_slice, response.failures)),
            warnings=(*read_warnings(response.warnings), *settings.files.warnings),
            model=response.model_name,
            version=response.model_version,
            digest=response.model_digest,
            request_id=settings.id,
            source=settings.files.source,
            study_instance_uid=response.study_instance_uid,
            positive_labels=tuple(response.positive_labels) or (response.positive_label,),
        )
        if not _is_sound(prediction):
            raise self._invalid()
        return prediction

    def _read_slice(self, one: stroke_pb2.StudySlice) -> StudySlice:
        sent = self._sent.get(one.id)
        if sent is None:
            raise self._misplaced()
        if one.image_sha256 and one.image_sha256 != sent.image_sha256:
            raise IntegrityError(
                "the server judged other bytes than were sent: send the study again",
                "IMAGE_ALTERED",
                None,
                self._settings.id,
            )
        status, error = read_status(one.status), None
        if one.HasField("error"):
            status, fault = AnalysisStatus.NOT_ANALYSED, one.error
            error = error_from_status(
                fault.code,
                fault.reason,
                fault.message,
                target=self._settings.target,
                request_id=self._settings.id,
                retry_after=fault.retry_after_ms / 1000 or None,
            )
        return replace(
            sent,
            frame=one.frame,
            positive_probability=one.positive_probability,
            status=status,
            reasons=read_reasons(one.reasons),
            position_mm=one.position_mm,
            sop_instance_uid=one.sop_instance_uid,
            error=error,
        )

    def _find_first_look(
        self, response: stroke_pb2.PredictStudyResponse, slices: Iterable[StudySlice]
    ) -> StudySlice | None:
        if not response.first_look_id:
            return None
        wanted = (response.first_look_id, response.first_look_frame)
        found = next((one for one in slices if (one.id, one.frame) == wanted), None)
        if found is None:
            raise self._invalid()
        return found

    def _misplaced(self) -> StrokeClientError:
        why = "the server's answer belongs to another study: report this"
        return IntegrityError(why, "ANSWER_MISPLACED", None, self._settings.id)

    def _invalid(self) -> StrokeClientError:
        return ServerError("the server's answer is not usable: report this", "ANSWER_INVALID", None, self._settings.id)


def _read_series(series: stroke_pb2.Series) -> StudySeries:
    return StudySeries(
        series.series_instance_uid,
        series.slices,
        series.reason,
        series.message,
        series.spacing_mm,
        series.tilt_degrees,
    )


def _is_sound(prediction: StudyPrediction) -> bool:
    """Whether figures are what they should be, and there is a label where, and only where, the study was analysed."""
    shares = (prediction.score, prediction.threshold, *(one.positive_probability for one in prediction.slices))
    series = (*prediction.left_out, *([prediction.series] if prediction.series is not None else []))
    lengths = (
        *(one.position_mm for one in prediction.slices),
        *(length for one in series for length in (one.spacing_mm, one.tilt_degrees)),
    )
    has_label = bool(prediction.label)
    # Written so that NaN fails, too; a softmax in float32 may exceed 1 by its rounding.
    return (
        all(0 <= share <= 1 + 1e-6 for share in shares)
        and all(map(math.isfinite, lengths))
        and has_label == prediction.is_analysed
        and (not has_label or is_consistent(prediction.label, prediction.positive_label, prediction.positive_labels))
        and all(one.error is not None for one in prediction.failures)
    )
