"""A real server that is asked by the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from proto import __version__, stroke_pb2
from proto import inference_pb2 as pb
from tests.access import token_of, write_tokens
from tests.fakes import ServerProcess, encode, make_slice, run_server, wait_until, with_version, write_model
from tests.oip_calls import Caller, Tensor, ask, calling, reason_of, texts
from tests.scraping import find_free_port, scrape

PIXELS = make_slice()
IMAGE = encode(PIXELS)
OTHER = encode(make_slice(200))
NAMES = [
    "probabilities",
    "label",
    "status",
    "reasons",
    "warnings",
    "image_sha256",
    "outlier_score",
    "positive_probability",
]


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with two versions of a model, the first being the default, and reflection."""
    models = tmp_path_factory.mktemp("models")
    for version in ("1", "2"):
        write_model(models, with_version(version))
    with run_server(models, "--model", "tiny/1,tiny/2") as server:
        yield server


@pytest.fixture(scope="module")
def caller(two_versions: ServerProcess) -> Iterator[Caller]:
    """Of that server."""
    with calling(two_versions.address) as connected:
        yield connected


def refusal_of(caller: Caller, request: pb.ModelInferRequest) -> tuple[str, str, str]:
    """Code, reason and sentence."""
    with pytest.raises(grpc.RpcError) as refusal:
        caller.infer(request)
    return refusal.value.code().name, reason_of(refusal.value), refusal.value.details()


def test_answers_are_those_of_the_core(caller: Caller, two_versions: ServerProcess) -> None:
    """The same probabilities, label and digests as by stroke.v1, and what they were made with."""
    with two_versions.stub() as stub:
        expected = stub.Predict(stroke_pb2.PredictRequest(image=IMAGE))

    answer = caller.infer(ask(IMAGE, OTHER, is_raw=False, id="x-1"))

    assert (answer.model_name, answer.model_version, answer.id) == ("tiny", "1", "x-1")
    assert [output.name for output in answer.outputs] == NAMES
    assert [tuple(output.shape) for output in answer.outputs] == [(2, 2)] + 7 * [(2,)]
    scores = [score.probability for score in expected.scores]
    assert list(answer.outputs[0].contents.fp32_contents[:2]) == scores
    assert texts(answer, "label") == [expected.label.encode(), b"stroke"]
    assert texts(answer, "status") == [b"ANALYSED", b"ANALYSED"]
    assert texts(answer, "image_sha256")[0] == expected.image_sha256.encode()
    assert answer.parameters["threshold"].double_param == expected.threshold
    assert answer.parameters["positive_label"].string_param == "stroke"
    assert answer.parameters["model_digest"].string_param == expected.model_digest
    assert answer.parameters["runtime"].string_param == "onnxruntime"


def test_elements_come_back_in_the_form_they_were_sent(caller: Caller) -> None:
    """Raw for raw, contents for contents."""
    by_contents = caller.infer(ask(IMAGE, is_raw=False))
    by_raw = caller.infer(ask(IMAGE))

    assert not by_contents.raw_output_contents
    assert not any(output.HasField("contents") for output in by_raw.outputs)
    probabilities, label, *_ = by_raw.raw_output_contents
    assert np.frombuffer(probabilities, "<f4").tolist() == list(by_contents.outputs[0].contents.fp32_contents)
    assert label == len(texts(by_contents, "label")[0]).to_bytes(4, "little") + texts(by_contents, "label")[0]


def test_outputs_are_those_that_were_asked_for(caller: Caller) -> None:
    """In their order."""
    answer = caller.infer(ask(IMAGE, outputs=["status", "probabilities"]))

    assert [output.name for output in answer.outputs] == ["status", "probabilities"]
    assert len(answer.raw_output_contents) == 2


