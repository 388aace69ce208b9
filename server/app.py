"""The server's life: bind, load, verify, serve, drain. The one place where the parts are put together."""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import grpc
from grpc_health.v1 import health_pb2_grpc

from proto import stroke_pb2, stroke_pb2_grpc
from server.config import ServerConfig
from server.console import PATIENCE_SECONDS, complain, say
from server.detector import Detector
from server.errors import ModelFileError
from server.health import HealthServicer
from server.interceptors import CallInterceptor
from server.listen import ListenError, bind
from server.plan import make_plan
from server.processors import count_processors
from server.registry import ModelRegistry
from server.service import StrokeServicer

logger = logging.getLogger(__name__)

SERVICE_NAME = stroke_pb2.DESCRIPTOR.services_by_name["StrokeService"].full_name
TRANSPORT_SLACK = 64 * 1024
KEEPALIVE_MS = 30_000
CLIENT_PING_MS = 5_000
"""Least time between two pings of a client. Clients ping so that firewalls do not forget their idle connections; gRPC
allows them one in 5 min and ends the connection of those who do it more often (GOAWAY, too_many_pings)."""
STOP_POLL_SECONDS = 0.2
DRAIN_POLL_SECONDS = 0.05
DRAIN_QUIET_SECONDS = 0.5
DRAIN_ACCEPT_SECONDS = 5.0
"""A stop of gRPC cancels calls that are still on their way. So calls are accepted until none has arrived for the quiet
time, at the latest until the accept time is over, while health already sends callers elsewhere."""
OTHER_CALLS = 4
"""Handler threads for GetModel and ListModels beside those that hold images."""

EXIT_CANNOT_SERVE = 1


class Application:
    """One server. ``run`` blocks until it is stopped."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._plan = make_plan(config, count_processors())
        # Not an Event: its lock is not re-entrant, so a signal handler that sets it can meet the main thread inside it.
        self._stop_requests: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._registry = ModelRegistry()
        self._health = HealthServicer(SERVICE_NAME)
        self._calls = CallInterceptor(prefix=f"/{SERVICE_NAME}/")
        self._server = self._build_server()

    def _build_server(self) -> grpc.Server:
        config, plan = self._config, self._plan
        handlers = plan.workers + config.queue + config.streams + OTHER_CALLS
        server = grpc.server(
            ThreadPoolExecutor(handlers, thread_name_prefix="handler"),
            interceptors=[self._calls],
            options=[
                # On by default, and then a second server on the same port silently takes half of the calls.
                ("grpc.so_reuseport", 0),
                # Twice the image limit: what is a little too large gets our own reason, what is much too large never
                # gets into memory.
                ("grpc.max_receive_message_length", 2 * config.max_image_bytes + TRANSPORT_SLACK),
                # gRPC waits for a call's message in a handler thread. So callers who have vanished are found out by
                # pings, and no connection may occupy more than half of the threads.
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                # Two names for one time: gRPC 1.85 never acts on the first, older ones know no other.
                ("grpc.keepalive_timeout_ms", KEEPALIVE_MS // 3),
                ("grpc.http2.ping_timeout_ms", KEEPALIVE_MS // 3),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", CLIENT_PING_MS),
                ("grpc.max_concurrent_streams", handlers // 2),
            ],
        )
        detector = Detector(self._registry, plan, queue=config.queue, limits=config.image_limits)
        servicer = StrokeServicer(
            detector,
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
            self._listener = bind(self._server, config.host, config.port, config.socket_permissions)
        except ListenError as error:
            return fail(str(error))
        self._server.start()
        try:
            self._registry.load(
                config.models,
                config.model,
                precision=self._plan.precision,
                runtime=config.runtime,
                threads=self._plan.threads,
                busy_threads=self._plan.busy_threads,
                workers=self._plan.workers,
                cache=config.cache_folder,
            )
        except ModelFileError as error:
            self._server.stop(None)
            self._listener.close()
            return fail(f"{error.message} [{error.reason}]")
        except (OSError, RuntimeError, MemoryError):
            self._server.stop(None)
            self._listener.close()
            raise
        self._health.set_serving()
        # Whoever started it may have no use for this, so it waits for no reader.
        banner = f"serving {self._describe_models()} on {self._listener.address}\n{self._describe_choices()}"
        say(banner, PATIENCE_SECONDS)
        while self._stop_requests.empty():
            # Not one long wait: a signal that the kernel hands to another thread does not interrupt it (seen under
            # load), and the handler would be held back as long.
            time.sleep(STOP_POLL_SECONDS)
        self._stop_requests.get()
        return self._drain()

    def _describe_models(self) -> str:
        return ", ".join(f"{m.spec.name} {m.spec.version} (sha256 {m.digest[:12]}…)" for m in self._registry)

    def _describe_choices(self) -> str:
        """A line for each model, with what was chosen for it on this machine."""
        plan = self._plan
        return "\n".join(
            f"  {m.spec.name} {m.spec.version}: {m.precision} with {m.runtime} {m.runtime_version}, profile "
            f"{plan.profile}: {plan.workers} at the same time, threads {plan.threads} ({plan.busy_threads} when busy)"
            for m in self._registry
        )

    def _drain(self) -> int:
        """Refuses what is new, finishes what is in flight, and closes."""
        logger.info("stopping: finishing the calls in flight, for at most %g s", self._config.drain_seconds)
        self._stopping.set()
        self._health.end_watches()
        started = time.monotonic()
        while (
            self._stop_requests.empty()
            and (now := time.monotonic()) - max(self._calls.last_arrival, started) < DRAIN_QUIET_SECONDS
            and now - started < DRAIN_ACCEPT_SECONDS
        ):
            time.sleep(DRAIN_POLL_SECONDS)
        self._listener.close()
        stopped = self._server.stop(self._config.drain_seconds)
        while not stopped.wait(DRAIN_POLL_SECONDS):
            if not self._stop_requests.empty():
                logger.warning("stopping at once: calls in flight are cut off")
                self._server.stop(None)
        logger.info("stopped")
        return 0

    def stop(self, signal_number: int = 0, frame: FrameType | None = None) -> None:
        """Starts to drain; called again, stops at once. Usable as a signal handler."""
        self._stop_requests.put(None)


def fail(message: str) -> int:
    """Prints one line on standard error and returns the exit code."""
    complain(f"server: error: {message}")
    return EXIT_CANNOT_SERVE


def serve(config: ServerConfig) -> int:
    """Runs a server in this process until SIGTERM or SIGINT. Returns its exit code."""
    try:
        application = Application(config)
    except ModelFileError as error:
        return fail(f"{error.message} [{error.reason}]")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, application.stop)
    return application.run()
