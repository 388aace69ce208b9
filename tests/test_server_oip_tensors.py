"""Requests of the Open Inference Protocol, from bytes to images: nothing that a caller says is believed."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Iterable
from contextlib import suppress

import numpy as np
import pytest

from proto import inference_pb2 as pb
from server.admission.judge import MOST_IMAGES
from server.errors import RequestError
from server.oip.request import InferRequest
from server.oip.tensors import read_images
from server.oip.wire import MOST_FIELDS, read_request

Tensor = pb.ModelInferRequest.InferInputTensor


def refusal_of(call: Callable[[], object]) -> RequestError:
    with pytest.raises(RequestError) as refusal:
        call()
    return refusal.value


def make_raw(images: Iterable[bytes]) -> bytes:
    """A raw BYTES tensor."""
    return b"".join(len(image).to_bytes(4, "little") + image for image in images)


def raw_request(data: bytes, shape: Iterable[int], datatype: str = "BYTES", name: str = "image") -> bytes:
    """One raw tensor, as tritonclient sends it."""
    tensor = Tensor(name=name, datatype=datatype, shape=shape)
    return pb.ModelInferRequest(inputs=[tensor], raw_input_contents=[data]).SerializeToString()


def bytes_request(images: Iterable[bytes], shape: Iterable[int]) -> bytes:
    """One tensor in ``bytes_contents``, as the kserve SDK sends it."""
    tensor = Tensor(name="image", datatype="BYTES", shape=shape, contents={"bytes_contents": images})
    return pb.ModelInferRequest(inputs=[tensor]).SerializeToString()


def pixels_request(values: Iterable[int], shape: Iterable[int]) -> bytes:
    """One tensor in ``uint_contents``."""
    tensor = Tensor(name="image", datatype="UINT8", shape=shape, contents={"uint_contents": values})
    return pb.ModelInferRequest(inputs=[tensor]).SerializeToString()


def images_of(message: bytes) -> list[object]:
    return list(read_images(read_request(message)))


def test_request_is_read_as_protobuf_reads_it() -> None:
    """Every field that is known, and others passed over."""
    message = pb.ModelInferRequest(
        model_name="stroke",
        model_version="2",
        id="x-1",
        parameters={
            "priority": {"uint64_param": 1},
            "timeout": {"int64_param": -5},
            "binary": {"bool_param": True},
            "name": {"string_param": "ä"},
            "ratio": {"double_param": 0.25},
        },
        inputs=[Tensor(name="image", datatype="BYTES", shape=[1, 1], parameters={"a": {"bool_param": False}})],
        outputs=[{"name": "probabilities", "parameters": {"classification": {"int64_param": 2}}}, {"name": "label"}],
        raw_input_contents=[make_raw([b"png"])],
    )
    unknown = b"\x98\x06\x01" + b"\x9d\x061234" + b"\x99\x0612345678" + b"\x9a\x06\x03abc"  # field 99

    request = read_request(message.SerializeToString() + unknown)

    assert (request.model_name, request.model_version, request.id) == ("stroke", "2", "x-1")
    assert request.parameters == {"priority": 1, "timeout": -5, "binary": True, "name": "ä", "ratio": 0.25}
    assert [(one.name, dict(one.parameters)) for one in request.outputs] == [
        ("probabilities", {"classification": 2}),
        ("label", {}),
    ]
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, tensor.shape) == ("image", "BYTES", (1, 1))
    assert tensor.parameters == {"a": False}
    assert request.is_raw


def test_empty_message_is_an_empty_request() -> None:
    """Every field has a default."""
    assert read_request(b"") == InferRequest(inputs=[], outputs=[])


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_encoded_images_in_both_forms(shape: list[int]) -> None:
    """Raw with lengths, and as contents."""
    images = [b"first", b""]

    assert images_of(raw_request(make_raw(images), shape)) == images
    assert images_of(bytes_request(images, shape)) == images


def test_pixels_in_both_forms() -> None:
    """Raw, and as numbers of which those from 128 take two bytes."""
    pixels = np.arange(2 * 4 * 11 * 3, dtype=np.int64).astype(np.uint8).reshape(2, 4, 11, 3)

    for message in (raw_request(pixels.tobytes(), pixels.shape, "UINT8"), pixels_request(pixels.ravel(), pixels.shape)):
        images = images_of(message)
        assert len(images) == 2
        for image, expected in zip(images, pixels, strict=True):
            assert isinstance(image, np.ndarray)
            assert np.array_equal(image, expected)


def test_raw_pixels_are_not_copied() -> None:
    """They are views of the message."""
    message = raw_request(bytes(64 * 64), [1, 64, 64, 1], "UINT8")

    (image,) = images_of(message)

    assert isinstance(image, np.ndarray)
    assert np.shares_memory(image, np.frombuffer(message, np.uint8))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (raw_request(b"", [1], name="input_1"), "Input 'input_1': expected only an input 'image'; got one that is not"),
        (raw_request(b"", [1], name="x" * 500), f"Input '{'x' * 60}...': expected"),
        (raw_request(bytes(4), [1], "FP32"), "expected datatype BYTES (encoded images) or UINT8 (pixels); got 'FP32'"),
        (pb.ModelInferRequest().SerializeToString(), "Input 'image': expected it once; got it 0 times."),
        (raw_request(b"", []), "expected shape [n] or [n, 1]; got shape []"),
        (raw_request(b"", [1, 2]), "got shape [1, 2]"),
        (raw_request(b"", [1] * 300), "got shape [1, 1, 1, 1, 1, 1, 1, 1, ...]"),
        (raw_request(b"", [1, 64, 64], "UINT8"), "expected shape [n, height, width, 1] or [n, height, width, 3]"),
        (raw_request(b"", [1, 64, 64, 2], "UINT8"), "got shape [1, 64, 64, 2]"),
        (raw_request(b"", [1, -64, -64, 1], "UINT8"), "got shape [1, -64, -64, 1]"),
        (raw_request(b"", [1, 0, 64, 1], "UINT8"), "got shape [1, 0, 64, 1]"),
        (raw_request(bytes(9), [1, 3, 3, 3], "UINT8"), "expected 27 elements for shape [1, 3, 3, 3]; got 9."),
        (raw_request(b"1234", [1, 2**62, 2**62, 3], "UINT8"), "elements for shape [1, 46116860184273"),
        (raw_request(b"\x05\0\0\0png", [1]), "expected 5 bytes of element 0, as stated; got 3."),
        (raw_request(b"\xff\xff\xff\xffpng", [1]), "expected 4,294,967,295 bytes of element 0"),
        (raw_request(b"\x05\0", [1]), "expected 4 bytes of length of element 0; got 2."),
        (raw_request(make_raw([b"png"]), [2]), "expected 4 bytes of length of element 1; got 0."),
        (raw_request(make_raw([b"png", b"2"]), [1]), "expected 1 elements for shape [1]; got 5 bytes more."),
        (bytes_request([b"png"], [2]), "expected 2 elements for shape [2]; got 1."),
        (bytes_request([], [1]), "expected elements of BYTES; got none of that type."),
        (pixels_request([1, 256], [1, 1, 2, 1]), "Input 'image': expected elements from 0 to 255; got others."),
        (
            pixels_request(bytes(5_000_000), [1, 5000, 1000, 1]),
            "bytes of uint_contents (raw_input_contents may be longer)",
        ),
        (pixels_request([1], [1, 1, 2, 1]), "expected 2 elements for shape [1, 1, 2, 1]; got 1."),
    ],
)
def test_message_names_tensor_and_what_was_expected_and_came(message: bytes, expected: str) -> None:
    """Whoever reads it knows what to change."""
    refusal = refusal_of(lambda: images_of(message))

    assert refusal.reason == "TENSOR_INVALID"
    assert expected.replace("got 'FP32'", "got datatype 'FP32'") in refusal.message
    assert len(refusal.message) < 400


@pytest.mark.parametrize("number", [0, -1, MOST_IMAGES + 1, 2**62])
def test_number_of_images_is_bounded(number: int) -> None:
    """Before any of them is looked at."""
    for message in (raw_request(b"", [number]), raw_request(b"", [number, 64, 64, 1], "UINT8")):
        refusal = refusal_of(lambda message=message: images_of(message))
        assert refusal.reason == "BATCH_SIZE_INVALID"
        assert "expected 1 to 32 images" in refusal.message
    assert len(images_of(raw_request(make_raw([b"x"] * MOST_IMAGES), [MOST_IMAGES]))) == MOST_IMAGES


def test_elements_come_in_one_way() -> None:
    """Contents beside raw contents, contents of another type, an input twice."""
    tensor = Tensor(name="image", datatype="BYTES", shape=[1], contents={"bytes_contents": [b"png"]})
    both = pb.ModelInferRequest(inputs=[tensor], raw_input_contents=[make_raw([b"png"])])
    twice = pb.ModelInferRequest(inputs=[tensor, tensor])
    uneven = pb.ModelInferRequest(inputs=[Tensor(name="image")], raw_input_contents=[b"", b""])
    other = pb.ModelInferRequest(inputs=[Tensor(name="image", datatype="BYTES", contents={"fp32_contents": [0.5]})])

    for message, expected in [
        (both, "contents and raw_input_contents"),
        (twice, "expected it once; got it 2 times"),
        (uneven, "1 inputs and 2 raw_input_contents"),
        (other, "Input 'image': expected contents of BYTES; got contents of FP32."),
    ]:
        refusal = refusal_of(lambda message=message: images_of(message.SerializeToString()))
        assert refusal.reason == "TENSOR_INVALID"
        assert expected in refusal.message


def test_shared_memory_is_refused() -> None:
    """Its elements are not in the request."""
    parameters = {"shared_memory_region": {"string_param": "/dev/shm/x"}}
    tensor = Tensor(name="image", datatype="BYTES", shape=[1], parameters=parameters)

    refusal = refusal_of(lambda: images_of(pb.ModelInferRequest(inputs=[tensor]).SerializeToString()))

    assert "got a name of shared memory" in refusal.message


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a",  # a length is missing
        b"\x0a\x05ab",  # more is stated than there is
        b"\x0b",  # a group
        b"\x0a\x02\xff\xfe",  # no UTF-8
        b"\x2a\x02\x0a\x05",  # the same within an input
        b"\x38" + b"\xff" * 20,  # a number without an end
        b"\x2a\x00" * (MOST_FIELDS + 1),  # 8 million of them would take 600 MB
        raw_request(b"", [1])[:-1] + b"\x7f",
    ],
)
def test_what_is_no_message_is_malformed(message: bytes) -> None:
    """As any other garbage is."""
    assert refusal_of(lambda: read_request(message)).reason == "REQUEST_MALFORMED"


def test_shape_allocates_nothing() -> None:
    """A terabyte of pixels in words, a kilobyte in fact."""
    message = raw_request(bytes(1000), [32, 2**20, 2**20, 3], "UINT8")
    tracemalloc.start()
    try:
        refusal_of(lambda: images_of(message))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert math.prod([32, 2**20, 2**20, 3]) > 10**13
    assert peak < 1 << 20


def test_any_bytes_are_a_request_or_refused() -> None:
    """Cut and altered messages raise nothing else."""
    whole = bytearray(bytes_request([b"a" * 9, b"b" * 9], [2]) + raw_request(b"x", [1, 1, 1, 1], "UINT8"))
    random = np.random.default_rng(7)
    for _ in range(2000):
        altered = bytearray(whole[: random.integers(len(whole) + 1)])
        for _ in range(random.integers(4)):
            if altered:
                altered[random.integers(len(altered))] = random.integers(256)
        with suppress(RequestError):
            images_of(bytes(altered))
