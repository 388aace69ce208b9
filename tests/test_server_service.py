"""The API on the wire, against a real server process with a raw stub."""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from proto import __version__, stroke_pb2_grpc
from proto import stroke_pb2 as pb
from server.machine.processors import count_processors
from tests.fakes import (
    SIDE,
    SPEC,
    ServerProcess,
    encode,
    make_slice,
    run_server,
    wait_until,
    with_version,
    write_model,
)
from tests.test_server_preprocess import REFUSED

BRIGHT, DARK = encode(make_slice(200)), encode(make_slice(40))
TIMEOUT = 60


@pytest.fixture
def stub(tiny_server: ServerProcess) -> Iterator[stroke_pb2_grpc.StrokeServiceStub]:
    with tiny_server.stub() as stub:
        yield stub


def reason_of(error: grpc.RpcError) -> str:
    return dict(error.trailing_metadata())["stroke-reason"]


def test_answer_has_every_field(stub: stroke_pb2_grpc.StrokeServiceStub) -> None:
    """All that the proto promises to be always present is present."""
    answer = stub.Predict(pb.PredictRequest(image=BRIGHT, id="case-1"), timeout=TIMEOUT)

    assert answer.id == "case-1"
    assert answer.label == "stroke"
    assert answer.confidence == answer.scores[1].probability > 0.9
    assert [score.label for score in answer.scores] == ["normal", "stroke"]
    assert sum(score.probability for score in answer.scores) == pytest.approx(1)
    assert answer.threshold == 0.05
    assert (answer.model_name, answer.model_version) == ("tiny", "1")
    assert len(answer.model_digest) == 64
    assert answer.image_sha256 == hashlib.sha256(BRIGHT).hexdigest()
    assert answer.timings.decode_ms > 0
    assert answer.timings.inference_ms > 0
    assert not answer.warnings


def test_server_makes_an_id_where_there_is_none(stub: stroke_pb2_grpc.StrokeServiceStub) -> None:
    """Every answer can be found in the log."""
    first, second = (stub.Predict(pb.PredictRequest(image=DARK), timeout=TIMEOUT).id for _ in range(2))

    assert first
    assert first != second


def test_warnings_reach_the_caller(stub: stroke_pb2_grpc.StrokeServiceStub) -> None:
    """A blank slice is answered, with a warning."""
    answer = stub.Predict(pb.PredictRequest(image=encode(make_slice(0)[:1].repeat(96, 0) * 0)), timeout=TIMEOUT)

    assert [warning.reason for warning in answer.warnings] == ["IMAGE_BLANK"]


