"""``POST /predict`` and ``/predict/batch`` as callers of HTTP see them: answers, options, refusals, traces."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client import StrokeClient
from tests.audit_logs import read_log
from tests.fakes import encode, make_slice, sha256_hex, wait_until, with_version, write_model
from tests.scraping import find_free_port, scrape
from tests.test_server_preprocess import REFUSED
from tests.web_calls import Answer, WebServer, serve_web

BRIGHT, DARK = encode(make_slice(200)), encode(make_slice(40))
JPEG = encode(make_slice(200), "JPEG")
WRONG = "BATCH_SIZE_INVALID"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server of two versions of a model."""
    root = tmp_path_factory.mktemp("models")
    write_model(root)
    write_model(root, with_version("2"))
    with serve_web(root, tmp_path_factory.mktemp("web"), model="tiny/1,tiny/2") as server:
        yield server


def test_answer_is_the_papers_and_ours(web: WebServer) -> None:
    """``class`` and ``confidence`` as the paper's service had them; beside them all that the gRPC answer has."""
    answer = web.post_form("/predict", ("file", BRIGHT), ("id", "case-1"))

    found = answer.json
    assert answer.status == 200
    assert (found["class"], found["status"], found["id"]) == ("stroke", "ANALYSED", "case-1")
    assert found["confidence"] == found["scores"]["stroke"] == found["positive_probability"] > 0.9
    assert sum(found["scores"].values()) == pytest.approx(1)
    assert (found["model"], found["version"], found["threshold"]) == ("tiny", "1", 0.05)
    assert found["image_sha256"] == hashlib.sha256(BRIGHT).hexdigest()
    assert min(found["timings"].values()) >= 0
    assert found["warnings"] == found["reasons"] == []


@pytest.mark.parametrize("image", [BRIGHT, JPEG], ids=["PNG", "JPEG"])
@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/octet-stream", "IMAGE/PNG; q=1", "form"])
def test_same_bytes_are_judged_as_by_grpc(web: WebServer, kind: str, image: bytes) -> None:
    """Whatever they are called, and however they come: what a file is, its bytes say."""
    with StrokeClient(web.socket) as client:
        expected = client.predict(image)

    form = [("file", image)]
    answer = web.post_form("/predict", *form) if kind == "form" else web.post_image(image, content_type=kind)
    found = answer.json

    assert found["class"] == expected.label
    assert found["scores"] == {name: pytest.approx(value, abs=1e-7) for name, value in expected.scores.items()}
    assert (found["digest"], found["image_sha256"]) == (expected.digest, expected.image_sha256)


def test_image_that_is_not_analysed_has_neither_class_nor_confidence(tiny_models: Path, tmp_path: Path) -> None:
    """The reasons say why; the scores are there, as in gRPC's answer."""
    from dataclasses import replace

    from tests.fakes import SPEC

    write_model(tmp_path / "models", replace(SPEC, checks="head-ct"))
    with serve_web(tmp_path / "models", tmp_path) as web:
        found = web.post_image(encode(make_slice(0) * 0)).json

    assert (found["class"], found["confidence"], found["status"]) == (None, None, "NOT_ANALYSED")
    assert [reason["reason"] for reason in found["reasons"]] == ["IMAGE_BLANK"]


@pytest.mark.parametrize("name", REFUSED)
def test_every_refusal_has_its_reason(web: WebServer, name: str) -> None:
    """Too large is 413, no image of ours 415, one that cannot be judged 422; the sentence is gRPC's."""
    make, reason = REFUSED[name]
    answer = web.post_form("/predict", ("file", make()))

    expected = {"IMAGE_TOO_LARGE": 413, "IMAGE_UNDECODABLE": 415}.get(reason, 422)
    assert answer.outcome == (expected, reason)
    assert answer.json["detail"].endswith(".")
    assert "retry-after" not in answer.headers


