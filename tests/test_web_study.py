"""``POST /study`` as callers see it: one answer for many files, each judged as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.access import token_of, write_tokens
from tests.audit_logs import read_log
from tests.fakes import encode, sha256_hex, write_model
from tests.fakes import make_slice as make_picture
from tests.studies import SERIES, STUDY, STUDY_SPEC, make_requests, make_series
from tests.web_calls import FORM, Answer, WebServer, make_form, serve_web

BONE = f"{SERIES}.9"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server of a model that judges studies, and of one that does not."""
    root = tmp_path_factory.mktemp("models")
    write_model(root, STUDY_SPEC)
    write_model(root, replace(STUDY_SPEC, name="single", study_top_k=0))
    with serve_web(root, tmp_path_factory.mktemp("web"), model="tiny,single", max_image_bytes=65536) as server:
        yield server


def post_study(web: WebServer, files: list[bytes], *options: tuple[str, str], query: str = "") -> Answer:
    return web.post_form(f"/study{query}", *options, *[("file", file) for file in files])


def test_a_study_has_one_answer(web: WebServer) -> None:
    """With its score, its slices from the feet to the head by their numbers, and the one to look at first."""
    files = make_series(10, [10, 10, 10, 70, 60, 50])
    found = post_study(web, files[::-1], ("id", "study-7")).json

    assert (found["class"], found["status"], found["id"]) == ("stroke", "ANALYSED", "study-7")
    assert [one["id"] for one in found["slices"]] == [str(number) for number in range(10, 0, -1)]
    assert [one["position_mm"] for one in found["slices"]] == [5.0 * number for number in range(10)]
    highest = sorted((one["positive_probability"] for one in found["slices"]), reverse=True)[:3]
    assert found["score"] == pytest.approx(sum(highest) / 3)
    assert (found["top_k"], found["threshold"], found["first_look_id"]) == (3, 0.5, "7")
    assert found["slices"][0]["image_sha256"] == sha256_hex(files[0])
    assert (found["study_instance_uid"], found["series"]["series_instance_uid"]) == (STUDY, SERIES)
    assert (found["series"]["spacing_mm"], found["left_out"], found["failures"]) == (5.0, [], [])


def test_fields_are_those_of_grpc(web: WebServer) -> None:
    """The same study over both: what one says, the other says."""
    import grpc

    from proto import stroke_pb2_grpc

    files = [*make_series(8, [70, 60]), *make_series(2, series=BONE, ConvolutionKernel="H60s"), b"no image"]
    with grpc.insecure_channel(web.socket) as channel:
        message = stroke_pb2_grpc.StrokeServiceStub(channel).PredictStudy(iter(make_requests(files, study_id="x")))
    found = post_study(web, files, ("id", "x")).json

    names = {"label": "class", "model_name": "model", "model_version": "version", "model_digest": "digest"}
    fields = [field.name for field in message.DESCRIPTOR.fields]
    assert set(found) == {names.get(name, name) for name in fields}
    assert found["score"] == message.score
    assert [one["id"] for one in found["slices"]] == [one.id for one in message.slices]
    assert [(one["reason"], one["slices"]) for one in found["left_out"]] == [("BONE_KERNEL", 2)]
    assert [(one["id"], one["error"]["reason"]) for one in found["failures"]] == [
        ("11", message.failures[0].error.reason)
    ]
    assert found["failures"][0]["error"]["status"] == 415


def test_pictures_are_one_series_in_the_order_of_their_ids(web: WebServer) -> None:
    """Their numbers, unless the form calls them something before each; a digest that does not fit is told."""
    dark, bright = encode(make_picture(20)), encode(make_picture(200))
    named: Parts = [("slice_id", "b"), ("file", bright), ("slice_id", "a"), ("file", dark)]
    altered: Parts = [("image_sha256", "0" * 64), ("file", dark)]
    found = web.post_form("/study", *named, *altered).json

    assert [one["id"] for one in found["slices"]] == ["a", "b"]
    assert found["first_look_id"] == "b"
    assert [(one["id"], one["error"]["reason"]) for one in found["failures"]] == [("3", "IMAGE_ALTERED")]
    assert "UNORDERED" in [one["reason"] for one in found["warnings"]]


def test_study_that_cannot_be_judged_has_no_class(web: WebServer) -> None:
    """And says why; it is an answer."""
    found = post_study(web, make_series(3, Modality="MR")).json

    assert (found["status"], found["class"], found["score"], found["first_look_id"]) == (
        "NOT_ANALYSED",
        None,
        None,
        None,
    )
    assert [one["reason"] for one in found["reasons"]] == ["WRONG_MODALITY"]


