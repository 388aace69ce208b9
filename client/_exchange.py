"""One image's way out and back: its bytes, the request that carries them, and the checks on the answer. It knows no
thread and no event loop."""

from __future__ import annotations

import hashlib
import io
import math
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from ._errors import (
    ImageReadError,
    ImageTooLargeError,
    IntegrityError,
    InvalidImageError,
    InvalidRequestError,
    ServerError,
)
from ._proto import stroke_pb2
from ._types import AnalysisStatus, Explanation, ImageInput, ImageWarning, Prediction, Reason, Source, Timings

if TYPE_CHECKING:
    from ._retry import Retry

_PIECE_BYTES = 1 << 16

_LAST_FRAME = 2**31 - 1
"""The most that a DICOM file can have (Number of Frames is an integer string)."""


def describe_source(image: ImageInput) -> Source:
    """Returns what names ``image`` in results: never its bytes, so that a list of results stays small.

    Raises:
        TypeError: it is nothing that can be read as an image.
    """
    if isinstance(image, str | os.PathLike):
        return image
    if isinstance(image, bytes | bytearray | memoryview):
        return "<bytes>"
    if hasattr(image, "read"):
        name = getattr(image, "name", None)
        return name if isinstance(name, str) else "<stream>"
    raise TypeError(f"an image is a path, bytes or a file opened in binary mode, not {type(image).__name__}")


def read_image(image: ImageInput, max_bytes: int) -> bytes:
    """Returns the bytes of ``image``; a file object is read to its end and left open.

    Raises:
        InvalidImageError: it has no bytes (IMAGE_EMPTY), cannot be read (``ImageReadError``, IMAGE_UNREADABLE), or has
            more than ``max_bytes`` (``ImageTooLargeError``, IMAGE_TOO_LARGE).
    """
    why = ""
    try:
        if isinstance(image, str | os.PathLike):
            with open(image, "rb", buffering=0) as file:
                data = _read_stream(file, max_bytes, os.fstat(file.fileno()).st_size)
        elif isinstance(image, bytes | bytearray | memoryview):
            data = bytes(image)
        else:
            data = _read_stream(image, max_bytes)
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
    except ValueError as error:  # a path with a NUL character, a closed file
        why = str(error)
    if why:
        raise ImageReadError(f"the image cannot be read: {why}", "IMAGE_UNREADABLE")
    if not data:
        raise InvalidImageError("the image is empty (0 bytes): check that the export finished", "IMAGE_EMPTY")
    if len(data) > max_bytes:
        raise ImageTooLargeError(
            f"the image has more than {max_bytes / 2**20:g} MiB, the most that this client sends (max_image_bytes); "
            "servers take less: is this the right file?",
            "IMAGE_TOO_LARGE",
        )
    return data


def _read_stream(file: io.RawIOBase | BinaryIO, max_bytes: int, expected_bytes: int = 0) -> bytes:
    # Piece by piece, because raw files and pipes return less than asked for; one byte beyond the limit is enough to
    # know that it is exceeded, so that an endless stream ends. Not asked for in one go either: Python makes room for
    # all that is asked for, which takes eight times as long as reading a slice.
    pieces = []
    missing = max_bytes + 1
    while missing > 0:
        piece = file.read(min(missing, max(expected_bytes, _PIECE_BYTES)))
        if isinstance(piece, str):
            raise ValueError("the file is opened as text; open it with mode 'rb'")
        if not piece:
            break
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


@dataclass(slots=True, eq=False)
class ImageRequest:
    """One image on its way, with what identifies it."""

    data: bytes
    source: Source
    model: str
    version: str
    id: str
    index: int
    """Position in the images of ``predict_many``."""

    frame: int = 0
    """Which frame of a multi-frame file, from 1; 0: the only one."""

    sha256: str = ""
    """Of ``data``; empty until ``hash_data`` or ``to_fields``."""

    retry: Retry | None = None
    """Its tries on a stream, once it was refused for now."""

    sent_at: float = 0.0
    """When it was last handed to a stream, in seconds of ``time.monotonic``."""

    def hash_data(self) -> None:
        """Sets ``sha256``."""
        self.sha256 = self.sha256 or hashlib.sha256(self.data).hexdigest()

    def to_fields(self) -> dict[str, Any]:
        """Returns the fields of the message. Hashing takes most of the client's time: a stream calls this in the thread
        that sends, where the bytes are still in the processor's cache."""
        self.hash_data()
        return {
            "image": self.data,
            "model_name": self.model,
            "model_version": self.version,
            "image_sha256": self.sha256,
            "id": self.id,
            "frame": self.frame,
        }

    def to_proto(self) -> stroke_pb2.PredictRequest:
        """Returns the message."""
        return stroke_pb2.PredictRequest(**self.to_fields())


def load_request(
    image: ImageInput,
    max_bytes: int,
    *,
    model: str,
    version: str,
    request_id: str | None = None,
    index: int = 0,
    frame: int = 0,
) -> ImageRequest:
    """Returns the request for one image, after reading it.

    Raises:
        InvalidImageError: see ``read_image``.
        InvalidRequestError: a text cannot be sent (REQUEST_REFUSED).
        TypeError: ``image`` is nothing that can be read as an image.
        ValueError: ``frame`` is no number of a frame.
    """
    source = describe_source(image)
    check_text(model, version, request_id or "")
    check_frame(frame)
    data = read_image(image, max_bytes)
    return ImageRequest(data, source, model, version, request_id or uuid.uuid4().hex, index, frame)


