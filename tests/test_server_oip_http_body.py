"""Bodies of the Open Inference Protocol over HTTP: JSON that says one thing, and tensors behind it."""

from __future__ import annotations

import base64
import json
import tracemalloc
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from server.errors import RequestError
from server.oip.http_body import (
    MOST_NESTED,
    MOST_VALUES,
    MOST_VALUES_OF_LARGE,
    check_binary,
    parse_json,
    read_request,
    write_answer,
)
from server.oip.outputs import OutputTensor
from server.oip.request import InferRequest, WantedOutput
from server.oip.tensors import read_images

PNG = b"\x89PNG\r\n\x1a\n and more"
RAW = len(PNG).to_bytes(4, "little") + PNG


def make_body(entry: dict[str, Any], behind: bytes = b"", **rest: Any) -> tuple[bytes, str | None]:
    """A body with one input, and the header's value."""
    text = json.dumps({"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", **entry}], **rest}).encode()
    return text + behind, str(len(text)) if behind else None


def read(body: bytes, header: str | None = None) -> InferRequest:
    return read_request(body, header, model_name="stroke")


def refusal_of(body: bytes, header: str | None = None) -> RequestError:
    with pytest.raises(RequestError) as refusal:
        read_images(read(body, header))
    return refusal.value


def test_binary_tensor_behind_the_json() -> None:
    """As tritonclient sends it: the header says where the JSON ends."""
    body, header = make_body(
        {"parameters": {"binary_data_size": len(RAW)}},
        RAW,
        id="x-1",
        model_name="ignored",
        parameters={"priority": 1, "timeout": 2.5, "note": "text", "list": [1]},
        outputs=[{"name": "label", "parameters": {"binary_data": True}}],
    )

    request = read_request(body, header, model_name="stroke", model_version="2")

    assert read_images(request) == [PNG]
    assert (request.model_name, request.model_version, request.id) == ("stroke", "2", "x-1")
    assert request.parameters == {"priority": 1, "timeout": 2.5, "note": "text"}
    assert request.outputs == [WantedOutput("label", {"binary_data": True})]


def test_strings_of_a_bytes_tensor_are_utf_8() -> None:
    """As the protocol has it, though no image is."""
    body, _ = make_body({"data": ["ä"]})

    assert read_images(read(body)) == ["ä".encode()]


def test_strings_may_be_base64_where_the_tensor_says_so() -> None:
    """For those who have nothing but JSON."""
    body, _ = make_body(
        {"data": [[base64.b64encode(PNG).decode()]], "shape": [1, 1], "parameters": {"content_type": "base64"}}
    )

    assert read_images(read(body)) == [PNG]


@pytest.mark.parametrize("nested", [False, True])
def test_pixels_as_numbers(nested: bool) -> None:
    """Flat or in nested lists."""
    pixels = np.arange(24).reshape(1, 4, 2, 3)
    body, _ = make_body(
        {"datatype": "UINT8", "shape": [1, 4, 2, 3], "data": (pixels if nested else pixels.ravel()).tolist()}
    )

    (image,) = read_images(read(body))

    assert isinstance(image, np.ndarray)
    assert image.dtype == np.uint8
    assert np.array_equal(image, pixels[0])


@pytest.mark.parametrize(
    ("entry", "behind", "expected"),
    [
        ({"shape": [1, 1, 1, 1], "datatype": "UINT8", "data": [256]}, b"", "elements from 0 to 255"),
        ({"shape": [1, 1, 1, 1], "datatype": "UINT8", "data": [-1]}, b"", "elements from 0 to 255"),
        ({"shape": [1, 1, 1, 1], "datatype": "UINT8", "data": [1.0]}, b"", "elements from 0 to 255"),
        ({"shape": [1, 1, 1, 1], "datatype": "UINT8", "data": [True]}, b"", "elements from 0 to 255"),
        ({"shape": [1, 1, 1, 1], "datatype": "UINT8", "data": [[[1], 2]]}, b"", "elements from 0 to 255"),
        ({"data": "text"}, b"", '"data" as a list'),
        ({"data": [1]}, b"", "elements that are strings"),
        ({"data": ["\ud800"]}, b"", "UTF-8, or base64 where content_type says so"),
        ({"data": ["no base64"], "parameters": {"content_type": "base64"}}, b"", "UTF-8, or base64"),
        ({"datatype": "FP32", "data": [0.5]}, b"", "expected datatype BYTES (encoded images) or UINT8 (pixels)"),
        ({"datatype": 3, "data": []}, b"", 'expected a "datatype"'),
        ({}, b"", "expected elements of BYTES; got none"),
        ({"shape": "1", "data": ["x"]}, b"", 'expected a "shape", a list of whole numbers'),
        ({"shape": [1.0], "data": ["x"]}, b"", 'expected a "shape", a list of whole numbers'),
        ({"shape": [10**30], "data": ["x"]}, b"", 'expected a "shape", a list of whole numbers'),
        ({"data": ["x"], "parameters": {"binary_data_size": 4}}, b"1234", '"data" or binary_data_size; got both'),
        ({"parameters": {"binary_data_size": 100}}, RAW, f"100 bytes behind the JSON, as stated; got {len(RAW)}."),
        ({"name": "\ud800"}, b"", "Input '\\ud800': expected only an input 'image'"),
    ],
)
def test_message_names_tensor_and_what_was_expected_and_came(
    entry: dict[str, Any], behind: bytes, expected: str
) -> None:
    """As over gRPC."""
    refusal = refusal_of(*make_body(entry, behind))

    assert refusal.reason == "TENSOR_INVALID"
    assert expected in refusal.message
    refusal.message.encode()