Parts = list[tuple[str, bytes | str]]
REFUSED: dict[str, tuple[Parts, tuple[int, str]]] = {
    "no file": ([("id", "x")], (400, "REQUEST_MALFORMED")),
    "unknown field": ([("modell", "x"), ("file", b"x")], (400, "OPTION_INVALID")),
    "late field": ([("file", b"x"), ("model", "tiny")], (400, "OPTION_INVALID")),
    "field twice": ([("id", "x"), ("id", "y"), ("file", b"x")], (400, "OPTION_INVALID")),
    "id of a slice twice": ([("slice_id", "x"), ("slice_id", "y"), ("file", b"x")], (400, "OPTION_INVALID")),
    "id that is none": ([("id", "two\nlines"), ("file", b"x")], (400, "ID_INVALID")),
    "no such model": ([("model", "other"), ("file", b"x")], (404, "MODEL_NOT_FOUND")),
    "model for single images": ([("model", "single"), ("file", b"x")], (409, "MODEL_WITHOUT_STUDIES")),
    "large file": ([("file", bytes(300_000))], (413, "MESSAGE_TOO_LARGE")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(web: WebServer, case: str) -> None:
    """Problems as everywhere."""
    parts, outcome = REFUSED[case]

    assert web.post_form("/study", *parts).outcome == outcome


@pytest.mark.parametrize("cut", [10, 200, 5000])
def test_form_that_is_cut_short_is_no_study(web: WebServer, cut: int) -> None:
    """However many of its files had come."""
    body = make_form(*[("file", file) for file in make_series(8)])

    assert web.ask("POST", "/study", body[:-cut], content_type=FORM).outcome == (400, "REQUEST_MALFORMED")


def test_names_of_files_turn_up_nowhere(web: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in the answer nor in the log: they name patients."""
    caplog.set_level("DEBUG")
    body = make_form(*[("file", file) for file in [*make_series(8), b"x"]]).replace(b"scan.png", b"Doe^Jane.dcm")
    answer = web.ask("POST", "/study", body, content_type=FORM)

    assert answer.status == 200
    assert b"Doe" not in answer.body
    assert "Doe" not in caplog.text


def test_a_study_has_bounds(tmp_path: Path) -> None:
    """Of slices and of bytes; what is sure to be too much is refused before any of it."""
    write_model(tmp_path / "models", STUDY_SPEC)
    (tmp_path / "web").mkdir()
    with serve_web(tmp_path / "models", tmp_path / "web", study_slices=8, study_mb=1) as web:
        files = make_series(8)
        assert post_study(web, files).status == 200
        assert post_study(web, [*files, files[0]]).outcome == (413, "STUDY_TOO_LARGE")
        assert post_study(web, [file + bytes(600_000) for file in files[:2]]).outcome == (413, "STUDY_TOO_LARGE")
        with web.dial() as plain:
            head = f"POST /study HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 9999999\r\n\r\n"
            plain.sendall(head.encode())
            assert plain.recv(100).startswith(b"HTTP/1.1 413")


def test_audit_log_has_every_slice(tmp_path: Path) -> None:
    """As for gRPC, under the name of the method."""
    write_model(tmp_path / "models", STUDY_SPEC)
    with serve_web(tmp_path / "models", tmp_path, audit=tmp_path / "audit", audit_hash="plain") as web:
        files = make_series(8)
        post_study(web, files, ("id", "s"))
    lines = [line for line in read_log(tmp_path / "audit") if line.get("method") == "POST /study"]

    assert {line["image_sha256"] for line in lines if "image_sha256" in line} == set(map(sha256_hex, files))


@pytest.mark.parametrize("limit", ["images=2", "bytes=20000", "requests=100"])
def test_limits_of_a_client_slow_its_study_down(tmp_path: Path, limit: str) -> None:
    """Its files wait for their turn, as the images of a stream do; who is not known is refused."""
    write_model(tmp_path / "models", STUDY_SPEC)
    tokens = write_tokens(tmp_path / "tokens", few=limit)
    body = make_form(*[("file", file) for file in make_series(12)])
    with serve_web(tmp_path / "models", tmp_path, tokens=tokens) as web:
        answer = web.ask("POST", "/study", body, content_type=FORM, authorization=f"Bearer {token_of('few')}")
        assert (answer.status, len(answer.json["slices"])) == (200, 12)
        assert web.ask("POST", "/study", body, content_type=FORM).outcome == (401, "TOKEN_MISSING")
