"""Servers that are only measured: ``python -m bench.onebox.servers KIND``, then flags of the server.

``threads`` and ``aio`` are gRPC's two kinds of server over the very workers, with nothing around them: no bounds, gate,
log or metrics. ``shared`` is the server itself, but on a port that others may share (SO_REUSEPORT).
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc

from proto import stroke_pb2
from server import cli
from server.api.health import HEALTH_SERVICE
from server.api.messages import encode_response
from server.api.service import SERVICE_NAME
from server.config import ServerConfig, read_config
from server.core.detector import Budget, Detector
from server.core.plan import make_plan
from server.core.workers import Job
from server.flags import LineParser
from server.machine.memory import return_freed_memory
from server.machine.processors import count_processors
from server.models.registry import ModelRegistry

SECONDS = 60.0
"""Time that an image has."""

THREADS = 64
"""Of ``grpc.server``: one for each caller, who keeps it until the answer."""

OPTIONS = [("grpc.so_reuseport", 0), ("grpc.http2.bdp_probe", 0)]

HEALTHY = b"\x08\x01"
"""A HealthCheckResponse: SERVING."""


def judge_message(detector: Detector, message: bytes) -> bytes:
    """What a worker does with a message."""
    request = stroke_pb2.PredictRequest.FromString(message)
    found = detector.detect_here(request.image, Budget(SECONDS), image_sha256=request.image_sha256)
    return encode_response(found, request.id)


def judge_and_wait(detector: Detector, message: bytes, context: grpc.ServicerContext) -> bytes:
    """Has a worker judge a message, and waits in this thread."""
    done = threading.Event()
    job = detector.submit(partial(judge_message, detector, message), lambda job: done.set(), seconds=SECONDS)
    done.wait()
    return job.take_result()


async def judge_in_loop(detector: Detector, message: bytes, context: Any) -> bytes:
    """Has a worker judge a message, and waits in the event loop."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def settle(job: Job[bytes]) -> None:
        done.set_result(job.take_result())

    def call_back(job: Job[bytes]) -> None:
        loop.call_soon_threadsafe(settle, job)

    detector.submit(partial(judge_message, detector, message), call_back, seconds=SECONDS)
    return await done


def make_handlers(predict: Callable[[bytes, Any], Any], check: Callable[[bytes, Any], Any]) -> list[Any]:
    """The one method that is measured, and the health check that our client begins with."""
    methods = {(SERVICE_NAME, "Predict"): predict, (HEALTH_SERVICE, "Check"): check}
    return [
        grpc.method_handlers_generic_handler(service, {name: grpc.unary_unary_rpc_method_handler(handle)})
        for (service, name), handle in methods.items()
    ]


def load_detector(config: ServerConfig) -> Detector:
    """The core, as the server makes it."""
    plan = make_plan(config, count_processors())
    registry = ModelRegistry()
    registry.load(config.models, config.model, plan.options)
    return Detector(registry, plan, queue=config.queue)


def serve_threads(detector: Detector) -> None:
    """Runs ``grpc.server``."""
    server = grpc.server(ThreadPoolExecutor(THREADS), options=OPTIONS)
    server.add_generic_rpc_handlers(make_handlers(partial(judge_and_wait, detector), lambda request, context: HEALTHY))
    say_address(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


async def serve_aio(detector: Detector) -> None:
    """Runs ``grpc.aio.server``."""

    async def predict(message: bytes, context: Any) -> bytes:
        return await judge_in_loop(detector, message, context)

    async def check(message: bytes, context: Any) -> bytes:
        return HEALTHY

    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(make_handlers(predict, check))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say_address(port)
    await server.wait_for_termination()


def say_address(port: int) -> None:
    print(f"serving on 127.0.0.1:{port}", flush=True)


def share_port() -> None:
    """Lets servers that this process makes listen where others listen."""
    make = grpc.aio.server

    def make_sharing(*, options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Server:
        return make(options=list({**dict(options), "grpc.so_reuseport": 1}.items()))

    grpc.aio.server = make_sharing


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until the process is ended; a line that ends with the address is printed first."""
    parser = LineParser("python -m bench.onebox.servers", (__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=("threads", "aio", "shared"))
    options, flags = parser.parse_known_args(argv)
    if options.kind == "shared":
        share_port()
        return cli.main(flags)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return_freed_memory(count_processors())
    detector = load_detector(read_config(flags))
    if options.kind == "threads":
        serve_threads(detector)
    else:
        asyncio.run(serve_aio(detector))
    return 0


if __name__ == "__main__":
    sys.exit(main())
