"""How each kind of server is called: a connection is a context manager that gives ``call(image)``.

A call returns when the answer is there and raises when it is none. Packages are imported where they are used, because
each target runs in another environment.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

Call = Callable[[bytes], None]
Connect = Callable[[], AbstractContextManager[Call]]

BOUNDARY = "stroke-bench-boundary"
PNG_HEAD = b"\x89PNG"
# One of gRPC's connections serves all channels of a process that have the same target and options. Clients in other
# rooms do not share one, so each channel here gets its own.
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


@dataclass(frozen=True)
class Access:
    """How a client of this project's server shows who it is."""

    certs: Path | None = None
    """Folder that ``python -m server certs`` has written: mutual TLS as its client. None: plain text."""

    token: Path | None = None
    """File with a token; None: calls carry none."""


NO_ACCESS = Access()


@contextmanager
def connect_stroke(address: str, access: Access = NO_ACCESS) -> Iterator[Call]:
    """This project's server, through its own client library, whose clients have a connection each."""
    from client import StrokeClient, TLSConfig

    tls = token = None
    if (certs := access.certs) is not None:
        tls = TLSConfig(ca=certs / "ca.pem", certificate=certs / "client.pem", key=certs / "client.key")
    if access.token is not None:
        token = access.token.read_text("ascii").strip()
    with StrokeClient(address, timeout=60, tls=tls, token=token) as client:
        client.wait_until_ready()

        def call(image: bytes) -> None:
            client.predict(image)

        yield call


@contextmanager
def connect_http(address: str) -> Iterator[Call]:
    """POST /predict with a multipart file field ``file``."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="scan.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()
    with posting(address) as post:
        yield lambda image: post(f"multipart/form-data; boundary={BOUNDARY}", head + image + tail)


@contextmanager
def connect_http_raw(address: str) -> Iterator[Call]:
    """POST /predict with the image as the body."""
    with posting(address) as post:
        yield lambda image: post("image/png" if image.startswith(PNG_HEAD) else "image/jpeg", image)


@contextmanager
def posting(address: str) -> Iterator[Callable[[str, bytes], None]]:
    """Gives ``post(content_type, body)``, on one connection that is kept open.

    ``http.client`` because it is the cheapest for the processors that the servers share with it.
    """
    connection = http.client.HTTPConnection(address, timeout=60)

    def post(content_type: str, body: bytes) -> None:
        connection.request("POST", "/predict", body, {"Content-Type": content_type})
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"HTTP {response.status}: {answer[:200]!r}")

    try:
        yield post
    finally:
        connection.close()


@contextmanager
def connect_mlserver(address: str) -> Iterator[Call]:
    """The Open Inference Protocol over gRPC, with the stubs that MLServer brings."""
    import grpc
    from mlserver.grpc.dataplane_pb2 import ModelInferRequest
    from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

    with grpc.insecure_channel(address, options=OWN_CONNECTION) as channel:
        stub = GRPCInferenceServiceStub(channel)

        def call(image: bytes) -> None:
            tensor = ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
            tensor.contents.bytes_contents.append(image)
            stub.ModelInfer(ModelInferRequest(model_name="stroke", inputs=[tensor]), timeout=60)

        yield call


TARGETS: dict[str, Callable[[str], AbstractContextManager[Call]]] = {
    "stroke": connect_stroke,
    "http": connect_http,
    "http-raw": connect_http_raw,
    "mlserver": connect_mlserver,
}
