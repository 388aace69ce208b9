"""PredictBatches: several images in a message, against a real server process."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import grpc
import pytest

from proto import stroke_pb2 as pb
from proto.stroke_pb2_grpc import StrokeServiceStub
from tests.fakes import ServerProcess, encode, make_slice, wait_until

BRIGHT, DARK = encode(make_slice(200)), encode(make_slice(40))
TIMEOUT = 60


@pytest.fixture
def stub(tiny_server: ServerProcess) -> Iterator[StrokeServiceStub]:
    with tiny_server.stub() as stub:
        yield stub


def make_batch(*images: bytes, first: int = 0) -> pb.PredictBatchesRequest:
    requests = [pb.PredictRequest(image=image, id=str(number)) for number, image in enumerate(images, first)]
    return pb.PredictBatchesRequest(requests=requests)


def test_answers_come_in_the_order_of_the_images(stub: StrokeServiceStub) -> None:
    """Whatever the sizes of the messages; an unusable image is an answer, not the end."""
    images = [BRIGHT, b"garbage", DARK, b"", BRIGHT] * 12
    sizes = [1, 2, 3, 4, 32, 18]
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    batches = [make_batch(*images[end - size : end], first=end - size) for size, end in zip(sizes, ends, strict=True)]

    messages = list(stub.PredictBatches(iter(batches), timeout=TIMEOUT))

    answers = [answer for message in messages for answer in message.responses]
    assert all(message.responses for message in messages)
    assert [(a.response.id or a.error.id) for a in answers] == [str(number) for number in range(60)]
    outcomes = [a.response.label or (a.error.code, a.error.reason) for a in answers[:5]]
    assert outcomes == ["stroke", (3, "IMAGE_UNDECODABLE"), "normal", (3, "IMAGE_EMPTY"), "stroke"]


def test_answers_come_before_the_next_message(stub: StrokeServiceStub) -> None:
    """A caller may wait for them before it sends on."""
    outbox: queue.Queue[pb.PredictBatchesRequest | None] = queue.Queue()
    messages = stub.PredictBatches(iter(outbox.get, None), timeout=TIMEOUT)

    for first in (0, 2, 4):
        outbox.put(make_batch(BRIGHT, DARK, first=first))
        ids: list[str] = []
        while len(ids) < 2:
            ids.extend(answer.response.id for answer in next(messages).responses)
        assert ids == [str(first), str(first + 1)]
    outbox.put(None)

    assert list(messages) == []


@pytest.mark.parametrize("count", [0, 33])
def test_message_of_no_or_too_many_images_ends_the_stream(stub: StrokeServiceStub, count: int) -> None:
    """With its reason, after the answers to the messages before."""
    messages = stub.PredictBatches(iter([make_batch(BRIGHT), make_batch(*[BRIGHT] * count)]), timeout=TIMEOUT)

    assert [answer.response.label for answer in next(messages).responses] == ["stroke"]
    with pytest.raises(grpc.RpcError) as refusal:
        next(messages)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(refusal.value.trailing_metadata())["stroke-reason"] == "BATCH_SIZE_INVALID"
    assert "1 to 32" in refusal.value.details()


def test_malformed_message_is_the_callers_fault(tiny_server: ServerProcess) -> None:
    """Garbage instead of a message has a reason, too."""
    with grpc.insecure_channel(tiny_server.address) as channel:
        call = channel.stream_stream("/stroke.v1.StrokeService/PredictBatches")(iter([b"\xff\xff"]), timeout=TIMEOUT)
        with pytest.raises(grpc.RpcError) as refusal:
            list(call)

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(refusal.value.trailing_metadata())["stroke-reason"] == "REQUEST_MALFORMED"


def test_log_has_a_line_for_each_image(tiny_server: ServerProcess, stub: StrokeServiceStub) -> None:
    """And one for the call."""
    before = len(tiny_server.log)
    list(stub.PredictBatches(iter([make_batch(BRIGHT, b"garbage", first=9001)]), timeout=TIMEOUT))
    texts = ("id=9001 code=OK", "id=9002 code=INVALID_ARGUMENT reason=IMAGE_UNDECODABLE", "PredictBatches id=")

    def count(text: str) -> int:
        return sum(text in line for line in tiny_server.log[before:])

    # Each of them: the line of a call before this one may come after its answer, and is like this call's.
    wait_until(lambda: all(map(count, texts)))

    assert [count(text) for text in texts[:2]] == [1, 1]