OPTIONS: dict[str, tuple[dict[str, str], tuple[int, str]]] = {
    "version": ({"model": "tiny", "version": "2"}, (200, "stroke")),
    "digest": ({"image_sha256": sha256_hex(BRIGHT)}, (200, "stroke")),
    "digest in capitals": ({"image_sha256": sha256_hex(BRIGHT).upper()}, (200, "stroke")),
    "all empty": ({"model": "", "version": "", "image_sha256": "", "id": ""}, (200, "stroke")),
    "other bytes": ({"image_sha256": "0" * 64}, (422, "IMAGE_ALTERED")),
    "no digest": ({"image_sha256": "xyz"}, (400, "IMAGE_SHA256_INVALID")),
    "no such model": ({"model": "other"}, (404, "MODEL_NOT_FOUND")),
    "no such version": ({"version": "9"}, (404, "MODEL_NOT_FOUND")),
    "two lines": ({"id": "two\nlines"}, (400, "ID_INVALID")),
    "long id": ({"id": "x" * 129}, (400, "ID_INVALID")),
    "misspelt": ({"modell": "tiny"}, (400, "OPTION_INVALID")),
    "no text": ({"id": "\x00"}, (400, "ID_INVALID")),
}


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.parametrize("place", ["query", "form"])
def test_options_are_fields_or_parts_of_the_query(web: WebServer, place: str, case: str) -> None:
    """The same either way; one that there is not is refused rather than ignored."""
    options, outcome = OPTIONS[case]

    assert ask(web, place, options).outcome == outcome


def ask(web: WebServer, place: str, options: dict[str, str]) -> Answer:
    """Sends an image with options in one of two places."""
    from urllib.parse import urlencode

    if place == "query":
        return web.post_image(BRIGHT, f"?{urlencode(options)}")
    return web.post_form("/predict", ("file", BRIGHT), *options.items())


def test_option_that_is_given_twice_is_refused(web: WebServer) -> None:
    """It would depend on the reader which one counts."""
    answers = [
        web.post_image(BRIGHT, "?id=a&id=b"),
        web.post_form("/predict", ("file", BRIGHT), ("id", "a"), ("id", "b")),
        web.post_form("/predict?id=a", ("file", BRIGHT), ("id", "b")),
        web.post_form("/predict/batch?id=a", ("file", BRIGHT), ("id", "b")),
    ]

    assert [answer.outcome for answer in answers] == [(400, "OPTION_INVALID")] * 4


def test_caller_finds_its_id_in_every_answer(web: WebServer) -> None:
    """Also where nothing of the body has been read; without one the server makes one, each time another."""
    refused = [
        web.post_image(b"no image", "?id=mine"),
        web.post_image(BRIGHT, "?id=mine", content_type="image/tiff"),
        web.ask("GET", "/models/none?id=mine"),
    ]
    made = [web.post_image(DARK).json["id"] for _ in range(2)]

    assert [answer.json["id"] for answer in refused] == ["mine"] * 3
    assert made[0]
    assert made[0] != made[1]


def test_several_images_are_answered_in_their_order(web: WebServer) -> None:
    """What cannot be judged has its problem in its place, as the answer to it alone would be."""
    answer = web.post_form("/predict/batch", ("file", BRIGHT), ("file", b"no image"), ("file", DARK), ("id", "study"))

    first, second, third = answer.json["results"]
    assert (answer.status, answer.json["id"]) == (200, "study")
    assert [one["id"] for one in (first, second["error"], third)] == ["study-1", "study-2", "study-3"]
    assert (first["class"], third["class"]) == ("stroke", "normal")
    alone = web.post_image(b"no image").json
    assert second["error"] | {"id": ""} == alone | {"id": ""}


@pytest.mark.parametrize(("number", "reason"), [(0, WRONG), (1, ""), (32, ""), (33, WRONG), (99, WRONG)])
def test_batch_has_1_to_32_images(web: WebServer, number: int, reason: str) -> None:
    """All of one model if that is asked for."""
    answer = web.post_form("/predict/batch?version=2", *[("file", BRIGHT)] * number, ("model", "tiny"))

    if reason:
        assert answer.outcome == (400, reason)
    else:
        assert [one["version"] for one in answer.json["results"]] == ["2"] * number


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"image_sha256": "0" * 64}, "OPTION_INVALID"),
        ({"id": "x" * 126}, "ID_INVALID"),
        ({"id": "two\nlines"}, "ID_INVALID"),
    ],
)
def test_batch_refuses_options_that_mean_nothing_for_several(
    web: WebServer, options: dict[str, str], reason: str
) -> None:
    """A digest is of one image, and a number has to fit behind the id."""
    assert web.post_form("/predict/batch", ("file", BRIGHT), *options.items()).outcome == (400, reason)
    assert web.post_form("/predict/batch?id=" + "x" * 125, ("file", BRIGHT)).status == 200


