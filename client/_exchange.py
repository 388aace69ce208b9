"""One image's way out and back: its bytes, the request that carries them, when it is sent again, and the checks on
the answer. It knows no thread and no event loop.

    what came back                                      what is done
    nobody is there, a connection that broke, a server  again after pauses that grow, spread by a fifth: a restart
    that starts or stops (UNAVAILABLE, CANCELLED)       takes seconds, and the caller's time is there to be used
    a refusal with a hint of the server                 again after the hint, and a share of chance on top
    a refusal without (QUEUE_FULL of older servers),    again after a pause that is all chance, so that callers who
    more calls than a connection may carry              were refused together do not come back together
    anything else                                       it is the answer

All calls are pure, so sending twice does no harm. gRPC could repeat by itself, but at most five times whatever the
caller's time, with tokens that 80 threads use up at the first restart, and it says nothing while it waits; so it only
does what it does unasked: send again what never left this machine, or was refused unread.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import random
import threading
import uuid
from dataclasses import dataclass
from typing import Any, BinaryIO

from ._channel import Restraint
from ._config import RetryConfig
from ._errors import (
    AuthenticationError,
    ImageReadError,
    ImageTooLargeError,
    IntegrityError,
    InvalidImageError,
    InvalidRequestError,
    OverloadedError,
    ServerError,
    StrokeClientError,
)
from ._proto import stroke_pb2
from ._types import AnalysisStatus, ImageInput, ImageWarning, Prediction, Reason, Source, Timings

_PIECE_BYTES = 1 << 16

_LEAST_SECONDS = 0.05
"""With less time left a try is not worth making: it would end without an answer, and with a worse error."""

_SHARE_OF_REST = 0.25
"""Longest pause, of the time that is left: tries come closer together towards the end, so that nobody gives up while
there is time, and those who have waited longest ask most often."""

_MOST_UNCLEAR = 4
"""Connections in a row that are made and then dropped. A server that restarts may do it once or twice; what does it
each time is no server of ours, or wants another kind of connection."""

_PERMANENT = {"NOT_A_GRPC_SERVER", "HOST_UNKNOWN", "TLS_REQUIRED", "TLS_NOT_SPOKEN", "TLS_FAILED"}
"""Reasons of UNAVAILABLE that somebody has to do something about."""

_UNSTATED = "SERVER_BUSY"
"""Reason of a RESOURCE_EXHAUSTED for which the server stated none: by the API, a message above its limit."""


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
        }

    def to_proto(self) -> stroke_pb2.PredictRequest:
        """Returns the message."""
        return stroke_pb2.PredictRequest(**self.to_fields())


def load_request(
    image: ImageInput, max_bytes: int, *, model: str, version: str, request_id: str | None = None, index: int = 0
) -> ImageRequest:
    """Returns the request for one image, after reading it.

    Raises:
        InvalidImageError: see ``read_image``.
        InvalidRequestError: a text cannot be sent (REQUEST_REFUSED).
        TypeError: ``image`` is nothing that can be read as an image.
    """
    source = describe_source(image)
    check_text(model, version, request_id or "")
    data = read_image(image, max_bytes)
    return ImageRequest(data, source, model, version, request_id or uuid.uuid4().hex, index)


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
    is_known = prediction.label in labels and prediction.positive_label in prediction.scores
    # Written so that NaN fails, too; a softmax in float32 may exceed 1 by its rounding.
    if not is_known or not all(0 <= figure <= 1 + 1e-6 for figure in figures):
        raise ServerError("the server's answer is not usable: report this", "ANSWER_INVALID", None, request.id)
    return prediction


def check_id(answered_id: str, request: ImageRequest) -> None:
    """Raises IntegrityError, reason ANSWER_MISPLACED, when an answer is not the one to ``request``."""
    if answered_id != request.id:
        raise IntegrityError(
            "the server's answer belongs to another request: report this", "ANSWER_MISPLACED", None, request.id
        )


def _read_prediction(response: stroke_pb2.PredictResponse, request: ImageRequest) -> Prediction:
    scores = {score.label: score.probability for score in response.scores}
    positive = response.positive_label or _guess_positive(response.label, scores, response.threshold)
    is_analysed = response.status != stroke_pb2.PredictResponse.NOT_ANALYSED
    return Prediction(
        label=response.label,
        confidence=response.confidence,
        scores=scores,
        threshold=response.threshold,
        model=response.model_name,
        version=response.model_version,
        digest=response.model_digest,
        image_sha256=response.image_sha256,
        timings=Timings(response.timings.decode_ms, response.timings.queue_ms, response.timings.inference_ms),
        warnings=tuple(ImageWarning(warning.reason, warning.message) for warning in response.warnings),
        request_id=response.id,
        source=request.source,
        index=request.index,
        positive_label=positive,
        positive_probability=response.positive_probability if response.positive_label else scores.get(positive, 0.0),
        status=AnalysisStatus.ANALYSED if is_analysed else AnalysisStatus.NOT_ANALYSED,
        reasons=tuple(Reason(reason.reason, reason.message) for reason in response.reasons),
        channel=response.channel,
    )


def _guess_positive(label: str, scores: dict[str, float], threshold: float) -> str:
    """Returns the positive label where the server does not say: an answer is it when its probability is above the
    threshold, and none of the others."""
    fitting = [other for other, score in scores.items() if (other == label) == (score > threshold)]
    return (fitting or list(scores) or [""])[-1]


def is_repeatable(error: StrokeClientError) -> bool:
    """True when the same call is worth making again within the time of the caller."""
    if error.retry_after == math.inf:
        return False
    if error.code == "RESOURCE_EXHAUSTED":
        return isinstance(error, OverloadedError) and (error.retry_after is not None or error.reason != _UNSTATED)
    return (
        error.code in ("UNAVAILABLE", "CANCELLED")
        and not isinstance(error, AuthenticationError)
        and error.reason not in _PERMANENT
    )


def choose_pause(error: StrokeClientError, backoff: float, hint_limit: float) -> float:
    """Returns the seconds before the next try.

    Args:
        error: with which the last one failed.
        backoff: the planned pause, which grows from try to try.
        hint_limit: most seconds of chance that a hint of the server may cause.
    """
    if error.retry_after is not None:
        return error.retry_after + random.uniform(0, max(backoff, min(error.retry_after, hint_limit)))
    is_busy = error.code == "RESOURCE_EXHAUSTED" or error.reason == "CONNECTION_BUSY"
    return random.uniform(0, backoff) if is_busy else backoff * random.uniform(0.8, 1.2)


class Throttle:
    """Ends repetitions where most tries fail (``RetryConfig.throttle_tokens``). May be used by several threads."""

    def __init__(self, tokens: int) -> None:
        self._most = float(tokens)
        self._left = self._most
        self._lock = threading.Lock()

    def spend(self) -> bool:
        """Counts a try that failed. Returns True when there may be another."""
        with self._lock:
            self._left = max(self._left - 1, 0.0)
            return self._left > self._most / 2

    def refund(self) -> None:
        """Counts a good answer."""
        if self._left < self._most:
            with self._lock:
                self._left = min(self._left + 0.1, self._most)


class Retry:
    """The tries of one call, or of one image of a stream. Times are seconds of ``time.monotonic``.

    Args:
        config: how calls are repeated.
        started: when the first try began.
        timeout: seconds for all tries.
        throttle: of the client; None: it has none.
        restraint: of the client; None: refusals are not held back.
    """

    def __init__(
        self,
        config: RetryConfig,
        started: float,
        timeout: float,
        throttle: Throttle | None = None,
        restraint: Restraint | None = None,
    ) -> None:
        self._config = config
        self._restraint = restraint
        self._timeout = timeout
        self._deadline = started + timeout
        self._throttle = throttle
        self._resumed = started
        self._backoff = config.initial_backoff
        self._tries = 0
        self._unclear = 0
        self._failure: StrokeClientError | None = None

    @property
    def failure(self) -> StrokeClientError:
        """What to raise when there is no further try."""
        assert self._failure is not None
        return self._failure

    def judge(self, failure: StrokeClientError, now: float, *, passes: bool | None = None) -> float | None:
        """Takes the outcome of a try. Returns the seconds to wait before the next one; None: it is given up.

        Args:
            failure: what came of it.
            now: the time.
            passes: True or False when the caller knows whether it may pass; None: judged by ``is_repeatable``.
        """
        self._tries += 1
        if not (is_repeatable(failure) if passes is None else passes):
            self._settle(failure)
            return None
        self._failure = failure
        self._unclear = self._unclear + 1 if failure.reason == "CONNECTION_FAILED" else 0
        most = self._config.max_attempts
        if (most is not None and self._tries >= most) or self._unclear >= _MOST_UNCLEAR:
            return None
        if self._throttle is not None and not self._throttle.spend():
            return None
        least = failure.retry_after or 0.0
        spare = self._deadline - now - least
        if spare < _LEAST_SECONDS:
            return None
        longest = self._config.max_backoff
        pause = min(choose_pause(failure, self._backoff, longest), least + spare * _SHARE_OF_REST)
        self._backoff = min(self._backoff * self._config.backoff_multiplier, longest)
        self._resumed = now + pause
        return pause

    def hold(self, now: float) -> float | None:
        """Returns the seconds that the next try is to wait on top of its pause; None: the time does not suffice."""
        if self._restraint is None or self.failure.code != "RESOURCE_EXHAUSTED":
            return 0.0
        seconds = self._restraint.hold(now)
        return seconds if self._deadline - now - seconds >= _LEAST_SECONDS else None

    def time_left(self, now: float) -> float:
        """Returns the seconds for the next try, > 0."""
        return max(self._deadline - now, 0.001)

    def _settle(self, failure: StrokeClientError) -> None:
        # A try that began late and ran out of time says nothing; what kept the call waiting until then does.
        was_late = self._deadline - self._resumed < self._timeout / 2
        if self._failure is None or failure.reason != "DEADLINE_EXCEEDED" or not was_late:
            self._failure = failure