def test_classes_as_text(caller: Caller) -> None:
    """Triton's classification extension: the most probable first, no more than there are."""
    request = ask(IMAGE, OTHER, is_raw=False)
    request.outputs.add(name="probabilities").parameters["classification"].int64_param = 1
    best = caller.infer(request)
    request.outputs[0].parameters["classification"].int64_param = 9
    every = caller.infer(request)

    assert (best.outputs[0].datatype, list(best.outputs[0].shape)) == ("BYTES", [2, 1])
    assert [text.split(b":", 1)[1] for text in texts(best, "probabilities")] == [b"0:normal", b"1:stroke"]
    assert list(every.outputs[0].shape) == [2, 2]
    values = [float(text.split(b":")[0]) for text in texts(every, "probabilities")]
    assert values[0] > values[1]
    assert values[2] > values[3]
    assert sum(values) == pytest.approx(2)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_judged_as_the_file_of_them(channels: int, caller: Caller) -> None:
    """PNG loses nothing."""
    pixels = np.repeat(PIXELS[np.newaxis, :, :, np.newaxis], channels, axis=3)
    tensor = Tensor(name="image", datatype="UINT8", shape=pixels.shape)
    raw = pb.ModelInferRequest(inputs=[tensor], raw_input_contents=[pixels.tobytes()])
    tensor.contents.uint_contents.extend(pixels.ravel().tolist())
    contents = pb.ModelInferRequest(inputs=[tensor])
    expected = caller.infer(ask(IMAGE)).raw_output_contents[0]

    assert caller.infer(raw).raw_output_contents[0] == expected
    assert caller.infer(contents).outputs[0].contents.fp32_contents == pytest.approx(np.frombuffer(expected, "<f4"))