def test_log_has_id_and_trace(web: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    """A line for a call, and one for each image of several; a traceparent that is none is left out."""
    caplog.set_level(logging.INFO, "server.core.outcomes")
    web.post_image(BRIGHT, "?id=one", traceparent=TRACE)
    web.post_form("/predict/batch", ("file", BRIGHT), ("file", b"x"), ("id", "two"), traceparent="forged\tfield=1")
    web.ask("GET", "/health/ready")
    web.ask("GET", "/nothing")

    lines = [record.getMessage() for record in caplog.records if record.name == "server.core.outcomes"]
    assert [line.partition(" code=")[0] for line in sorted(lines)] == [
        "POST /predict id=one",
        "POST /predict/batch id=two",
        "POST /predict/batch image id=two-1",
        "POST /predict/batch image id=two-2",
    ]
    assert [line for line in lines if TRACE in line] == [line for line in lines if "id=one" in line]
    assert not any("forged" in line for line in lines)


def test_audit_and_metrics_count_as_for_grpc(tiny_models: Path, tmp_path: Path) -> None:
    """One line and one count for each image, under the name of the method; health and what is not served: none."""
    metrics = find_free_port()
    settings: dict[str, Any] = {"audit": tmp_path / "audit", "audit_hash": "plain", "metrics_port": metrics}
    with serve_web(tiny_models, tmp_path, **settings) as web:
        with StrokeClient(web.socket) as client:
            client.predict(BRIGHT, request_id="by-grpc")
        web.post_image(BRIGHT, "?id=by-http")
        web.post_image(b"x", "?id=refused")
        web.post_form("/predict/batch", ("file", DARK), ("id", "batch"))
        web.ask("GET", "/models")
        web.ask("GET", "/health/live")
        web.ask("GET", "/nothing")
        wait_until(lambda: scrape(metrics).get("stroke_requests_total", method="POST /predict/batch") >= 1)
        page = scrape(metrics)

    lines = [line for line in read_log(tmp_path / "audit") if line["event"] == "image"]
    assert {(line["id"], line["method"]) for line in lines} == {
        ("by-grpc", "Predict"),
        ("by-http", "POST /predict"),
        ("refused", "POST /predict"),
        ("batch-1", "POST /predict/batch"),
    }
    by_id = {line["id"]: line for line in lines}
    assert by_id["by-grpc"].keys() == by_id["by-http"].keys()
    assert by_id["by-http"]["image_sha256"] == sha256_hex(BRIGHT) == by_id["by-grpc"]["image_sha256"]
    assert page.get("stroke_requests_total", method="POST /predict", code="OK") == 1
    assert page.get("stroke_requests_total", method="POST /predict") == 2
    assert page.get("stroke_requests_total", method="GET /models") == 1
    methods = {sample.labels["method"] for sample in page.samples if sample.name == "stroke_requests_total"}
    assert not any("health" in name or "nothing" in name for name in methods)


def test_paper_clients_in_python(web: WebServer) -> None:
    """``requests`` as in the paper's example, and a session that uses its connection again."""
    requests = pytest.importorskip("requests")
    with requests.Session() as session:
        session.trust_env = False
        answers = [
            session.post(f"http://127.0.0.1:{web.port}/predict", files={"file": ("scan.png", BRIGHT, "image/png")})
            for _ in range(2)
        ]

    assert [answer.json()["class"] for answer in answers] == ["stroke"] * 2


def test_image_as_text_is_no_image(web: WebServer) -> None:
    """Base64 is a common mistake; what comes back says what is accepted."""
    answer = web.post_form("/predict", ("file", base64.b64encode(BRIGHT)))

    assert answer.outcome == (415, "IMAGE_UNDECODABLE")
    assert "PNG, JPEG and DICOM" in answer.json["detail"]
