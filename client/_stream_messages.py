"""How the images of ``predict_many`` travel: several to a message, or one, for servers that know no better."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from proto import stroke_pb2

from ._channel import SERVICE
from ._exchange import ImageRequest


@dataclass(frozen=True)
class MessageForm:
    """A method for streams, and what its messages hold."""

    method: str
    """Name in ``stroke.v1.StrokeService``."""

    most_images: int
    most_bytes: int
    """Of all images in a message; a single image may have more."""

    pack: Callable[[Sequence[ImageRequest]], bytes]
    """Returns the message that carries these images, serialised."""

    unpack: Callable[[bytes], Sequence[stroke_pb2.PredictStreamResponse]]
    """Returns the answers in a serialised message, in the order of their images.

    Raises:
        google.protobuf.message.DecodeError: it is no such message.
    """

    def open_rpc(self, channel: Any, messages: Iterable[Sequence[ImageRequest]] | None, **options: Any) -> Any:
        """Starts a call on a channel of gRPC, whose messages are images and answers.

        Args:
            channel: of either kind.
            messages: what to send; None: it is written to the call.
            options: as gRPC's call takes them.
        """
        call = channel.stream_stream(
            f"/{SERVICE}/{self.method}", request_serializer=self.pack, response_deserializer=self.unpack
        )
        return call(messages, **options)

    def split(self, images: Iterable[ImageRequest]) -> Iterator[list[ImageRequest]]:
        """Yields the images of one message after the other."""
        message: list[ImageRequest] = []
        size = 0
        for image in images:
            size += len(image.data)
            if message and (len(message) == self.most_images or size > self.most_bytes):
                yield message
                message, size = [], len(image.data)
            message.append(image)
        if message:
            yield message


def _pack_batch(images: Sequence[ImageRequest]) -> bytes:
    # Messages one after the other are one message with the repeated fields of all (protobuf's encoding, "Last One
    # Wins"). Serialised in one go, large images are copied again and again: 0.18 ms for one of 100 kB instead of 0.02.
    return b"".join(_pack_alone(image) for image in images)


def _pack_alone(image: ImageRequest) -> bytes:
    batch = stroke_pb2.PredictBatchesRequest()
    batch.requests.add(**image.to_fields())  # made in place: a finished request would be copied
    data: bytes = batch.SerializeToString()
    return data


def _unpack_batch(data: bytes) -> Sequence[stroke_pb2.PredictStreamResponse]:
    answers: Sequence[stroke_pb2.PredictStreamResponse] = stroke_pb2.PredictBatchesResponse.FromString(data).responses
    return answers


def _unpack_alone(data: bytes) -> Sequence[stroke_pb2.PredictStreamResponse]:
    return (stroke_pb2.PredictStreamResponse.FromString(data),)


BATCHES = MessageForm("PredictBatches", 16, 1 << 20, _pack_batch, _unpack_batch)
"""A message costs either side about as much whatever it holds: an image of 100 kB costs the client 0.5 ms of CPU by
itself and 0.3 ms among others (docs/performance.md). Larger images gain little, and are more to send again when a
connection breaks."""

SINGLES = MessageForm("PredictStream", 1, 0, lambda images: images[0].to_proto().SerializeToString(), _unpack_alone)
