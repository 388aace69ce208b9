"""What the blocking and the asynchronous client share: settings, channel, requests, answers, and errors."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import grpc

from proto import stroke_pb2_grpc

from ._channel import make_channel
from ._config import (
    DEFAULT_MAX_IMAGE_BYTES,
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT,
    ClientConfig,
    KeepAliveConfig,
    RetryConfig,
    TLSConfig,
    Token,
    check_timeout,
    make_config,
)
from ._errors import StrokeClientError, error_from_closed, error_from_rpc, needs_look
from ._exchange import check_text
from ._health import health_check
from ._retry import Retry, Throttle
from ._stream_settings import StreamSettings
from .tls.credentials import call_metadata


class ClientCore:
    """A connection to one server or several; the clients add how they wait.

    It connects at the first call, and again by itself when the connection breaks. Calls that a busy server refuses for
    now, or that a restarting one drops, are repeated within their timeout, because judging an image twice does no harm.

    Args:
        target: ``HOST:PORT``; without a port 50051 is meant. Several servers that take turns, those that are not
            healthy left out: ``"a:50051,b:50051"``, or ``"dns:///boxes:50051"`` for all addresses of a name. A socket
            of this machine: ``"unix:/run/stroke.sock"``.
        timeout: seconds that a call may take, repetitions included, unless the call states its own; > 0.
        tls: how to encrypt; True: with the public authorities; None or False: not at all.
        token: bearer token for servers that ask for one, or what returns it (called before each call, so that it may
            change); refused on a connection that others could read.
        retry: how calls are repeated.
        keep_alive: pings on an idle connection.
        max_image_bytes: images with more bytes are refused before they are sent. The server's own limit is lower.
        channel: a channel of gRPC to use instead of a new one (of ``grpc.aio`` for the asynchronous client). Its owner
            closes it; ``target`` then only names the server in messages, and the connection's options are the owner's.

    Raises:
        ValueError: an argument is out of range, or a certificate cannot be read.
    """

    _grpc: Any = grpc
    """The module whose channels the class uses."""

    note_wait: Callable[[StrokeClientError], None] | None = None
    """Called in any thread with a failure that is to be waited out, before the wait; for programs that show it."""

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        tls: TLSConfig | bool | None = None,
        token: Token | None = None,
        retry: RetryConfig = RetryConfig(),  # noqa: B008  # frozen
        keep_alive: KeepAliveConfig = KeepAliveConfig(),  # noqa: B008  # frozen
        max_image_bytes: int = DEFAULT_MAX_IMAGE_BYTES,
        channel: Any = None,
    ) -> None:
        self._check_context()
        self._make_bell()
        self._config = make_config(
            target,
            timeout=timeout,
            tls=tls,
            token=token,
            retry=retry,
            keep_alive=keep_alive,
            max_image_bytes=max_image_bytes,
        )
        self._target = self._config.address.text
        self._owned_channel = make_channel(self._config, self._grpc) if channel is None else None
        self._channel = self._owned_channel if channel is None else channel
        self._stub = stroke_pb2_grpc.StrokeServiceStub(self._channel)
        self._health = health_check(self._channel)
        self._closed = False
        tokens = self._config.retry.throttle_tokens
        self._throttle = None if tokens is None else Throttle(tokens)

    def _check_context(self) -> None:
        """Raises RuntimeError where a client of this kind cannot be made."""

    def _make_bell(self) -> None:
        """Makes what ends the pauses between two tries when the client is closed."""

    def _settle_timeout(self, timeout: float | None) -> float:
        """Returns the timeout that holds for a call, in seconds, after checking that a call can be made."""
        if self._closed:
            raise error_from_closed(self._target)
        return self._config.timeout if timeout is None else check_timeout(timeout)

    def _settle_stream(
        self, images: object, *, model: str, version: str, timeout: float | None, in_flight: int, ordered: bool
    ) -> StreamSettings:
        """Returns the settings of a run of ``predict_many``, which documents them and what is raised."""
        timeout = self._settle_timeout(timeout)
        if in_flight < 1:
            raise ValueError(f"in_flight must be at least 1, not {in_flight}")
        if isinstance(images, str | bytes | bytearray | memoryview):
            raise TypeError("images must be an iterable of images; predict() takes a single one")
        check_text(model, version)
        return StreamSettings(
            timeout=timeout,
            in_flight=in_flight,
            ordered=ordered,
            model=model,
            version=version,
            max_image_bytes=self._config.max_image_bytes,
            target=self._target,
            retry=self._config.retry,
            is_closed=lambda: self._closed,
            note_wait=self.note_wait,
        )

    def _count_lanes(self) -> int:
        """Returns how many streams share out a run: one for each server of the address. May look up a name."""
        address = self._config.address
        if not address.is_balanced:
            return 1
        if not address.hosts:  # a list in a form of gRPC's own
            return address.text.count(",") + 1
        if len(address.hosts) > 1:
            return len(address.hosts)
        host, port = address.hosts[0]
        try:
            return len({answer[4] for answer in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
        except OSError:  # the call itself says so better
            return 1

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call."""
        return call_metadata(self._config.token)

    def _start_retry(self, started: float, timeout: float) -> Retry:
        """Returns what judges the failures of a call that began at ``started`` of ``time.monotonic``."""
        return Retry(self._config.retry, started, timeout, self._throttle)

    def _choose_pause(self, retry: Retry, failure: StrokeClientError) -> float:
        """Returns the seconds to wait before a call is made again.

        Raises:
            StrokeClientError: it is not to be made again.
        """
        pause = retry.judge(failure, time.monotonic())
        if pause is None:
            raise retry.failure
        if self.note_wait is not None:
            self.note_wait(failure)
        return pause

    def _translate(self, error: BaseException, request_id: str | None = None) -> StrokeClientError:
        """Returns the error of the client for what a call raised: grpc's error, or how grpc says that the channel is
        closed. It may look at the server for some seconds. To be raised outside of the ``except`` block: see
        ``error_from_rpc``."""
        failure = self._translate_at_once(error, request_id)
        return self._look(error, request_id) if needs_look(error) else failure

    def _translate_at_once(self, error: BaseException, request_id: str | None = None) -> StrokeClientError:
        """Does what ``_translate`` does, without a look at the server."""
        if not isinstance(error, grpc.RpcError) or self._closed:
            return error_from_closed(self._target)
        return error_from_rpc(error, target=self._target, request_id=request_id, config=self._known(), look=False)

    def _look(self, error: BaseException, request_id: str | None = None) -> StrokeClientError:
        """Returns the error that a look at the server gives, which takes up to some seconds."""
        return error_from_rpc(error, target=self._target, request_id=request_id, config=self._known())

    def _known(self) -> ClientConfig | None:
        # The settings say nothing about a channel that somebody else made.
        return self._config if self._owned_channel is not None else None
