"""Calls of the Open Inference Protocol without anybody's client, so that tests see what is on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from bench.neighbours import find_program
from proto import inference_pb2 as pb

SERVICE = "inference.GRPCInferenceService"
Tensor = pb.ModelInferRequest.InferInputTensor


def make_raw(images: Iterable[bytes]) -> bytes:
    """A raw BYTES tensor."""
    return b"".join(len(image).to_bytes(4, "little") + image for image in images)


def ask(*images: bytes, is_raw: bool = True, outputs: Sequence[str] = (), **fields: Any) -> pb.ModelInferRequest:
    """A request to judge encoded images."""
    tensor = Tensor(name="image", datatype="BYTES", shape=[len(images)])
    if not is_raw:
        tensor.contents.bytes_contents.extend(images)
    return pb.ModelInferRequest(
        inputs=[tensor],
        raw_input_contents=[make_raw(images)] if is_raw else [],
        outputs=[{"name": name} for name in outputs],
        **fields,
    )


class Caller:
    """Calls a server's methods by their names."""

    def __init__(self, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._channel = channel
        self._metadata = metadata

    def call(self, method: str, request: Any, **options: Any) -> Any:
        """The answer of a method with one request."""
        return self._channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=find_answer(method).FromString,
        )(request, timeout=20, metadata=self._metadata, **options)

    def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """Judges images."""
        return self.call("ModelInfer", request)

    def stream(self, messages: Iterable[bytes]) -> Iterator[pb.ModelStreamInferResponse]:
        """The answers to encoded requests."""
        return self._channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            request_serializer=None,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )(iter(messages), timeout=20, metadata=self._metadata)


def find_answer(method: str) -> Any:
    """The class of a method's answers."""
    return getattr(pb, f"{method}Response")


@contextmanager
def calling(address: str, token: str | None = None) -> Iterator[Caller]:
    """A caller of a server."""
    options = [("grpc.enable_retries", 0), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        yield Caller(channel, (("authorization", f"Bearer {token}"),) if token else ())


def texts(response: pb.ModelInferResponse, name: str) -> list[bytes]:
    """The elements of a BYTES output that is in contents."""
    (output,) = [output for output in response.outputs if output.name == name]
    return list(output.contents.bytes_contents)


def reason_of(error: grpc.RpcError) -> str:
    """The machine-readable reason of a failed call."""
    return str(dict(error.trailing_metadata())["stroke-reason"])  # type: ignore[attr-defined]


def require_program(neighbour: str, program: str = "python") -> Path:
    """A program of a neighbour's environment; without it the test is skipped, which says what installs it."""
    try:
        return find_program(neighbour, program)
    except FileNotFoundError as error:
        pytest.skip(str(error))
