"""What is counted: every outcome once, whatever transport it came by, in labels that nobody can make many of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from proto import inference_pb2
from proto import stroke_pb2 as pb
from server.config import ServerConfig
from server.core import metric_names as names
from server.core.detector import Detection
from server.core.metric_names import METRICS, MOST_SERIES, PROCESS, SECONDS, render_table
from server.core.metrics import Gauges, Metrics
from server.core.outcomes import Caller, Outcome
from server.images.checks import BLANK, NO_HEAD
from server.metrics.exposition import Exposition
from server.metrics.state import IMAGE_METHODS, State, provide_state
from server.security.bundle import Validity
from server.security.tokens import Entry
from tests.fakes import ROOT, SPEC
from tests.scraping import Page

MODEL: Any = SimpleNamespace(spec=SPEC)
JUDGED = Detection(MODEL, "stroke", 0.75, (0.25, 0.75), "00", 1.5, 2.5, 4.0, (), ())
UNANALYSED = replace(JUDGED, label="", confidence=0.0, reasons=(BLANK, NO_HEAD))
CALL = Outcome(
    method="Predict",
    request_id="id",
    caller=Caller("ipv4:127.0.0.1:1", "ward"),
    started=10.0,
    ended=10.008,
    is_call=True,
    is_image=True,
    detection=JUDGED,
)


def show(*outcomes: Outcome, gauges: Gauges | None = None) -> Page:
    """What Prometheus sees after some outcomes."""
    metrics = Metrics()
    for outcome in outcomes:
        metrics.note(outcome)
    return Page(Exposition(metrics, gauges or Gauges()).render().decode())


def test_judged_call_counts_as_call_image_and_answer() -> None:
    """With the times of its parts in seconds."""
    page = show(CALL, CALL)

    assert page.get("stroke_requests_total", method="Predict", code="OK", reason="") == 2
    assert page.get("stroke_images_total", method="Predict", code="OK", reason="") == 2
    assert page.get("stroke_answers_total", model="tiny", version="1", label="stroke", positive="true") == 2
    for part, seconds in (("duration", 0.008), ("queue", 0.0025), ("decode", 0.0015), ("inference", 0.004)):
        assert page.get(f"stroke_image_{part}_seconds_count") == 2
        assert page.get(f"stroke_image_{part}_seconds_sum") == pytest.approx(2 * seconds)


def test_refused_image_counts_with_its_reason() -> None:
    """It has no answer, and its time stands apart: refusals are quick."""
    page = show(replace(CALL, code="INVALID_ARGUMENT", reason="IMAGE_EMPTY", detection=None))

    assert page.get("stroke_images_total", code="INVALID_ARGUMENT", reason="IMAGE_EMPTY") == 1
    assert page.get("stroke_image_duration_seconds_count", result="refused") == 1
    assert page.get("stroke_image_duration_seconds_count", result="judged") == 0
    assert page.get("stroke_answers_total") == page.get("stroke_image_queue_seconds_count") == 0


def test_image_of_a_stream_is_no_call_and_a_stream_no_image() -> None:
    """So that neither is counted twice."""
    image = replace(CALL, method="PredictStream", is_call=False)
    stream = replace(CALL, method="PredictStream", is_image=False, detection=None)
    page = show(image, image, image, stream)

    assert page.get("stroke_requests_total", method="PredictStream") == 1
    assert page.get("stroke_images_total", method="PredictStream") == 3


def test_image_without_a_label_counts_with_every_reason() -> None:
    """It is no answer, and its probability says nothing."""
    page = show(replace(CALL, detection=UNANALYSED))

    assert page.get("stroke_not_analysed_total", reason="IMAGE_BLANK", model="tiny") == 1
    assert page.get("stroke_not_analysed_total", reason="NO_HEAD", model="tiny") == 1
    assert page.get("stroke_answers_total") == page.get("stroke_positive_probability_count") == 0


def test_probabilities_are_of_the_positive_label() -> None:
    """Whichever was answered; buckets hold what is up to their bound."""
    negative = replace(JUDGED, label="normal", confidence=0.98, probabilities=(0.98, 0.02))
    page = show(CALL, replace(CALL, detection=negative))

    assert page.get("stroke_answers_total", label="normal", positive="false") == 1
    assert page.get("stroke_positive_probability_bucket", le="0.01") == 0
    assert page.get("stroke_positive_probability_bucket", le="0.02") == 1
    assert page.get("stroke_positive_probability_bucket", le="0.7") == 1
    assert page.get("stroke_positive_probability_bucket", le="0.8") == 2
    assert page.get("stroke_positive_probability_bucket", le="+Inf") == 2


def test_labels_are_bounded() -> None:
    """Whoever could make up methods, reasons or models would fill our memory, and Prometheus' too."""
    many = 3 * MOST_SERIES
    outcomes = [
        replace(
            CALL,
            method=f"Method{number}",
            reason=f"REASON_{number}",
            detection=replace(JUDGED, model=SimpleNamespace(spec=replace(SPEC, name=f"model-{number}"))),
        )
        for number in range(many)
    ]
    page = show(*outcomes)

    for name in ("stroke_requests_total", "stroke_images_total", "stroke_answers_total"):
        assert len([sample for sample in page.samples if sample.name == name]) == MOST_SERIES + 1
        assert page.get(name) == many
    assert page.get("stroke_requests_total", method="other", code="other", reason="other") == many - MOST_SERIES
    assert len([s for s in page.samples if s.name == "stroke_positive_probability_count"]) == MOST_SERIES + 1


