"""The server's life: bind, load, verify, serve, drain. The one place where the parts are put together."""

from __future__ import annotations

import errno
import logging
import os
import queue
import signal
import socket
import stat
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import grpc
from grpc_health.v1 import health_pb2_grpc

from proto import stroke_pb2, stroke_pb2_grpc
from server.config import ServerConfig
from server.detector import Detector
from server.errors import ModelFileError
from server.health import HealthServicer
from server.interceptors import CallInterceptor
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
UNIX = "unix:"
"""Begins a host that is the path of a socket."""


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
            address = bind(self._server, config.host, config.port)
        except (RuntimeError, OSError):
            if config.host.startswith(UNIX):
                return fail(
                    f"cannot listen on {config.host}: another server listens there, a file is in the way, or the "
                    "folder may not be written to; choose another path with --host"
                )
            return fail(
                f"cannot listen on {config.host}:{config.port}: the port is taken or the address is not this "
                "machine's; choose another with --port (0 takes a free one) or --host"
            )
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
            return fail(f"{error.message} [{error.reason}]")
        except OSError as error:
            self._server.stop(None)
            return fail(f"{error.filename}: cannot be read ({error.strerror})")
        self._health.set_serving()
        print(f"serving {self._describe_models()} on {address}\n{self._describe_choices()}", flush=True)
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


def bind(server: grpc.Server, host: str, port: int) -> str:
    """Listens, and returns the address as callers name it. A Unix socket has no port; who may write to it may call.

    Raises:
        OSError, RuntimeError: the address is taken or cannot be used.
    """
    if host.startswith(UNIX):
        check_socket_free(host.removeprefix(UNIX))
        server.add_insecure_port(host)
        return host
    host = resolve_host(host)
    return f"{host}:{server.add_insecure_port(f'{host}:{port}')}"


def check_socket_free(path: str) -> None:
    """gRPC replaces a socket that is there, also one that another server listens on.

    Raises:
        OSError: something listens there, or it is a file of another kind.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):  # nothing, or what a server that was killed has left
            if os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
                raise
            return
    raise OSError(errno.EADDRINUSE, "something listens there")


def resolve_host(host: str) -> str:
    """Returns one numeric address of a host, IPv4 before IPv6, the latter in brackets.

    gRPC would bind all addresses of a name and be content with any: two servers could then share ``localhost``.

    Raises:
        OSError: the name is unknown.
    """
    found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return f"[{address[0]}]" if family == socket.AF_INET6 else str(address[0])


def fail(message: str) -> int:
    """Prints one line on standard error and returns the exit code."""
    print(f"server: error: {message}", file=sys.stderr, flush=True)
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
