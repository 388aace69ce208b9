"""A server that judges nothing: what is left is the client's own cost. Runs in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from bench.processes import ROOT
from proto import stroke_pb2, stroke_pb2_grpc
from server.flags import LineParser
from server.process.children import start

LABELS = ("normal", "stroke")


class NoopServicer(stroke_pb2_grpc.StrokeServiceServicer):  # type: ignore[misc]  # generated code has no types
    """Answers every image at once, and as completely as a real server, so that the client's checks pass."""

    def Predict(self, request: stroke_pb2.PredictRequest, context: grpc.ServicerContext) -> stroke_pb2.PredictResponse:
        return answer(request)

    def PredictStream(
        self, requests: Iterator[stroke_pb2.PredictRequest], context: grpc.ServicerContext
    ) -> Iterator[stroke_pb2.PredictStreamResponse]:
        for request in requests:
            yield stroke_pb2.PredictStreamResponse(response=answer(request))

    def PredictBatches(
        self, requests: Iterator[stroke_pb2.PredictBatchesRequest], context: grpc.ServicerContext
    ) -> Iterator[stroke_pb2.PredictBatchesResponse]:
        for batch in requests:
            answers = [stroke_pb2.PredictStreamResponse(response=answer(request)) for request in batch.requests]
            yield stroke_pb2.PredictBatchesResponse(responses=answers)


class SinglesServicer(NoopServicer):
    """As a server from before batches: its clients send one image to a message."""

    def PredictBatches(
        self, requests: Iterator[stroke_pb2.PredictBatchesRequest], context: grpc.ServicerContext
    ) -> Iterator[stroke_pb2.PredictBatchesResponse]:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "This server takes single images.")
        return iter(())  # never: abort raises


def answer(request: stroke_pb2.PredictRequest) -> stroke_pb2.PredictResponse:
    """An answer that belongs to the request."""
    return stroke_pb2.PredictResponse(
        id=request.id,
        label=LABELS[0],
        confidence=0.99,
        scores=[
            stroke_pb2.ClassScore(label=label, probability=probability)
            for label, probability in zip(LABELS, (0.99, 0.01), strict=True)
        ],
        threshold=0.05,
        model_name="none",
        model_version="1",
        model_digest="0" * 64,
        image_sha256=request.image_sha256,
    )


@contextmanager
def run_noop_server(*flags: str) -> Iterator[str]:
    """Runs one on a free port, with flags of its command line; yields its address, HOST:PORT."""
    command = [sys.executable, "-m", "bench.serving.noop_server", *flags]
    process = start(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        try:
            address = process.stdout.readline().strip()
            if not address:
                raise SystemExit("bench: the server that judges nothing did not start")
            yield address
        finally:
            process.terminate()
            process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until the process is ended; prints the address first."""
    parser = LineParser("python -m bench.serving.noop_server", (__doc__ or "").splitlines()[0])
    parser.add_argument("--singles", action="store_true", help="take one image to a message only, as older servers do")
    servicer = SinglesServicer() if parser.parse_args(argv).singles else NoopServicer()
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    stroke_pb2_grpc.add_StrokeServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination()
    return 0


if __name__ == "__main__":
    sys.exit(main())
