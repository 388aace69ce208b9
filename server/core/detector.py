"""The core: image bytes in, judgement out. No transport here; gRPC calls it, and so would anything else.

At most ``workers`` images are decoded and judged at the same time, because each of them keeps a processor busy and
holds a decoded image in memory; the others wait, up to a bound, and no longer than their caller does.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from server.core.decision import decide, find_doubts
from server.core.explanation import Explanation, explain, refuse_model
from server.core.plan import Plan
from server.core.shadow import Shadows
from server.core.workers import Job, WorkerPool, waited_too_long
from server.errors import BudgetExceededError, DisabledError, IntegrityError, RequestError
from server.images.checks import Reason, find_reasons
from server.images.dicom.codecs.frames import limit_decoders
from server.images.image_file import DEFAULT_LIMITS, ImageLimits, ImageWarning
from server.images.picture import encode_picture
from server.images.preprocess import Scan, check_size, load_pixels
from server.models.contract import HEAD_CT
from server.models.family import Choice, Route
from server.models.registry import ModelRegistry
from server.models.runtime import OnnxModel

Result = TypeVar("Result")


@dataclass(frozen=True)
class Budget:
    """How long a caller waits. Measured on the monotonic clock, so that a step of the wall clock changes nothing."""

    seconds: float
    """From ``started`` on."""

    is_wanted: Callable[[], bool] = lambda: True
    """False once the caller has gone: then no work is started for it."""

    started: float = field(default_factory=time.monotonic)

    @property
    def remaining(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self.started + self.seconds - time.monotonic())


@dataclass(frozen=True)
class Detection:
    """The judgement of one image."""

    model: OnnxModel
    label: str
    """Empty when the image was not analysed."""

    confidence: float
    """Probability of ``label``, in [0, 1]; 0 without one."""

    probabilities: tuple[float, ...]
    """In the order of ``model.spec.labels``."""

    image_sha256: str
    decode_ms: float
    queue_ms: float
    inference_ms: float
    warnings: tuple[ImageWarning, ...]
    reasons: tuple[Reason, ...]
    """Why the image was not analysed; empty when it was."""

    channel: str = ""
    """See ``server.models.family.Choice``."""

    outlier_score: float = 0.0
    """How unlike all that the model knows the image is, at least 0; 0: the model does not tell."""

    explanation: Explanation | None = None
    """Where the evidence lies; None: nobody has asked, or the image was not analysed."""

    @property
    def positive_label(self) -> str:
        """The most probable positive label: ``label``, where that is positive."""
        spec = self.model.spec
        return spec.labels[spec.find_top_positive(self.probabilities)]

    @property
    def positive_probability(self) -> float:
        """Probability of the positive labels, whatever ``label`` is."""
        return self.model.spec.positive_score(self.probabilities)


class Detector:
    """Judges images with the models of a registry. Safe to call from many threads."""

    def __init__(
        self,
        registry: ModelRegistry,
        plan: Plan,
        *,
        queue: int,
        limits: ImageLimits = DEFAULT_LIMITS,
        checks: bool = True,
        check_ready: Callable[[], None] | None = None,
    ) -> None:
        """Makes the workers for a plan, and room for the decoders of this process.

        Args:
            registry: the models.
            plan: how many images are in work at the same time, and when that is many.
            queue: images that may wait for a worker, at least 0.
            limits: what an image may be.
            checks: answer no label where there is nothing to judge, or the model is in doubt.
            check_ready: raises UnavailableError while no image may be judged, from any thread; None: one always may.
        """
        self.registry = registry
        self.plan = plan
        self.limits = limits
        self._checks = checks
        self._check_ready = check_ready
        self._workers = WorkerPool(plan.workers, queue)
        limit_decoders(plan.decoders or plan.workers)
        self.shadows = Shadows(limits, lambda: self._workers.waiting > 0)

    def detect(
        self, image: Scan, budget: Budget, *, model_name: str = "", model_version: str = "", image_sha256: str = ""
    ) -> Detection:
        """Judges one image, and waits for that.

        Args:
            image: the bytes of a PNG, JPEG or DICOM file, or pixels.
            budget: how long the caller waits.
            model_name: empty for the default model.
            model_version: empty for the version served by default.
            image_sha256: what the caller says the SHA-256 of ``image`` is, or empty; of pixels, that of their bytes
                in their order.

        Raises:
            ImageError, RequestError, IntegrityError, ModelNotFoundError, OverloadedError, BudgetExceededError,
            UnavailableError: see ``server.errors``.
        """
        choice, digest = self._admit(image, model_name, model_version, image_sha256)
        done = threading.Event()
        work = partial(self._judge, image, digest, choice, budget)
        job = self.submit(work, lambda job: done.set(), seconds=budget.remaining)
        if not done.wait(budget.remaining):
            if self.withdraw(job):
                raise waited_too_long()
            done.wait()  # what has been started is finished
        return job.take_result()

    @property
    def waiting(self) -> int:
        """Pieces of work that wait for a worker."""
        return self._workers.waiting

    @property
    def free_workers(self) -> int:
        """Workers that have no work."""
        return self._workers.free

    def submit(
        self,
        work: Callable[[], Result],
        on_done: Callable[[Job[Result]], None],
        *,
        source: Hashable = None,
        caller: Hashable = None,
        seconds: float = math.inf,
        urgent: bool = False,
    ) -> Job[Result]:
        """Lets a worker do ``work``, in which ``detect_here`` may be called: see ``WorkerPool.submit``."""
        return self._workers.submit(work, on_done, source=source, caller=caller, seconds=seconds, urgent=urgent)

    def withdraw(self, job: Job[Any]) -> bool:
        """Takes a piece of work back: see ``WorkerPool.withdraw``."""
        return self._workers.withdraw(job)

    def check_room(self, caller: Hashable = None, seconds: float = math.inf) -> None:
        """Says whether another single image of a caller would be refused now, whatever it is.

        Raises:
            UnavailableError: none may be judged.
            OverloadedError: reason QUEUE_FULL.
        """
        if self._check_ready is not None:
            self._check_ready()
        self._workers.check_room(caller, seconds)

    def check_explains(self) -> None:
        """Says whether judgements may be explained, whatever their model.

        Raises:
            DisabledError: reason EXPLAIN_DISABLED.
        """
        if not self.plan.options.explains:
            raise DisabledError(
                "EXPLAIN_DISABLED", "This server explains nothing: whoever runs it has not started it with --explain."
            )

    def detect_here(
        self,
        image: Scan,
        budget: Budget,
        *,
        model_name: str = "",
        model_version: str = "",
        image_sha256: str = "",
        frame: int = 0,
        on_digest: Callable[[str], None] | None = None,
        route: Route | None = None,
        explains: bool = False,
    ) -> Detection:
        """``detect`` for work that was submitted: it has a worker already. ``frame`` is which one of a DICOM file with
        several, from 1; 0: the only one.

        ``on_digest`` is told the SHA-256 of the image once it is known, also of one that is then refused. ``route`` is
        what judges it, whatever the names say by now. With ``explains`` the judgement of an image that is analysed has
        an explanation.

        Raises:
            IncapableModelError: reason MODEL_CANNOT_EXPLAIN.
            StrokeError: as ``detect``.
        """
        if not budget.remaining:
            raise waited_too_long()
        choice, digest = self._admit(image, model_name, model_version, image_sha256, on_digest, route)
        if explains and choice.served.model.explainer is None:
            raise refuse_model(choice.served.model)
        return self._judge(image, digest, choice, budget, frame, explains)

    def render_here(
        self,
        image: Scan,
        budget: Budget,
        *,
        model_name: str = "",
        model_version: str = "",
        image_sha256: str = "",
        frame: int = 0,
    ) -> bytes:
        """What the model that would judge an image sees of it, as a PNG file; for work that was submitted. Nothing is
        judged. Raises as ``detect``."""
        if not budget.remaining:
            raise waited_too_long()
        choice, _ = self._admit(image, model_name, model_version, image_sha256)
        return encode_picture(load_pixels(image, choice.served.model.input_format, self.limits, frame).array)

    def _admit(
        self,
        image: Scan,
        model_name: str,
        model_version: str,
        image_sha256: str,
        on_digest: Callable[[str], None] | None = None,
        route: Route | None = None,
    ) -> tuple[Choice, str]:
        """Returns what answers the image, and its SHA-256."""
        if self._check_ready is not None:
            self._check_ready()
        route = route or self.registry.find(model_name, model_version)
        check_size(image, self.limits)  # what is sure to be refused neither is hashed nor waits
        digest = hashlib.sha256(image if isinstance(image, bytes) else np.ascontiguousarray(image).data).hexdigest()
        if on_digest is not None:
            on_digest(digest)
        check_digest(image_sha256, digest)
        return route.pick(digest), digest

    def _judge(
        self, image: Scan, digest: str, choice: Choice, budget: Budget, frame: int = 0, explains: bool = False
    ) -> Detection:
        """Decodes and judges one image."""
        model, dequeued = choice.served.model, time.monotonic()
        if not budget.is_wanted():
            raise BudgetExceededError("CALLER_GONE", "The caller has gone; the image was not judged.")
        pixels = load_pixels(image, model.input_format, self.limits, frame)
        decoded = time.monotonic()
        # Looked at before the run, which leaves nothing of an image in the processor's caches. The model runs in any
        # case: whoever wonders about a refusal sees what it would have said.
        reasons = find_reasons(pixels) if self._checks and model.spec.checks == HEAD_CT else ()
        checked = time.monotonic()
        said = model.score(pixels.array[np.newaxis], busy=self.plan.is_busy(self._workers.in_flight))
        answered = time.monotonic()
        choice.served.usage.note(answered - checked)
        index = decide(said.probabilities[0], model.spec)
        scores = tuple(said.probabilities[0].tolist())
        doubts = find_doubts(said, model.spec)
        if choice.shadow is not None:
            is_alike = choice.shadow.model.input_format == model.input_format
            judged = ("" if doubts else model.spec.labels[index], model.spec.positive_score(scores))
            self.shadows.offer(choice.shadow, image, pixels.array if is_alike else None, *judged)
        if self._checks:
            reasons = reasons or doubts
        explanation = explain(model, pixels.array) if explains and not reasons else None
        self._workers.note_duration((time.monotonic() if explanation else answered) - dequeued)
        return Detection(
            model=model,
            label="" if reasons else model.spec.labels[index],
            confidence=0.0 if reasons else scores[index],
            probabilities=scores,
            image_sha256=digest,
            decode_ms=1000 * (decoded - dequeued),
            queue_ms=1000 * (dequeued - budget.started),
            inference_ms=1000 * (answered - checked),
            warnings=pixels.warnings,
            reasons=reasons,
            channel=choice.channel,
            outlier_score=float(said.outlier[0]),
            explanation=explanation,
        )


def check_digest(stated: str, actual: str) -> None:
    """Compares the SHA-256 that the caller stated, if any, with that of the bytes that arrived."""
    if not stated:
        return
    if len(stated) != 64 or not set(stated.lower()) <= set("0123456789abcdef"):
        raise RequestError("IMAGE_SHA256_INVALID", "image_sha256 must be 64 hexadecimal digits, or empty.")
    if stated.lower() != actual:
        raise IntegrityError(
            "IMAGE_ALTERED",
            "The image that arrived is not the one that was sent: its SHA-256 differs. Send it again; if that "
            "happens again, check the network and the disk it was read from.",
        )
