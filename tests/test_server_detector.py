"""The core, without any transport."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server.core.decision import decide
from server.core.detector import Budget, Detector
from server.core.plan import Plan
from server.errors import (
    BudgetExceededError,
    ImageError,
    IntegrityError,
    OverloadedError,
    RequestError,
    UnavailableError,
)
from server.models.engines.engine import DEFAULT_OPTIONS
from server.models.registry import ModelRegistry
from server.models.runtime import OnnxModel, Scores
from tests.fakes import SPEC, encode, make_slice, sha256_hex

BRIGHT, DARK = encode(make_slice(200)), encode(make_slice(40))
FAR = Budget(86_400)  # counted from now on, and a run of all tests takes minutes


@pytest.fixture
def registry(tiny_models: Path) -> ModelRegistry:
    registry = ModelRegistry()
    registry.load(tiny_models, "")
    return registry


def make_detector(registry: ModelRegistry, *, queue: int) -> Detector:
    """A detector with one worker."""
    return Detector(registry, Plan("balanced", DEFAULT_OPTIONS), queue=queue)


@contextmanager
def held_worker(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keeps one worker busy."""
    entered, release = threading.Event(), threading.Event()
    run = OnnxModel.score

    def slow_run(model: OnnxModel, pixels: np.ndarray, *, busy: bool) -> Scores:
        entered.set()
        assert release.wait(60)
        return run(model, pixels, busy=busy)

    monkeypatch.setattr(OnnxModel, "score", slow_run)
    thread = threading.Thread(target=detector.detect, args=(BRIGHT, Budget(30)))
    thread.start()
    assert entered.wait(60)
    monkeypatch.setattr(OnnxModel, "score", run)
    try:
        yield
    finally:
        release.set()
        thread.join()


def test_detection_has_label_scores_and_times(registry: ModelRegistry) -> None:
    """The confidence is the probability of the label, and the digest is that of the bytes."""
    detector = make_detector(registry, queue=0)

    bright, dark = detector.detect(BRIGHT, Budget(30)), detector.detect(DARK, Budget(30))

    assert (bright.label, dark.label) == ("stroke", "normal")
    assert bright.confidence == bright.probabilities[1] > 0.9
    assert dark.confidence == dark.probabilities[0] > 0.9
    assert sum(bright.probabilities) == pytest.approx(1)
    assert bright.image_sha256 == sha256_hex(BRIGHT)
    assert min(bright.decode_ms, bright.queue_ms, bright.inference_ms) >= 0
    assert bright.decode_ms > 0


@pytest.mark.parametrize(
    ("probability", "label"),
    [(0.0, "normal"), (0.0499, "normal"), (0.0501, "stroke"), (1.0, "stroke")],
)
def test_positive_label_is_answered_strictly_above_the_threshold(probability: float, label: str) -> None:
    """As in the paper: risk > 0.05."""
    probabilities = np.array([1 - probability, probability], np.float32)

    assert SPEC.labels[decide(probabilities, SPEC)] == label


@pytest.mark.parametrize("threshold", [0.111, 0.3, 0.7, 0.1, 0.05])
def test_threshold_is_a_double(threshold: float) -> None:
    """Whoever compares the probability and the threshold of an answer gets its label, on both sides of the edge."""
    nearest = np.float32(threshold)
    spec = replace(SPEC, threshold=threshold)

    for probability in (np.nextafter(nearest, np.float32(0)), nearest, np.nextafter(nearest, np.float32(1))):
        index = decide(np.array([1 - probability, probability], np.float32), spec)
        assert spec.labels[index] == ("stroke" if float(probability) > threshold else "normal")


def test_other_labels_compete_below_the_threshold() -> None:
    """With more than two classes the most probable other one is answered."""
    spec = type(SPEC)("tiny", "1", ("stroke", "normal", "unclear"), ("stroke",), 0.9)

    assert decide(np.array([0.8, 0.05, 0.15], np.float32), spec) == 2