@pytest.mark.parametrize("name", REFUSED)
def test_every_refusal_is_invalid_argument_with_its_reason(stub: stroke_pb2_grpc.StrokeServiceStub, name: str) -> None:
    """No odd image becomes UNKNOWN or INTERNAL."""
    make, reason = REFUSED[name]

    with pytest.raises(grpc.RpcError) as refusal:
        stub.Predict(pb.PredictRequest(image=make()), timeout=TIMEOUT)

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(refusal.value) == reason
    assert refusal.value.details().endswith(".")


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        ({"image_sha256": "0" * 64}, grpc.StatusCode.DATA_LOSS, "IMAGE_ALTERED"),
        ({"image_sha256": "xyz"}, grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_SHA256_INVALID"),
        ({"model_name": "other"}, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        ({"model_version": "9"}, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        ({"id": "two\nlines"}, grpc.StatusCode.INVALID_ARGUMENT, "ID_INVALID"),
        ({"id": "x" * 129}, grpc.StatusCode.INVALID_ARGUMENT, "ID_INVALID"),
    ],
)
def test_request_at_fault_has_its_code_and_reason(
    stub: stroke_pb2_grpc.StrokeServiceStub, change: dict[str, str], code: grpc.StatusCode, reason: str
) -> None:
    """Code for machines to retry by, reason for machines to read."""
    with pytest.raises(grpc.RpcError) as refusal:
        stub.Predict(pb.PredictRequest(image=BRIGHT, **change), timeout=TIMEOUT)

    assert (refusal.value.code(), reason_of(refusal.value)) == (code, reason)


def test_correct_digest_is_accepted(stub: stroke_pb2_grpc.StrokeServiceStub) -> None:
    """The check passes where nothing happened to the bytes."""
    digest = hashlib.sha256(BRIGHT).hexdigest()

    assert stub.Predict(pb.PredictRequest(image=BRIGHT, image_sha256=digest), timeout=TIMEOUT).label == "stroke"


@pytest.mark.parametrize("mebibytes", [9, 17, 23])
def test_too_large_image_has_its_reason(stub: stroke_pb2_grpc.StrokeServiceStub, mebibytes: int) -> None:
    """Up to three times the limit, which leaves room for what people send by mistake."""
    with pytest.raises(grpc.RpcError) as refusal:
        stub.Predict(pb.PredictRequest(image=bytes(mebibytes << 20)), timeout=TIMEOUT)

    assert (refusal.value.code(), reason_of(refusal.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_TOO_LARGE")


def test_message_above_the_transport_limit_is_refused(stub: stroke_pb2_grpc.StrokeServiceStub) -> None:
    """What is far too large never gets into memory."""
    with pytest.raises(grpc.RpcError) as refusal:
        stub.Predict(pb.PredictRequest(image=bytes(25 << 20)), timeout=TIMEOUT)

    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_stream_answers_in_order_and_survives_bad_images(stub: stroke_pb2_grpc.StrokeServiceStub) -> None:
    """One unusable image is an answer, not the end."""
    images = [BRIGHT, b"garbage", DARK, b"", BRIGHT] * 10
    requests = (pb.PredictRequest(image=image, id=str(index)) for index, image in enumerate(images))

    answers = list(stub.PredictStream(requests, timeout=TIMEOUT))

    assert [(a.response.id or a.error.id) for a in answers] == [str(index) for index in range(50)]
    outcomes = [a.response.label or (a.error.code, a.error.reason) for a in answers[:5]]
    assert outcomes == ["stroke", (3, "IMAGE_UNDECODABLE"), "normal", (3, "IMAGE_EMPTY"), "stroke"]
    assert answers[1].error.message


def test_stream_answers_before_the_next_request_arrives(stub: stroke_pb2_grpc.StrokeServiceStub) -> None:
    """A caller may wait for each answer before it sends on."""
    outbox: queue.Queue[pb.PredictRequest | None] = queue.Queue()
    answers = stub.PredictStream(iter(outbox.get, None), timeout=TIMEOUT)

    for index in range(3):
        outbox.put(pb.PredictRequest(image=BRIGHT, id=str(index)))
        assert next(answers).response.id == str(index)
    outbox.put(None)

    assert list(answers) == []


def test_stream_mixes_models_and_reports_unknown_ones(tmp_path: Path) -> None:
    """Each request of a stream chooses for itself."""
    for version in ("1", "2"):
        write_model(tmp_path, with_version(version))
    with run_server(tmp_path, "--model", "tiny/1,tiny/2") as server, server.stub() as stub:
        requests = [pb.PredictRequest(image=DARK, model_version=version) for version in ("2", "9", "")]
        answers = list(stub.PredictStream(iter(requests), timeout=TIMEOUT))
        models = stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT).models

    assert [a.response.model_version or a.error.reason for a in answers] == ["2", "MODEL_NOT_FOUND", "1"]
    assert [(m.version, m.is_default) for m in models] == [("1", True), ("2", False)]


def test_silent_stream_is_ended(tiny_models: Path) -> None:
    """A caller who sends nothing does not hold a place for ever."""
    with run_server(tiny_models, "--stream-idle-seconds", "0.3") as server, server.stub() as stub:
        never: queue.Queue[pb.PredictRequest | None] = queue.Queue()
        with pytest.raises(grpc.RpcError) as end:
            list(stub.PredictStream(iter(never.get, None), timeout=TIMEOUT))
        never.put(None)

    assert (end.value.code(), reason_of(end.value)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "STREAM_IDLE")


def test_streams_are_bounded_and_places_come_back(tiny_models: Path) -> None:
    """The bound is a clear refusal; a cancelled stream frees its place."""
    with run_server(tiny_models, "--streams", "1") as server, server.stub() as stub:
        outbox: queue.Queue[pb.PredictRequest | None] = queue.Queue()
        first = stub.PredictStream(iter(outbox.get, None), timeout=TIMEOUT)
        outbox.put(pb.PredictRequest(image=DARK))
        next(first)
        with pytest.raises(grpc.RpcError) as refusal:
            list(stub.PredictStream(iter([pb.PredictRequest(image=DARK)]), timeout=TIMEOUT))
        assert reason_of(refusal.value) == "TOO_MANY_STREAMS"

        first.cancel()
        outbox.put(None)
        codes = []

        def ask_again() -> bool:
            second = stub.PredictStream(iter([pb.PredictRequest(image=DARK)]), timeout=TIMEOUT)
            with suppress(grpc.RpcError):
                list(second)
            codes.append(second.code())
            return codes[-1] is grpc.StatusCode.OK

        wait_until(ask_again)

    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_stream_whose_caller_does_not_read_is_ended(tiny_models: Path) -> None:
    """Answers that nobody takes do not hold a place for ever."""
    flags = ("--streams", "1", "--stream-idle-seconds", "0.5")
    small_window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 16384)]
    with (
        run_server(tiny_models, *flags) as server,
        server.stub() as stub,
        grpc.insecure_channel(server.address, options=small_window) as channel,
    ):
        # The raw call takes no answer before it is asked for one, and so fills the connection's window.
        stuck = stroke_pb2_grpc.StrokeServiceStub(channel)
        unread = stuck.PredictStream(iter([pb.PredictRequest(image=DARK, id="x" * 128)] * 2000), timeout=TIMEOUT)
        next(unread)  # now it holds the only place

        def is_answered() -> bool:
            call = stub.PredictStream(iter([pb.PredictRequest(image=DARK)]), timeout=TIMEOUT)
            with suppress(grpc.RpcError):
                list(call)
            return call.code() is grpc.StatusCode.OK

        assert not is_answered()
        wait_until(is_answered, timeout=TIMEOUT - 5)
        with pytest.raises(grpc.RpcError) as end:
            list(unread)  # it reads on at last

    assert end.value.code() is grpc.StatusCode.CANCELLED