def test_model_is_chosen_by_name_and_version(caller: Caller) -> None:
    """Without them it is the default one."""
    assert caller.infer(ask(IMAGE)).model_version == "1"
    assert caller.infer(ask(IMAGE, model_name="tiny", model_version="2")).model_version == "2"
    code, reason, message = refusal_of(caller, ask(IMAGE, model_name="tiny", model_version="3"))
    assert (code, reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
    assert "served: tiny 1, tiny 2" in message


def test_image_that_cannot_be_judged_fails_the_request(caller: Caller) -> None:
    """With its own code and reason; which of them it was is in the sentence."""
    assert refusal_of(caller, ask(IMAGE, IMAGE[:-30], b"no image")) == (
        "INVALID_ARGUMENT",
        "IMAGE_TRUNCATED",
        "Element 1 of input 'image' (of 3): " + refusal_of(caller, ask(IMAGE[:-30]))[2],
    )
    assert refusal_of(caller, ask(b"no image"))[1:] == (
        "IMAGE_UNDECODABLE",
        "The file is in no known image format. Only PNG, JPEG and DICOM are accepted.",
    )


def with_parameter(name: str, **value: Any) -> pb.ModelInferRequest:
    return ask(IMAGE, parameters={name: value})


@pytest.mark.parametrize(
    ("request_", "reason", "words"),
    [
        (pb.ModelInferRequest(), "TENSOR_INVALID", "Input 'image': expected it once; got it 0 times."),
        (ask(IMAGE, outputs=["scores"]), "TENSOR_INVALID", "Output 'scores': expected one of probabilities, label"),
        (ask(IMAGE, outputs=["label", "label"]), "TENSOR_INVALID", "Output 'label': expected it once; got it again."),
        (ask(*[IMAGE] * 33), "BATCH_SIZE_INVALID", "expected 1 to 32 images; got shape [33]."),
        (ask(IMAGE, id="ä"), "ID_INVALID", "printable ASCII"),
        (with_parameter("priority", string_param="1"), "PARAMETER_INVALID", "Parameter 'priority': expected a whole"),
        (with_parameter("priority", int64_param=-1), "PARAMETER_INVALID", "got -1."),
        (with_parameter("timeout", double_param=0.5), "PARAMETER_INVALID", "a whole number of microseconds from 0"),
        (with_parameter("timeout", bool_param=True), "PARAMETER_INVALID", "got True."),
    ],
)
def test_what_is_wrong_with_a_request_is_said(
    request_: pb.ModelInferRequest, reason: str, words: str, caller: Caller
) -> None:
    """By name, what was expected, and what came."""
    code, got, message = refusal_of(caller, request_)

    assert (code, got) == ("INVALID_ARGUMENT", reason)
    assert words in message


def test_classes_are_of_probabilities_alone(caller: Caller) -> None:
    """Other outputs have none; and shared memory there is not."""
    request = ask(IMAGE, outputs=["label"])
    request.outputs[0].parameters["classification"].int64_param = 1
    assert refusal_of(caller, request)[1] == "PARAMETER_INVALID"

    request = ask(IMAGE, outputs=["label"])
    request.outputs[0].parameters["shared_memory_region"].string_param = "x"
    assert "Output 'label': expected to be answered; got a name of shared memory." in refusal_of(caller, request)[2]


def test_unknown_parameters_are_ignored(caller: Caller) -> None:
    """As the protocol says; priority and timeout are known."""
    request = with_parameter("sequence_id", int64_param=7)
    request.parameters["priority"].uint64_param = 1
    request.parameters["timeout"].int64_param = 20_000_000

    assert caller.infer(request).outputs


def test_request_waits_no_longer_than_its_timeout(caller: Caller) -> None:
    """A microsecond is over before any worker is free; so it is for several images."""
    for request in (ask(IMAGE), ask(IMAGE, OTHER)):
        request.parameters["timeout"].int64_param = 1
        assert refusal_of(caller, request)[:2] == ("DEADLINE_EXCEEDED", "DEADLINE_IN_QUEUE")


def test_message_of_many_fields_is_refused_before_it_is_taken_apart(caller: Caller) -> None:
    """2 MB of empty inputs would be 80 MB of objects."""
    with pytest.raises(grpc.RpcError) as refusal:
        caller.call("ModelInfer", FakeRequest(b"\x2a\x00" * 1_000_000))

    assert reason_of(refusal.value) == "REQUEST_MALFORMED"


class FakeRequest:
    """Bytes as a message."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802
        return self._data


def test_server_and_models_describe_themselves(caller: Caller) -> None:
    """As clients of Triton read it."""
    server = caller.call("ServerMetadata", pb.ServerMetadataRequest())
    model = caller.call("ModelMetadata", pb.ModelMetadataRequest(name="tiny"))
    config = caller.call("ModelConfig", pb.ModelConfigRequest(name="tiny", version="2")).config
    index = caller.call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True))

    assert (server.name, server.version) == ("strokeserve", __version__)
    assert list(server.extensions) == ["classification", "model_configuration", "schedule_policy"]
    assert (model.name, list(model.versions), model.platform) == ("tiny", ["1", "2"], "onnxruntime_onnx")
    assert [(one.name, one.datatype, list(one.shape)) for one in model.inputs] == [("image", "BYTES", [-1, 1])]
    assert [one.name for one in model.outputs] == NAMES
    assert (model.outputs[0].datatype, list(model.outputs[0].shape)) == ("FP32", [-1, 2])
    assert config.max_batch_size == 32
    assert (config.input[0].name, config.input[0].data_type, list(config.input[0].dims)) == ("image", 13, [1])
    assert (config.backend, config.instance_group[0].kind) == ("onnxruntime", 2)
    assert [(one.name, one.version, one.state) for one in index.models] == [
        ("tiny", "1", "READY"),
        ("tiny", "2", "READY"),
    ]


def test_health(caller: Caller) -> None:
    """A model that there is not is not ready; which is no error."""
    assert caller.call("ServerLive", pb.ServerLiveRequest()).live
    assert caller.call("ServerReady", pb.ServerReadyRequest()).ready
    assert caller.call("ModelReady", pb.ModelReadyRequest(name="tiny", version="2")).ready
    assert not caller.call("ModelReady", pb.ModelReadyRequest(name="tiny", version="3")).ready


def test_small_messages_are_small(caller: Caller) -> None:
    """A name of a megabyte is none."""
    for method, kind in (("ModelReady", pb.ModelReadyRequest), ("ModelMetadata", pb.ModelMetadataRequest)):
        with pytest.raises(grpc.RpcError) as refusal:
            caller.call(method, kind(name="x" * (1 << 20)))
        assert reason_of(refusal.value) == "REQUEST_MALFORMED"


def test_compressed_request_is_read(caller: Caller) -> None:
    """As every message of the server."""
    answer = caller.call("ModelInfer", ask(IMAGE), compression=grpc.Compression.Gzip)

    assert answer.outputs


def test_calls_and_their_images_are_logged(caller: Caller, two_versions: ServerProcess) -> None:
    """Under the caller's id; health checks are not."""
    caller.infer(ask(IMAGE, OTHER, id="logged"))
    caller.call("ServerLive", pb.ServerLiveRequest())

    for words in ("ModelInfer id=logged code=OK", "id=logged/0 code=OK model=tiny/1", "id=logged/1 code=OK"):
        wait_until(lambda words=words: any(words in line for line in two_versions.log))
    assert not any("ServerLive" in line for line in two_versions.log)


def test_stream_answers_in_order_and_outlives_what_fails(caller: Caller) -> None:
    """An image, a request and a message that are none are answered by error_message, each in its place."""
    requests = [ask(IMAGE, id=str(number)) for number in range(8)]
    requests[2] = ask(b"no image", id="2")
    requests[4].parameters["timeout"].int64_param = 1
    requests[5] = ask(IMAGE, id="5", model_name="nobody")
    messages = [request.SerializeToString() for request in requests]
    messages[6] = b"\x0a\x7f"

    answers = list(caller.stream(messages))

    assert [answer.infer_response.id for answer in answers] == ["0", "1", "2", "3", "4", "5", "", "7"]
    failed = {number: answer.error_message for number, answer in enumerate(answers) if answer.error_message}
    assert {number: message.partition(":")[0] for number, message in failed.items()} == {
        2: "IMAGE_UNDECODABLE",
        4: "DEADLINE_IN_QUEUE",
        5: "MODEL_NOT_FOUND",
        6: "REQUEST_MALFORMED",
    }
    assert all(
        len(answer.infer_response.raw_output_contents) == len(NAMES) for answer in answers if not answer.error_message
    )


def test_gate_stands_before_the_protocol_too(tiny_models: Path, tmp_path: Path) -> None:
    """Without a token there is health and nothing else, and with --health token not even that."""
    tokens = write_tokens(tmp_path / "tokens", ward="", reader="roles=read")
    checks = [("ServerLive", pb.ServerLiveRequest()), ("ModelReady", pb.ModelReadyRequest(name="tiny"))]
    with run_server(tiny_models, "--tokens", str(tokens)) as server:
        with calling(server.address) as nobody:
            for method, request in checks:
                nobody.call(method, request)
            assert refusal_of(nobody, ask(IMAGE))[:2] == ("UNAUTHENTICATED", "TOKEN_MISSING")
            with pytest.raises(grpc.RpcError) as refusal:
                list(nobody.stream([ask(IMAGE).SerializeToString()]))
            assert reason_of(refusal.value) == "TOKEN_MISSING"
        with calling(server.address, token_of("reader")) as reader:
            assert reader.call("ModelMetadata", pb.ModelMetadataRequest()).name == "tiny"
            assert refusal_of(reader, ask(IMAGE))[:2] == ("PERMISSION_DENIED", "ROLE_MISSING")
        with calling(server.address, token_of("ward")) as ward:
            assert ward.infer(ask(IMAGE)).outputs
            message = ask(IMAGE, IMAGE).SerializeToString()
            assert [answer.error_message for answer in ward.stream([message, message])] == ["", ""]
    with run_server(tiny_models, "--tokens", str(tokens), "--health", "token") as server:
        with calling(server.address) as nobody:
            for method, request in checks:
                with pytest.raises(grpc.RpcError) as refusal:
                    nobody.call(method, request)
                assert reason_of(refusal.value) == "TOKEN_MISSING"
        with calling(server.address, token_of("reader")) as reader:
            for method, request in checks:
                reader.call(method, request)


def test_images_are_counted_and_audited_as_all_others(tiny_models: Path, tmp_path: Path) -> None:
    """Each of them, by the method's name, and those that were refused."""
    port, log = find_free_port(), tmp_path / "audit.jsonl"
    with run_server(tiny_models, "--metrics-port", str(port), "--audit", str(log)) as server:
        with calling(server.address) as caller:
            caller.infer(ask(IMAGE, OTHER, id="both"))
            refusal_of(caller, ask(b"no image", id="none"))
            list(caller.stream([ask(IMAGE).SerializeToString()]))
        page = scrape(port)
        wait_until(lambda: log.read_text().count('"ModelStreamInfer"') == 1)

    assert page.get("stroke_images_total", method="ModelInfer", code="OK") == 2
    assert page.get("stroke_images_total", method="ModelInfer", reason="IMAGE_UNDECODABLE") == 1
    assert page.get("stroke_requests_total", method="ModelInfer") == 2
    assert page.get("stroke_images_total", method="ModelStreamInfer", code="OK") == 1
    lines = log.read_text()
    assert all(f'"{name}"' in lines for name in ("both/0", "both/1", "none"))