def test_value_of_a_label_cannot_begin_a_series() -> None:
    """The page stays one, whatever is in it."""
    page = show(replace(CALL, reason='X"} 1\nstroke_serving 1\n# '))

    assert page.get("stroke_serving") == 0
    assert page.get("stroke_requests_total") == 1


def test_gauges_are_asked_when_somebody_looks() -> None:
    """A value, one for each label, or nothing where whoever knows fails; what nobody provides is not there."""
    gauges, backlog = Gauges(), [3.0]
    gauges.provide(names.AUDIT_BACKLOG, lambda: backlog[0])
    gauges.provide(names.CERTIFICATE_EXPIRY, lambda: {("server", "a"): 1.7e9, ("client-ca", "b"): 1.8e9})
    gauges.provide(names.CERTIFICATE_EXPIRY, lambda: {("server", "c"): 1.9e9})
    gauges.provide(names.AUDIT_LOST, lambda: 7)
    gauges.provide(names.ALARM, lambda: 1 / 0)
    assert show(gauges=gauges).get("stroke_audit_backlog_lines") == 3
    backlog[0] = 4.0
    page = show(gauges=gauges)

    assert page.get("stroke_audit_backlog_lines") == 4
    assert page.get("stroke_certificate_expiry_timestamp_seconds", role="client-ca") == 1.8e9
    assert page.get("stroke_certificate_expiry_timestamp_seconds", subject="c") == 1.9e9
    assert page.get("stroke_audit_lines_lost_total") == 7
    assert "stroke_alarm" not in page.text
    assert "stroke_token_expiry_timestamp_seconds" not in page.text


def test_series_of_a_gauge_are_bounded() -> None:
    """As those of a file with ten thousand clients."""
    gauges = Gauges()
    gauges.provide(names.TOKEN_EXPIRY, lambda: {(f"client-{number}",): 1.0 for number in range(10_000)})

    assert show(gauges=gauges).get("stroke_token_expiry_timestamp_seconds") == MOST_SERIES


def test_buckets_fit_what_is_measured() -> None:
    """From 1 ms to 10 s, in order."""
    assert (SECONDS[0], SECONDS[-1]) == (0.001, 10.0)
    assert list(SECONDS) == sorted(set(SECONDS))


def test_names_are_those_that_prometheus_expects() -> None:
    """Units at the end, counters as totals, each name once."""
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name
        assert metric.text
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_process_is_shown_under_the_usual_names() -> None:
    """Memory, open files, start time."""
    page = show()

    assert {sample.name for sample in page.samples} == PROCESS.keys()


def test_page_has_the_table_of_the_code() -> None:
    """docs/metrics.md cannot fall behind."""
    assert render_table() in (ROOT / "docs" / "metrics.md").read_text("utf-8")


def test_faults_are_shown_before_there_are_any() -> None:
    """Of every method that takes images: Prometheus sees the first one only as an increase from 0."""
    metrics = Metrics()
    metrics.expect(IMAGE_METHODS)
    text = Exposition(metrics, Gauges()).render().decode()

    services = [service for file in (pb, inference_pb2) for service in file.DESCRIPTOR.services_by_name.values()]
    methods = [method.name for service in services for method in service.methods]
    assert list(IMAGE_METHODS) == [name for name in methods if name.startswith("Predict") or name.endswith("Infer")]
    for name in IMAGE_METHODS:
        assert f'stroke_images_total{{code="INTERNAL",method="{name}",reason="INTERNAL"}} 0.0' in text


def test_certificates_and_tokens_are_shown_with_their_ends_and_alarms() -> None:
    """Those in use, by what they are for."""
    certificates: Any = SimpleNamespace(
        alarm="renew it",
        describe=lambda: (Validity("server", "brain", (), 0.0, 1.7e9), Validity("client-ca", "site", (), 0.0, 1.8e9)),
    )
    nobody: Any = None
    gauges = Gauges()
    gate: Any = SimpleNamespace(
        needs_person=lambda: True,
        entries=(Entry("ward", "00", expires=date(2027, 12, 31)), Entry("archive", "01")),
    )
    audit: Any = SimpleNamespace(backlog=7, lost=3, needs_person=lambda: True)
    provide_state(gauges, State(ServerConfig(), nobody, nobody, nobody, nobody, certificates, gate, audit, nobody))
    page = show(gauges=gauges)

    assert page.get("stroke_certificate_expiry_timestamp_seconds", role="server", subject="brain") == 1.7e9
    assert page.get("stroke_certificate_expiry_timestamp_seconds", role="client-ca") == 1.8e9
    assert page.get("stroke_alarm", alarm="certificates") == 1
    assert page.get("stroke_alarm", alarm="access") == 1
    assert page.get("stroke_alarm", alarm="audit") == 1
    assert page.get("stroke_audit_backlog_lines") == 7
    assert page.get("stroke_audit_lines_lost_total") == 3
    assert (
        page.get("stroke_token_expiry_timestamp_seconds", client="ward") == datetime(2028, 1, 1, tzinfo=UTC).timestamp()
    )
    assert "archive" not in page.text
    assert "stroke_serving" not in page.text  # nobody knows