def test_malformed_message_is_the_callers_fault(tiny_server: ServerProcess) -> None:
    """Garbage instead of a message has a reason too, on both kinds of call, and no traceback in the log."""
    with grpc.insecure_channel(tiny_server.address) as channel:
        for call in (
            lambda: channel.unary_unary("/stroke.v1.StrokeService/Predict")(b"\xff\xff", timeout=TIMEOUT),
            lambda: list(
                channel.stream_stream("/stroke.v1.StrokeService/PredictStream")(iter([b"\xff\xff"]), timeout=TIMEOUT)
            ),
        ):
            with pytest.raises(grpc.RpcError) as refusal:
                call()
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert reason_of(refusal.value) == "REQUEST_MALFORMED"
    assert not any("Traceback" in line for line in tiny_server.log)


def test_model_describes_itself(stub: stroke_pb2_grpc.StrokeServiceStub) -> None:
    """GetModel carries the spec and the input size."""
    model = stub.GetModel(pb.GetModelRequest(), timeout=TIMEOUT)

    assert (model.name, model.version, model.is_default) == ("tiny", "1", True)
    assert (list(model.labels), model.positive_label, model.threshold) == (["normal", "stroke"], "stroke", 0.05)
    assert (model.input_height, model.input_width, model.input_channels) == (SIDE, SIDE, 3)
    assert "Not a medical device" in model.intended_use
    assert (model.precision, model.runtime, model.profile) == ("fp32", "onnxruntime", "balanced")
    assert (model.threads, model.busy_threads, model.workers) == (count_processors(), 1, count_processors())
    assert model.runtime_version
    assert model.server_version == __version__
    assert stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT).models == [model]


