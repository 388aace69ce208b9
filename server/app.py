"""The server's life: bind, load, verify, serve, drain. The one place where the parts are put together."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from proto import stroke_pb2, stroke_pb2_grpc
from server.config import ServerConfig
from server.detector import Detector
from server.errors import ModelFileError
from server.interceptors import CallInterceptor
from server.registry import ModelRegistry
from server.service import StrokeServicer

logger = logging.getLogger(__name__)

SERVICE_NAME = stroke_pb2.DESCRIPTOR.services_by_name["StrokeService"].full_name
HEALTH_NAMES = ("", SERVICE_NAME)
TRANSPORT_SLACK = 64 * 1024
DRAIN_POLL_SECONDS = 0.05
DRAIN_QUIET_SECONDS = 0.2
"""How long no call may be open before the server is taken as drained: covers calls on their way to a handler."""
OTHER_CALLS = 4
"""Handler threads for GetModel and ListModels beside those that hold images."""

EXIT_CANNOT_SERVE = 1


class HealthServicer(health.HealthServicer):  # type: ignore[misc]  # grpcio has no types
    """Health with threads of its own, so that it answers while every other handler is busy."""

    def __init__(self) -> None:
        pool = ThreadPoolExecutor(2, thread_name_prefix="health")
        super().__init__(experimental_thread_pool=pool)
        type(self).Check.experimental_thread_pool = pool  # type: ignore[attr-defined]  # read by grpc from the function
        self.set_all(health_pb2.HealthCheckResponse.NOT_SERVING)  # it starts as SERVING otherwise

    def Check(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> object:  # noqa: N802
        return super().Check(request, context)

    def set_all(self, status: int) -> None:
        """Sets the status of the server and of its service."""
        for name in HEALTH_NAMES:
            self.set(name, status)


class Application:
    """One server. ``run`` blocks until it is stopped."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._stopping = threading.Event()
        self._stop_now = threading.Event()
        self._registry = ModelRegistry()
        self._health = HealthServicer()
        self._calls = CallInterceptor(prefix=f"/{SERVICE_NAME}/")
        self._server = self._build_server()

    def _build_server(self) -> grpc.Server:
        config, workers = self._config, self._config.worker_count
        handlers = workers + config.queue + config.streams + OTHER_CALLS
        server = grpc.server(
            ThreadPoolExecutor(handlers, thread_name_prefix="handler"),
            interceptors=[self._calls],
            options=[
                # On by default, and then a second server on the same port silently takes half of the calls.
                ("grpc.so_reuseport", 0),
                # Twice the image limit: what is a little too large gets our own reason, what is much too large never
                # gets into memory.
                ("grpc.max_receive_message_length", 2 * config.max_image_bytes + TRANSPORT_SLACK),
            ],
        )
        detector = Detector(self._registry, workers=workers, queue=config.queue, limits=config.image_limits)
        servicer = StrokeServicer(
            detector,
            workers=workers,
            streams=config.streams,
            stream_idle_seconds=config.stream_idle_seconds,
            max_wait_seconds=config.max_wait_seconds,
            stopping=self._stopping,
        )
        stroke_pb2_grpc.add_StrokeServiceServicer_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        return server

    def run(self) -> int:
        """Serves until ``stop``. Returns the process's exit code; an error has been printed when it is not 0."""
        config = self._config
        try:
            port = self._server.add_insecure_port(f"{config.host}:{config.port}")
        except RuntimeError:
            return fail(
                f"cannot listen on {config.host}:{config.port}: the port is taken or the address is not this "
                "machine's; choose another with --port (0 takes a free one) or --host"
            )
        self._server.start()
        try:
            # One thread a run: the workers are the parallelism, and two levels of threads would fight for processors.
            self._registry.load(config.models, config.model, threads=1)
        except ModelFileError as error:
            self._server.stop(None)
            return fail(f"{error.message} [{error.reason}]")
        if not self._stopping.is_set():
            self._health.set_all(health_pb2.HealthCheckResponse.SERVING)
            print(f"serving {self._describe_models()} on {config.host}:{port}", flush=True)
        self._stopping.wait()
        return self._drain()

    def _describe_models(self) -> str:
        return ", ".join(f"{m.spec.name} {m.spec.version} (sha256 {m.digest[:12]}…)" for m in self._registry)

    def _drain(self) -> int:
        """Refuses what is new, finishes what is in flight, and closes."""
        logger.info("stopping: %d calls are open", self._calls.open_calls)
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(self._config.drain_seconds)
        # Open health watches would hold the stop for its whole grace, so it is cut short once our own calls are done.
        quiet_since = time.monotonic()
        while not stopped.wait(DRAIN_POLL_SECONDS) and not self._stop_now.is_set():
            if self._calls.open_calls:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since >= DRAIN_QUIET_SECONDS:
                break
        unfinished = self._calls.open_calls
        self._server.stop(None).wait()
        logger.info("stopped: %d calls were cut off", unfinished)
        return 0

    def stop(self, signal_number: int = 0, frame: FrameType | None = None) -> None:
        """Starts to drain; called again, stops at once. Usable as a signal handler."""
        if self._stopping.is_set():
            self._stop_now.set()
        self._stopping.set()


def fail(message: str) -> int:
    """Prints one line on standard error and returns the exit code."""
    print(f"server: error: {message}", file=sys.stderr, flush=True)
    return EXIT_CANNOT_SERVE


def serve(config: ServerConfig) -> int:
    """Runs a server in this process until SIGTERM or SIGINT. Returns its exit code."""
    application = Application(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, application.stop)
    return application.run()
