"""The metrics that there are: name, kind, meaning, labels. Page, dashboard and alert rules follow it.

What a label may be is bounded: by the methods, codes, reasons and models of the server, and by ``MOST_SERIES``.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_SERIES = 500
"""Of one metric; what would be another one is counted with all labels ``other``."""

SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PROBABILITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of Prometheus."""

    name: str
    """With its unit, and ``_total`` where it is a counter."""

    kind: str
    """``counter``, ``gauge`` or ``histogram``."""

    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, without infinity."""


STATUS = ("method", "code", "reason")
MODEL = ("model", "version")

REQUESTS = Metric("stroke_requests_total", "counter", "calls that have ended; a stream is one", STATUS)
IMAGES = Metric(
    "stroke_images_total", "counter", "images that were judged (code OK) or refused, with the reason", STATUS
)
ANSWERS = Metric(
    "stroke_answers_total",
    "counter",
    "labels answered; positive: whether it is one of the model's positive labels",
    (*MODEL, "label", "positive"),
)
NOT_ANALYSED = Metric(
    "stroke_not_analysed_total", "counter", "images that got no label (NOT_ANALYSED), by reason", (*MODEL, "reason")
)
STUDIES = Metric(
    "stroke_studies_total",
    "counter",
    "studies that were answered; outcome: positive, negative, or why they were not analysed",
    (*MODEL, "outcome"),
)
PROBABILITY = Metric(
    "stroke_positive_probability",
    "histogram",
    "probability of the positive labels, of images that got a label",
    MODEL,
    PROBABILITIES,
)
DURATION = Metric(
    "stroke_image_duration_seconds",
    "histogram",
    "from an image's arrival to its end; result: judged or refused",
    ("result",),
    SECONDS,
)
QUEUE = Metric(
    "stroke_image_queue_seconds", "histogram", "from a judged image's arrival to its worker", buckets=SECONDS
)
DECODE = Metric("stroke_image_decode_seconds", "histogram", "decoding and resizing a judged image", buckets=SECONDS)
INFERENCE = Metric(
    "stroke_image_inference_seconds", "histogram", "the model's time for a judged image", buckets=SECONDS
)

SERVING = Metric("stroke_serving", "gauge", "1 while health says SERVING")
IN_FLIGHT = Metric("stroke_requests_in_flight", "gauge", "calls that have not ended")
CALLS_FREE = Metric("stroke_call_places_free", "gauge", "calls that may still be opened")
CONNECTIONS = Metric("stroke_connections", "gauge", "connections that are open, those without a call included")
STREAMS = Metric("stroke_streams_open", "gauge", "streams that are open")
STREAMS_FREE = Metric("stroke_stream_places_free", "gauge", "streams that may still be opened (--streams)")
WORKERS = Metric("stroke_workers", "gauge", "images that can be in work at the same time")
WORKERS_FREE = Metric("stroke_workers_free", "gauge", "workers that wait for an image")
QUEUE_DEPTH = Metric("stroke_queue_depth", "gauge", "images that wait for a worker, those of streams included")
QUEUE_PLACES = Metric("stroke_queue_places", "gauge", "images of single calls that may wait (--queue)")
MODEL_INFO = Metric(
    "stroke_model_info",
    "gauge",
    "1 for each model in memory; channel: stable, canary (answers a share), shadow (answers nobody), or empty",
    (*MODEL, "digest", "precision", "runtime", "is_default", "channel"),
)
MODEL_CHANGES = Metric(
    "stroke_model_changes_total",
    "counter",
    "changes of what is served (activate, promote, rollback, unload); result: ok, or why it was refused",
    ("action", "result"),
)
SHADOW_IMAGES = Metric(
    "stroke_shadow_images_total",
    "counter",
    "images for a shadow; result: same or other (label than was answered), dropped (there was other work), or failed",
    (*MODEL, "result"),
)
SHADOW_DIFFERENCE = Metric(
    "stroke_shadow_mean_difference",
    "gauge",
    "mean absolute difference between a shadow's probability of the positive labels and the one that was answered",
    MODEL,
)
SHADOW_MEDIAN = Metric("stroke_shadow_median_seconds", "gauge", "median of a shadow's last runs", MODEL)
SERVER_INFO = Metric("stroke_server_info", "gauge", "1, with the server's version", ("version",))
LOG_DROPPED = Metric("stroke_log_lines_dropped_total", "counter", "lines of the log that nobody took, or the disk not")
LOG_SUPPRESSED = Metric(
    "stroke_log_lines_suppressed_total", "counter", "lines of the log that were counted, not written"
)

CERTIFICATE_EXPIRY = Metric(
    "stroke_certificate_expiry_timestamp_seconds", "gauge", "when a certificate expires", ("role", "subject")
)
TOKEN_EXPIRY = Metric("stroke_token_expiry_timestamp_seconds", "gauge", "when a client's token expires", ("client",))
AUDIT_BACKLOG = Metric("stroke_audit_backlog_lines", "gauge", "lines of the audit log that are not on the disk yet")
AUDIT_LOST = Metric("stroke_audit_lines_lost_total", "counter", "lines of the audit log that could not be written")
ALARM = Metric(
    "stroke_alarm", "gauge", "1 while something needs a person, such as a file that cannot be used", ("alarm",)
)

METRICS = (
    *(REQUESTS, IMAGES, ANSWERS, NOT_ANALYSED, STUDIES, PROBABILITY, DURATION, QUEUE, DECODE, INFERENCE),
    *(SERVING, IN_FLIGHT, CALLS_FREE, CONNECTIONS, STREAMS, STREAMS_FREE),
    *(WORKERS, WORKERS_FREE, QUEUE_DEPTH, QUEUE_PLACES, MODEL_INFO, SERVER_INFO, LOG_DROPPED, LOG_SUPPRESSED),
    *(MODEL_CHANGES, SHADOW_IMAGES, SHADOW_DIFFERENCE, SHADOW_MEDIAN),
    *(CERTIFICATE_EXPIRY, TOKEN_EXPIRY, AUDIT_BACKLOG, AUDIT_LOST, ALARM),
)
"""In the order of the page."""

PROCESS = {
    "process_cpu_seconds_total": "processor time of the server",
    "process_resident_memory_bytes": "memory that it has",
    "process_virtual_memory_bytes": "addresses that it has",
    "process_open_fds": "files and connections that it has open",
    "process_max_fds": "how many of these it may have",
    "process_start_time_seconds": "when it was started, in seconds since 1970",
}
"""Metrics of every process, from the library of Prometheus."""


def render_table() -> str:
    """All metrics as a table in Markdown, for the documentation."""
    rows = ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.text} |")
    rows += [
        f"| `{name}` | {'counter' if name.endswith('_total') else 'gauge'} | | {text} |"
        for name, text in PROCESS.items()
    ]
    return "\n".join(rows)
