"""How the images of ``predict_many`` travel: several to a message, or one, for servers that know no better."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from client._exchange import ImageRequest
from proto import stroke_pb2


@dataclass(frozen=True)
class MessageForm:
    """A method for streams, and what its messages hold."""

    method: str
    """Name in ``stroke.v1.StrokeService``."""

    most_images: int
    most_bytes: int
    """Of all images in a message; a single image may have more."""

    pack: Callable[[Sequence[ImageRequest]], Any]
    """Makes the message that carries these images."""

    unpack: Callable[[Any], Sequence[stroke_pb2.PredictStreamResponse]]
    """Returns the answers in a message, in the order of their images."""

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


def _pack_batch(images: Sequence[ImageRequest]) -> stroke_pb2.PredictBatchesRequest:
    batch = stroke_pb2.PredictBatchesRequest()
    for image in images:
        batch.requests.add(**image.to_fields())  # made in place: a finished message would be copied
    return batch


BATCHES = MessageForm("PredictBatches", 16, 1 << 20, _pack_batch, lambda message: message.responses)
"""A message costs both sides about as much whatever it holds: 0.3 to 0.5 ms with gRPC in Python, where an image takes
4 ms to judge (docs/performance.md). Large images gain little, and are more to send again when a connection breaks."""

SINGLES = MessageForm("PredictStream", 1, 0, lambda images: images[0].to_proto(), lambda message: (message,))
