"""Messages are bounded before protobuf sees them."""

from __future__ import annotations

import gzip
import zlib

import pytest

from proto import stroke_pb2 as pb
from server.admission.inbox import inflate
from server.api.messages import split_batch
from server.api.rpc.call import parse
from server.errors import RequestError

LIMIT = 100_000


def reason_of(call: object) -> str:
    with pytest.raises(RequestError) as refusal:
        call()  # type: ignore[operator]
    return refusal.value.reason


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, lambda data: zlib.compress(data, 0)])
def test_compressed_message_is_inflated(compress: object) -> None:
    """gRPC's two compressions; what is not compressed stays as it is."""
    message = pb.PredictRequest(image=b"\x1f\x8b\x78\x9c" * 100, id="x").SerializeToString()

    assert inflate(compress(message), LIMIT) == message  # type: ignore[operator]
    assert inflate(message, LIMIT) is message


def test_bomb_is_refused_before_it_unfolds() -> None:
    """256 MB of zeros in 260 kB."""
    bomb = gzip.compress(bytes(256 << 20), 1)

    assert reason_of(lambda: inflate(bomb, LIMIT)) == "MESSAGE_TOO_LARGE"


@pytest.mark.parametrize("data", [b"\x1f\x8b", b"\x1f\x8b\x08garbage", b"\x78\x9cgarbage"])
def test_broken_compression_is_malformed(data: bytes) -> None:
    """As any other garbage."""
    assert reason_of(lambda: parse(pb.PredictRequest, inflate(data, LIMIT))) == "REQUEST_MALFORMED"


def test_batch_is_split_into_its_requests() -> None:
    """Unknown fields of any type are passed over: they may come from a newer caller."""
    requests = [pb.PredictRequest(image=bytes(300), id=str(number)) for number in range(32)]
    data = pb.PredictBatchesRequest(requests=requests).SerializeToString()
    unknown = b"\x10\x96\x01" + b"\x1d1234" + b"\x2112345678" + b"\x2a\x03abc"

    assert [parse(pb.PredictRequest, part) for part in split_batch(data + unknown)] == requests


def test_number_of_images_is_checked_before_they_are_made() -> None:
    """8 million empty ones are 16 MiB of message and 600 MB of objects."""
    for data in (b"", b"\x0a\x00" * 33, b"\x0a\x00" * 8_000_000, b"\x0a\x00" + b"\x2a\x00" * 1_000_000):
        assert reason_of(lambda data=data: split_batch(data)) == "BATCH_SIZE_INVALID"


@pytest.mark.parametrize(
    "data", [b"\xff", b"\x0a", b"\x0a\x05abc", b"\x0b", b"\x0f\x00", b"\xff" * 20, b"\x0a\xff\xff\xff\xff\x7f"]
)
def test_garbage_is_malformed(data: bytes) -> None:
    """Truncated numbers, lengths beyond the end, groups and unknown wire types."""
    assert reason_of(lambda: split_batch(data)) == "REQUEST_MALFORMED"