def test_answer_that_is_not_finite_is_a_fault_of_the_model() -> None:
    """NaN never becomes a label."""
    with pytest.raises(ArithmeticError):
        decide(np.array([np.nan, np.nan], np.float32), SPEC)


def test_stated_digest_is_verified(registry: ModelRegistry) -> None:
    """A flipped bit on the way is found, whatever the case of the digits; nonsense is refused."""
    detector = make_detector(registry, queue=0)
    digest = sha256_hex(BRIGHT)
    altered = bytearray(BRIGHT)
    altered[-20] ^= 1

    detector.detect(BRIGHT, FAR, image_sha256=digest.upper())
    with pytest.raises(IntegrityError):
        detector.detect(bytes(altered), FAR, image_sha256=digest)
    with pytest.raises(RequestError):
        detector.detect(BRIGHT, FAR, image_sha256="abc")


def test_full_queue_refuses_at_once(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-pressure instead of a growing line."""
    detector = make_detector(registry, queue=0)

    with held_worker(detector, monkeypatch), pytest.raises(OverloadedError):
        detector.detect(DARK, Budget(30))

    assert detector.detect(DARK, Budget(30)).label == "normal"


def test_deadline_ends_the_wait(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits longer than their caller."""
    detector = make_detector(registry, queue=1)

    with held_worker(detector, monkeypatch), pytest.raises(BudgetExceededError) as refusal:
        detector.detect(DARK, Budget(0.2))

    assert refusal.value.reason == "DEADLINE_IN_QUEUE"


def test_no_work_for_a_caller_who_has_gone(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled request is not decoded."""
    detector = make_detector(registry, queue=0)
    monkeypatch.setattr("server.core.detector.load_pixels", lambda *args: pytest.fail("decoded"))

    with pytest.raises(BudgetExceededError) as refusal:
        detector.detect(DARK, Budget(30, is_wanted=lambda: False))

    assert refusal.value.reason == "CALLER_GONE"


def test_worker_is_free_again_after_an_error(registry: ModelRegistry) -> None:
    """Bad images do not use up the workers."""
    detector = make_detector(registry, queue=0)

    for _ in range(5):
        with pytest.raises(ImageError):
            detector.detect(b"garbage", Budget(30))

    assert detector.detect(BRIGHT, Budget(30)).label == "stroke"


def test_budget_runs_on_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the wall clock changes nothing."""
    budget = Budget(10)
    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert 9 < budget.remaining <= 10


def test_nothing_is_answered_before_a_model_is_loaded() -> None:
    """The caller learns that the server is starting."""
    with pytest.raises(UnavailableError):
        make_detector(ModelRegistry(), queue=0).detect(BRIGHT, Budget(30))


def test_digest_is_told_of_images_that_are_refused_after_it_is_known(registry: ModelRegistry) -> None:
    """Whoever keeps a record can find them again; what is sure to be refused is not hashed."""
    detector, told = make_detector(registry, queue=0), list[str]()
    torn = BRIGHT[:200]

    detector.detect_here(BRIGHT, FAR, on_digest=told.append)
    for image, stated in ((torn, ""), (DARK, "0" * 64), (b"", "")):
        with pytest.raises((ImageError, IntegrityError)):
            detector.detect_here(image, FAR, image_sha256=stated, on_digest=told.append)

    assert told == [sha256_hex(BRIGHT), sha256_hex(torn), sha256_hex(DARK)]


def test_nothing_is_judged_while_no_image_may_be(registry: ModelRegistry) -> None:
    """It is refused before it is looked at, by every way in."""

    def refuse() -> None:
        raise UnavailableError("NOT_NOW", "Not now.")

    plan = Plan("balanced", DEFAULT_OPTIONS)
    detector, told = Detector(registry, plan, queue=0, check_ready=refuse), list[str]()

    for way in (
        detector.check_room,
        lambda: detector.detect(BRIGHT, FAR),
        lambda: detector.detect_here(BRIGHT, FAR, on_digest=told.append),
    ):
        with pytest.raises(UnavailableError, match="Not now"):
            way()
    assert told == []
