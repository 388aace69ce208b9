"""Versions on trial: a canary answers its share and says so, a shadow is compared and answers nobody."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from client import StrokeClient
from proto import admin_pb2, admin_pb2_grpc, stroke_pb2
from server.core import shadow as shadows_module
from server.core.detector import Budget, Detector
from server.core.plan import Plan
from server.errors import ModelNotFoundError
from server.images.preprocess import load_pixels
from server.lifecycle.sockets import name_socket
from server.machine.priority import LOW_PRIORITY
from server.models.activation import Activator
from server.models.active import Release
from server.models.engines.engine import DEFAULT_OPTIONS
from server.models.family import CANARY, SHADOW, Choice, Route, Served, Usage
from server.models.registry import ModelRegistry
from server.models.runtime import OnnxModel, Scores
from tests.administration import add_version, operate, read_status
from tests.fakes import THREE, build_tiny_model, encode, make_slice, run_server, wait_until, with_version, write_model
from tests.scraping import find_free_port, scrape

BRIGHT, DARK = encode(make_slice(200)), encode(make_slice(40))
IMAGES = [encode(make_slice(40 + 4 * number, seed=number)) for number in range(40)]
FAR = Budget(86_400)


@pytest.fixture
def activator(tmp_path: Path) -> Activator:
    """Serves version 1; 2 answers otherwise, 3 takes another size of image and changes labels."""
    add_version(tmp_path, "1", 0.04)
    registry = ModelRegistry()
    registry.load(tmp_path, "tiny")
    add_version(tmp_path, "2", 0.05)
    spec = replace(with_version("3"), threshold=0.9)
    write_model(tmp_path, spec, build_tiny_model(spec, gain=0.01, side=48))
    return Activator(registry, tmp_path, DEFAULT_OPTIONS)


@pytest.fixture
def detector(activator: Activator, monkeypatch: pytest.MonkeyPatch) -> Detector:
    """With one worker, and shadows that score at once."""
    monkeypatch.setattr(shadows_module, "DELAY_SECONDS", 0.0)
    return Detector(activator._registry, Plan("balanced", DEFAULT_OPTIONS), queue=8)


def judge_all(detector: Detector) -> list[tuple[str, str]]:
    """Version and channel that answer each of the images."""
    found = [detector.detect(image, FAR) for image in IMAGES]
    return [(one.model.spec.version, one.channel) for one in found]


def test_share_of_a_canary_is_that_of_all_digests() -> None:
    """The same image always gets the same version, and a larger share takes nobody back to the older one."""
    model = None  # not looked at
    main, canary = (Choice(Served(model, Release(v, ""), 0, Usage()), v, None) for v in "12")  # type: ignore[arg-type]
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000)]
    before: set[str] = set()
    for share in (0.01, 0.05, 0.5, 0.99):
        chosen = {digest for digest in digests if Route(main, canary, share).pick(digest) is canary}
        assert abs(len(chosen) / len(digests) - share) < 0.01
        assert before <= chosen
        before = chosen


def test_canary_answers_some_images_and_the_same_ones_each_time(activator: Activator, detector: Detector) -> None:
    """Each answer says by which channel it came; without a canary all are of the stable version."""
    assert set(judge_all(detector)) == {("1", "stable")}

    activator.activate("tiny", "2", CANARY, 50.0)

    answers = judge_all(detector)
    assert set(answers) == {("1", "stable"), ("2", "canary")}
    assert judge_all(detector) == answers
    activator.promote("tiny")
    assert set(judge_all(detector)) == {("2", "stable")}


def test_request_can_name_a_version_or_a_label(activator: Activator, detector: Detector) -> None:
    """Then it is that one, whatever the image; a shadow cannot be asked."""
    activator.activate("tiny", "2", CANARY, 50.0)
    activator.activate("tiny", "3", SHADOW)

    for wanted, version, channel in (
        ("1", "1", "stable"),
        ("stable", "1", "stable"),
        ("2", "2", "canary"),
        ("canary", "2", "canary"),
    ):
        for image in (BRIGHT, DARK):
            answer = detector.detect(image, FAR, model_version=wanted)
            assert (answer.model.spec.version, answer.channel) == (version, channel)
    for wanted in ("3", "shadow"):
        with pytest.raises(ModelNotFoundError):
            detector.detect(BRIGHT, FAR, model_version=wanted)
    activator.unload("tiny")
    with pytest.raises(ModelNotFoundError):
        detector.detect(BRIGHT, FAR, model_version="canary")


@pytest.mark.parametrize(("version", "changes"), [("2", 0), ("3", 1)])
def test_shadow_is_compared_with_what_was_answered(
    version: str, changes: int, activator: Activator, detector: Detector
) -> None:
    """Labels, probabilities and times; also by a model that takes images of another size."""
    activator.activate("tiny", version, SHADOW)
    (shadow,) = detector.registry.shadows
    stable, report = detector.registry.get(), detector.shadows.report_on(shadow)
    differences = []
    for number, image in enumerate((BRIGHT, DARK), 1):
        answer = detector.detect(image, FAR)
        assert (answer.model.spec.version, answer.channel) == ("1", "stable")
        alone = Detector(detector.registry, detector.plan, queue=1).detect_here(
            image, FAR, route=Route(Choice(shadow, "", None))
        )
        differences.append(abs(alone.probabilities[1] - answer.probabilities[1]))
        wait_until(lambda expected=number: report.images == expected)  # type: ignore[misc]

    assert stable.spec.threshold == 0.05
    assert report.mean_difference == pytest.approx(np.mean(differences), abs=1e-6)
    assert report.largest_difference == pytest.approx(np.max(differences), abs=1e-6)
    assert (report.agreement, report.changes.total()) == (1 - changes / 2, changes)
    assert report.median_ms > 0
    assert not changes or dict(report.changes) == {("stroke", "normal"): 1}


def test_shadow_that_knows_kinds_is_compared_by_all_of_them(
    activator: Activator, detector: Detector, tmp_path: Path
) -> None:
    """Its probability is that of both kinds together, and a kind is another label than stroke."""
    spec = replace(THREE, version="4")
    write_model(tmp_path, spec)
    activator.activate("tiny", "4", SHADOW)
    (shadow,) = detector.registry.shadows
    report = detector.shadows.report_on(shadow)

    answer = detector.detect(DARK, FAR)
    wait_until(lambda: report.images == 1)

    alone = shadow.model.run(load_pixels(DARK, shadow.model.input_format).array[np.newaxis])[0]
    assert report.mean_difference == pytest.approx(float(alone[1]) + float(alone[2]) - answer.positive_probability)
    assert dict(report.changes) == {("normal", "ischaemic"): 1}


def test_shadow_that_fails_disturbs_nobody(
    activator: Activator, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted, and the next image is scored."""
    activator.activate("tiny", "2", SHADOW)
    (shadow,) = detector.registry.shadows
    report, run = detector.shadows.report_on(shadow), OnnxModel.score

    def fail(model: OnnxModel, pixels: np.ndarray, *, busy: bool = False) -> Scores:
        if model is shadow.model:
            return Scores(np.full((1, 2), np.nan, np.float32), np.zeros(1, np.float32))
        return run(model, pixels, busy=busy)

    with monkeypatch.context() as patch:
        patch.setattr(OnnxModel, "score", fail)
        assert detector.detect(BRIGHT, FAR).label == "stroke"
        wait_until(lambda: report.failed == 1)
    detector.detect(BRIGHT, FAR)
    wait_until(lambda: report.images == 1)