def test_model_card_comes_from_get_model_alone(tmp_path: Path) -> None:
    """The card in the file is answered as it is, and a list of models stays small."""
    card = "# Model card\n\nKein Medizinprodukt: für Ärztinnen und Ärzte nicht geprüft.\n"
    write_model(tmp_path, replace(SPEC, model_card=card))

    with run_server(tmp_path) as server, server.stub() as stub:
        model = stub.GetModel(pb.GetModelRequest(), timeout=TIMEOUT)
        (listed,) = stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT).models

    assert model.model_card == card
    assert listed.model_card == ""
    model.ClearField("model_card")
    assert listed == model


def test_health_is_serving_for_server_and_service(tiny_server: ServerProcess) -> None:
    """Standard health checks work, and an unknown service is NOT_FOUND."""
    with grpc.insecure_channel(tiny_server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "stroke.v1.StrokeService"):
            status = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT).status
            assert status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=TIMEOUT)

    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_log_has_a_line_for_each_image_of_a_stream(tiny_server: ServerProcess) -> None:
    """The id of an answer leads to its line, whichever method was used."""
    before = len(tiny_server.log)
    with tiny_server.stub() as stub:
        requests = [pb.PredictRequest(image=image, id=name) for name, image in (("one", BRIGHT), ("two", b"garbage"))]
        list(stub.PredictStream(iter(requests), timeout=TIMEOUT))
    wait_until(lambda: any("PredictStream id=" in line for line in tiny_server.log[before:]))

    (one,) = [line for line in tiny_server.log if "id=one " in line]
    (two,) = [line for line in tiny_server.log if "id=two " in line]
    (stream,) = [line for line in tiny_server.log[before:] if "PredictStream id=" in line]
    assert "code=OK" in one
    assert "code=INVALID_ARGUMENT reason=IMAGE_UNDECODABLE" in two
    assert "code=OK" in stream


def test_debug_log_holds_nothing_of_an_image(tiny_models: Path) -> None:
    """At no level do names in EXIF tags reach the log."""
    exif = Image.Exif()
    exif[0x010E] = "Jane Doe 1950"
    with run_server(tiny_models, "--log-level", "debug") as server, server.stub() as stub:
        image = encode(make_slice(), "JPEG", exif=exif)
        stub.Predict(pb.PredictRequest(image=image, id="with-exif"), timeout=TIMEOUT)
        wait_until(lambda: any("id=with-exif" in line for line in server.log))

    assert not any("Jane" in line for line in server.log)


def test_log_has_one_line_a_call_and_no_image(tiny_server: ServerProcess) -> None:
    """Id, code and time; never what was in the image."""
    with tiny_server.stub() as stub:
        stub.Predict(pb.PredictRequest(image=BRIGHT, id="log-me"), timeout=TIMEOUT)
        with pytest.raises(grpc.RpcError):
            stub.Predict(pb.PredictRequest(image=b"Jane Doe 1950", id="log-me-too"), timeout=TIMEOUT)
        stub.Predict(pb.PredictRequest(image=BRIGHT, id="last"), timeout=TIMEOUT)

    wait_until(lambda: any("id=last " in line for line in tiny_server.log))
    lines = [line for line in tiny_server.log if "id=log-me" in line]
    assert len(lines) == 2
    assert "code=OK" in lines[0]
    assert "code=INVALID_ARGUMENT reason=IMAGE_UNDECODABLE" in lines[1]
    assert not any("Jane" in line for line in tiny_server.log)