@pytest.mark.parametrize(
    ("body", "header", "expected"),
    [
        (b"", None, "it is not JSON"),
        (b"[]", None, "it is not an object"),
        (b"\xff{}", None, "it is not UTF-8"),
        (b'{"id": NaN}', None, "NaN is not a number"),
        (b'{"id": "a", "id": "b"}', None, "a key is there twice"),
        (b'{"id": 1}', None, '"id" must be a string'),
        (b'{"inputs": {}, "outputs": 1}', None, '"outputs" must be a list of objects'),
        (b'{"inputs": [1]}', None, '"inputs" must be a list of objects'),
        (b'{"inputs": [{"shape": [1]}]}', None, 'a tensor has no "name"'),
        (b'{"parameters": [1]}', None, '"parameters" must be an object'),
        (b"[" * 9_000, None, "it is nested too deeply"),
        (b'{"id":' + b"9" * 5000 + b"}", None, "a number is too large"),
        (b"{}", "3", "must be how many of its 2 bytes are JSON"),
        (b"{}", "-1", "must be how many"),
        (b"{}", "1" * 5000, "must be how many"),
        (b"{}", "\u0661", "must be how many"),
        (b"{}more", "2", "4 bytes behind the JSON are of no input"),
    ],
)
def test_what_is_no_request_is_malformed(body: bytes, header: str | None, expected: str) -> None:
    """The sentence says why."""
    refusal = refusal_of(body, header)

    assert refusal.reason == "REQUEST_MALFORMED"
    assert expected in refusal.message


@pytest.mark.parametrize(
    "text",
    [
        b"[" + b"0," * MOST_VALUES + b"0]",
        b"[" + b"{}," * MOST_NESTED + b"{}]",
        b"[[],[]" * MOST_NESTED,
        b"[" + b",".join([b"1" * 4200] * (MOST_VALUES_OF_LARGE + 50)) + b"]",
    ],
)
def test_document_is_bounded_before_it_is_read(text: bytes) -> None:
    """Some MB of text would be 100 MB of objects, or half a second in which nobody else is served."""
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="too many values"):
            parse_json(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1 << 20


def test_any_bytes_are_a_request_or_refused() -> None:
    """Cut and altered bodies raise nothing else."""
    whole, header = make_body({"parameters": {"binary_data_size": len(RAW)}}, RAW, id="x", outputs=[{"name": "label"}])
    random = np.random.default_rng(7)
    for _ in range(2000):
        altered = bytearray(whole[: random.integers(len(whole) + 1)])
        for _ in range(random.integers(4)):
            if altered:
                altered[random.integers(len(altered))] = random.integers(256)
        with suppress(RequestError):
            read_images(read(bytes(altered), header))


def test_binary_size_is_a_number() -> None:
    """Whatever else it is, it is refused by its name."""
    for size in (-1, 1.5, True, "8"):
        refusal = refusal_of(*make_body({"parameters": {"binary_data_size": size}}, RAW))
        assert refusal.reason == "PARAMETER_INVALID"
        assert "binary_data_size" in refusal.message


TENSORS = [
    OutputTensor("probabilities", "FP32", (2, 2), np.array([0.25, 0.75, 0.5, 0.5], np.float32)),
    OutputTensor("label", "BYTES", (2,), [b"stroke", b""]),
]


def answer(request: InferRequest) -> tuple[dict[str, Any], bytes, dict[str, str]]:
    """The JSON, what is behind it, and the headers."""
    check_binary(request)
    made = write_answer(request, TENSORS, model=("stroke", "1"), parameters={"threshold": 0.125})
    length = len(made.body) if made.json_length is None else made.json_length
    return json.loads(made.body[:length]), made.body[length:], made.headers


def test_answer_is_json_unless_binary_is_wanted() -> None:
    """Numbers and strings in lists."""
    document, behind, headers = answer(InferRequest(id="x-1"))

    assert document == {
        "model_name": "stroke",
        "model_version": "1",
        "id": "x-1",
        "parameters": {"threshold": 0.125},
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [2, 2], "data": [0.25, 0.75, 0.5, 0.5]},
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["stroke", ""]},
        ],
    }
    assert behind == b""
    assert headers == {"content-type": "application/json"}


def test_outputs_are_binary_as_wanted() -> None:
    """All of them, or those that say so; an output's own wish counts more than the request's."""
    document, behind, headers = answer(
        InferRequest(parameters={"binary_data_output": True}, outputs=[WantedOutput("label", {"binary_data": False})])
    )

    assert [one.get("parameters") for one in document["outputs"]] == [{"binary_data_size": 16}, None]
    assert np.array_equal(np.frombuffer(behind, "<f4"), [0.25, 0.75, 0.5, 0.5])
    assert "id" not in document
    assert headers["content-type"] == "application/octet-stream"
    assert int(headers["inference-header-content-length"]) == len(json.dumps(document, separators=(",", ":")))

    document, behind, _ = answer(InferRequest(outputs=[WantedOutput("label", {"binary_data": True})]))

    assert behind == b"\x06\0\0\0stroke\0\0\0\0"
    assert document["outputs"][0]["data"] == [0.25, 0.75, 0.5, 0.5]


def test_form_of_outputs_is_yes_or_no() -> None:
    """Otherwise somebody gets what he cannot read."""
    for request in (
        InferRequest(parameters={"binary_data_output": "yes"}),
        InferRequest(outputs=[WantedOutput("label", {"binary_data": 1})]),
    ):
        with pytest.raises(RequestError, match="expected true or false"):
            check_binary(request)