def test_shadow_is_dropped_under_load(
    activator: Activator, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When others wait, or when it is slower than what comes; what it holds is bounded."""
    activator.activate("tiny", "2", SHADOW)
    (shadow,) = detector.registry.shadows
    report, run, release = detector.shadows.report_on(shadow), OnnxModel.score, threading.Event()

    def wait(model: OnnxModel, pixels: np.ndarray, *, busy: bool = False) -> Scores:
        if model is shadow.model:
            assert release.wait(60)
        return run(model, pixels, busy=busy)

    monkeypatch.setattr(OnnxModel, "score", wait)
    for image in IMAGES:
        detector.detect(image, FAR)
    release.set()
    wait_until(lambda: report.images + report.dropped == len(IMAGES))

    assert shadows_module.MOST_WAITING <= report.images <= shadows_module.MOST_WAITING + 1
    monkeypatch.setattr(detector.shadows, "_is_busy", lambda: True)
    detector.detect(BRIGHT, FAR)
    assert report.images + report.dropped == len(IMAGES) + 1


def test_shadow_has_a_low_priority_and_no_other_thread(activator: Activator, detector: Detector) -> None:
    """The thread that asks it is the one that computes."""
    threads = set(os.listdir("/proc/self/task"))
    activator.activate("tiny", "2", SHADOW)
    assert set(os.listdir("/proc/self/task")) <= threads
    (shadow,) = detector.registry.shadows
    detector.detect(BRIGHT, FAR)
    wait_until(lambda: detector.shadows.report_on(shadow).images == 1)

    (thread,) = [one for one in threading.enumerate() if one.name == "shadow" and str(one.native_id) not in threads]
    assert thread.native_id is not None
    assert os.getpriority(os.PRIO_PROCESS, thread.native_id) == LOW_PRIORITY


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[admin_pb2_grpc.AdminStub]:
    """An administrator of a server on a socket in ``tmp_path``."""
    address = f"unix:{tmp_path / 'socket'}"
    with grpc.insecure_channel(f"unix:{tmp_path / 'admin' / name_socket(address)}") as channel:
        yield admin_pb2_grpc.AdminStub(channel)


def test_trials_of_a_real_server(stub: admin_pb2_grpc.AdminStub, tmp_path: Path) -> None:
    """Answers on the wire, metrics, and the report by which a hospital decides."""
    models, port = tmp_path / "models", find_free_port()
    add_version(models, "0", 0.03)
    add_version(models, "1", 0.04)
    address = f"unix:{tmp_path / 'socket'}"
    flags = ["--model", "tiny", "--host", address, "--admin", str(tmp_path / "admin"), "--metrics-port", str(port)]
    with run_server(models, *flags) as server:
        add_version(models, "2", 0.05)
        add_version(models, "3", 0.06)
        assert operate(tmp_path / "admin", "activate", "tiny", "3", "--shadow", "--server", address)[0] == 0
        request = admin_pb2.ActivateRequest(name="tiny", version="2", channel=admin_pb2.CANARY, percent=50)
        list(stub.Activate(request, timeout=60))
        with server.stub() as raw, StrokeClient(server.address) as client:
            answers = [raw.Predict(stroke_pb2.PredictRequest(image=image), timeout=10) for image in IMAGES]
            assert {(one.model_version, one.channel) for one in answers} == {("1", "stable"), ("2", "canary")}
            assert client.predict(BRIGHT, version="canary").version == "2"
            streamed = [one.version for one in client.predict_many(IMAGES)]  # type: ignore[union-attr]
            assert streamed == [one.model_version for one in answers]

        def read_report() -> tuple[int, int]:
            (model,) = stub.GetStatus(admin_pb2.GetStatusRequest(), timeout=10).models
            return model.shadow.images, model.shadow.images + model.shadow.dropped

        stable = [one.channel for one in answers].count("stable")
        wait_until(lambda: read_report()[1] == 2 * stable)
        (model,) = read_status(tmp_path / "admin")["models"]
        page = scrape(port)

    assert model["shadow"]["images"] > 0
    assert 0 < model["shadow"]["mean_difference"] <= model["shadow"]["largest_difference"]
    shown = {one["version"]: one for one in model["versions"]}
    assert {version: one["channel"] for version, one in shown.items()} == {
        "3": "shadow",
        "2": "canary",
        "1": "stable",
        "0": "",
    }
    assert shown["1"]["images"] == 2 * stable
    assert sum(one["share"] for one in shown.values()) == pytest.approx(1)
    assert page.get("stroke_model_info", version="2", channel="canary") == 1
    assert page.get("stroke_model_changes_total", action="activate", result="ok") == 2
    assert page.get("stroke_shadow_images_total", version="3") == 2 * stable
    assert page.get("stroke_shadow_mean_difference", version="3") == pytest.approx(model["shadow"]["mean_difference"])