def check_frame(frame: int) -> None:
    """Raises ValueError when ``frame`` is no number of a frame, nor 0, which is none."""
    if not 0 <= frame <= _LAST_FRAME:
        raise ValueError(f"frame must be at least 1, or 0 for the only one, not {frame}")


def check_text(*texts: str) -> None:
    """Raises InvalidRequestError, REQUEST_REFUSED, when a text has no UTF-8 form, as arguments of a shell may."""
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise InvalidRequestError(
            "a model's name, its version or a request id is not valid text: check its spelling", "REQUEST_REFUSED"
        )


def read_answer(response: stroke_pb2.PredictResponse, request: ImageRequest) -> Prediction:
    """Returns the judgement in ``response`` when it is sound and belongs to ``request``.

    Raises:
        IntegrityError: it answers another request (ANSWER_MISPLACED) or judged other bytes (IMAGE_ALTERED).
        ServerError: its figures are no probabilities, its label has none, or it has a label of an image that was not
            analysed (ANSWER_INVALID).
    """
    check_id(response.id, request)
    if response.image_sha256 != request.sha256:
        raise IntegrityError(
            "the server judged other bytes than were sent: send the image again", "IMAGE_ALTERED", None, request.id
        )
    prediction = _read_prediction(response, request)
    figures = (
        prediction.confidence,
        prediction.threshold,
        prediction.positive_probability,
        *prediction.scores.values(),
    )
    labels = prediction.scores.keys() if prediction.is_analysed else {""}
    is_known = prediction.label in labels and prediction.scores.keys() >= set(prediction.positive_labels)
    is_known = is_known and is_consistent(prediction.label, prediction.positive_label, prediction.positive_labels)
    # Written so that NaN fails, too; a softmax in float32 may exceed 1 by its rounding.
    is_sound = all(0 <= figure <= 1 + 1e-6 for figure in figures) and 0 <= prediction.outlier_score < math.inf
    if not is_known or not is_sound:
        raise ServerError("the server's answer is not usable: report this", "ANSWER_INVALID", None, request.id)
    return prediction


def is_consistent(label: str, positive_label: str, positive_labels: tuple[str, ...]) -> bool:
    """Whether the positive label of an answer is a positive one, and the only one that can be its label."""
    return positive_label in positive_labels and (label == positive_label or label not in positive_labels)


def read_explanation(response: stroke_pb2.ExplainResponse, request: ImageRequest) -> Explanation:
    """Returns the explanation in ``response`` when it is sound and belongs to ``request``.

    Raises:
        IntegrityError, ServerError: see ``read_answer``; its heatmap has another size than it says (ANSWER_INVALID).
    """
    prediction = read_answer(response.prediction, request)
    rows, columns = response.heatmap_height, response.heatmap_width
    if len(response.heatmap) != rows * columns or bool(response.overlay_png) != bool(rows * columns):
        raise ServerError("the server's answer is not usable: report this", "ANSWER_INVALID", None, request.id)
    return Explanation(
        prediction=prediction,
        overlay_png=response.overlay_png,
        heatmap=tuple(tuple(response.heatmap[row * columns : (row + 1) * columns]) for row in range(rows)),
        box=(response.heatmap_left, response.heatmap_top, response.heatmap_right, response.heatmap_bottom),
    )


def check_id(answered_id: str, request: ImageRequest) -> None:
    """Raises IntegrityError, reason ANSWER_MISPLACED, when an answer is not the one to ``request``."""
    if answered_id != request.id:
        raise IntegrityError(
            "the server's answer belongs to another request: report this", "ANSWER_MISPLACED", None, request.id
        )


def _read_prediction(response: stroke_pb2.PredictResponse, request: ImageRequest) -> Prediction:
    scores = {score.label: score.probability for score in response.scores}
    positive = response.positive_label or _guess_positive(response.label, scores, response.threshold)
    return Prediction(
        response.label,  # by its place: CPython 3.11 keeps 2,000 tuples of 20 names, and takes none of them again
        response.confidence,
        scores=scores,
        threshold=response.threshold,
        model=response.model_name,
        version=response.model_version,
        digest=response.model_digest,
        image_sha256=response.image_sha256,
        timings=Timings(response.timings.decode_ms, response.timings.queue_ms, response.timings.inference_ms),
        warnings=read_warnings(response.warnings),
        request_id=response.id,
        source=request.source,
        index=request.index,
        positive_label=positive,
        positive_probability=response.positive_probability if response.positive_label else scores.get(positive, 0.0),
        status=read_status(response.status),
        reasons=read_reasons(response.reasons),
        channel=response.channel,
        outlier_score=response.outlier_score,
        frame=request.frame,
        positive_labels=tuple(response.positive_labels) or (positive,),
    )


def read_status(status: int) -> AnalysisStatus:
    """Returns whether there was something to judge; a server that does not say judges everything."""
    is_analysed = status != stroke_pb2.PredictResponse.NOT_ANALYSED
    return AnalysisStatus.ANALYSED if is_analysed else AnalysisStatus.NOT_ANALYSED


def read_reasons(reasons: Iterable[stroke_pb2.Reason]) -> tuple[Reason, ...]:
    return tuple(Reason(reason.reason, reason.message) for reason in reasons)


def read_warnings(warnings: Iterable[stroke_pb2.Warning]) -> tuple[ImageWarning, ...]:
    return tuple(ImageWarning(warning.reason, warning.message) for warning in warnings)


def _guess_positive(label: str, scores: dict[str, float], threshold: float) -> str:
    """Returns the positive label where the server does not say: an answer is it when its probability is above the
    threshold, and none of the others."""
    fitting = [other for other, score in scores.items() if (other == label) == (score > threshold)]
    return (fitting or list(scores) or [""])[-1]
