"""``grpc.health.v1`` with threads of its own, NOT_SERVING until told otherwise, and watches that can be ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

SendStatus = Callable[[Any], None]
"""Sends one status on a watch, or ends it with None."""


class HealthServicer(health.HealthServicer):  # type: ignore[misc]  # grpcio has no types
    """Health of the server ("") and of one service. It answers while every other handler is busy."""

    def __init__(self, service: str) -> None:
        pool = ThreadPoolExecutor(2, thread_name_prefix="health")
        super().__init__(experimental_thread_pool=pool)
        type(self).Check.experimental_thread_pool = pool  # type: ignore[attr-defined]  # grpc reads it from there
        self._names = (health.OVERALL_HEALTH, service)
        self._watches: set[Watch] = set()
        self._watches_ended = False
        self._watches_lock = threading.Lock()
        for name in self._names:  # the overall health starts as SERVING otherwise
            self.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)

    def set_serving(self) -> None:
        """From now on the answer is SERVING."""
        for name in self._names:
            self.set(name, health_pb2.HealthCheckResponse.SERVING)

    def end_watches(self) -> None:
        """Says NOT_SERVING for good, and ends every watch: one that is open would hold up the server's stop."""
        self.enter_graceful_shutdown()
        with self._watches_lock:
            self._watches_ended = True
            watches = list(self._watches)
        for watch in watches:
            watch.send(None)

    def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """A method of this class, so that it can carry its own thread pool."""
        return super().Check(request, context)

    def Watch(  # noqa: N802
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: SendStatus | None = None,
    ) -> None:
        """As in the library, but remembered until it ends."""
        assert send_response_callback is not None, "this grpcio does not know experimental_non_blocking"
        watch = Watch(send_response_callback)
        with self._watches_lock:
            self._watches.add(watch)
            ended = self._watches_ended
        if not context.add_callback(lambda: self._watches.discard(watch)):  # the caller has gone already
            self._watches.discard(watch)
        super().Watch(request, context, watch.send)
        if ended:
            watch.send(None)


class Watch:
    """One open watch, which can be ended once by whoever is first: the caller, the library, or the server."""

    def __init__(self, send: SendStatus) -> None:
        self._send = send
        self._ended = False
        self._lock = threading.Lock()

    def send(self, response: Any) -> None:
        """Sends a status, or ends the watch with None; does nothing after its end."""
        with self._lock:
            if self._ended:
                return
            self._ended = response is None
        self._send(response)
