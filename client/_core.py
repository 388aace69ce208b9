"""What the blocking and the asynchronous client share: settings, channel, the wait for a server, and its errors."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from ._address import parse_address
from ._channel import Restraint, UnaryCalls, call_metadata, make_channel
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
)
from ._errors import (
    ServerUnavailableError,
    StrokeClientError,
    error_from_closed,
    error_from_rpc,
    may_pass,
    needs_look,
)
from ._exchange import check_frame, check_text
from ._proto import stroke_pb2
from ._types import HealthStatus, ModelInfo, Window

if TYPE_CHECKING:
    from ._retry import Retry
    from .stream.wire import StreamSettings
    from .study.exchange import StudySettings
    from .study.files import StudyFiles

_NOT_READY_CODES = {"DEADLINE_EXCEEDED", "NOT_FOUND"}
"""Codes of a health check that may pass by themselves, besides those of any call; NOT_FOUND: the service is not
registered yet."""

_CHECK_SECONDS = 2.0
"""One check must not use up the whole time: a server that hangs may be replaced by one that does not."""

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.25


class ClientCore:
    """A connection to one server or several; the clients add how they wait.

    It connects at the first call, and again by itself when the connection breaks. Calls that a busy server refuses for
    now, or that a restarting one drops, are repeated within their timeout, because judging an image twice does no harm.

    Args:
        target: ``HOST:PORT``; without a port 50051 is meant. Several servers, called round robin, those that are not
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
        if isinstance(tls, bool):
            tls = TLSConfig() if tls else None
        if tls is not None:
            from .tls.credentials import load_tls  # plain text does without

            tls = load_tls(tls)
        self._config = ClientConfig(
            address=parse_address(target),
            timeout=timeout,
            tls=tls,
            token=token,
            retry=retry,
            keep_alive=keep_alive,
            max_image_bytes=max_image_bytes,
        )
        self._target = self._config.address.text
        self._closed = False
        self._owned_channel: Any = None
        if channel is not None:
            self._use_channel(channel)
        else:
            self._connect()
        tokens = self._config.retry.throttle_tokens
        self._throttle = None
        if tokens is not None:
            from ._retry import Throttle  # a call that is answered does without

            self._throttle = Throttle(tokens)
        self._restraint = Restraint()

    def _check_context(self) -> None:
        """Raises RuntimeError where a client of this kind cannot be made."""

    def _connect(self) -> None:
        """Makes the channel; a kind of client that must not wait for names to be looked up does it later."""
        self._owned_channel = make_channel(self._config, self._grpc)
        self._use_channel(self._owned_channel)

    def _use_channel(self, channel: Any) -> None:
        self._channel = channel
        self._calls = UnaryCalls(channel)

    def _make_bell(self) -> None:
        """Makes what ends the pauses between two tries when the client is closed."""

    def _settle_timeout(self, timeout: float | None) -> float:
        """Returns the timeout that holds for a call, in seconds, after checking that a call can be made."""
        if self._closed:
            raise error_from_closed(self._target)
        return self._config.timeout if timeout is None else check_timeout(timeout)

    def _settle_stream(
        self,
        images: object,
        *,
        model: str,
        version: str,
        timeout: float | None,
        in_flight: int,
        ordered: bool,
        frame: int,
    ) -> StreamSettings:
        """Returns the settings of a run of ``predict_many``, which documents them and what is raised."""
        from .stream.servers import ServerCount  # a single image does without streams
        from .stream.wire import StreamSettings

        timeout = self._settle_timeout(timeout)
        if in_flight < 1:
            raise ValueError(f"in_flight must be at least 1, not {in_flight}")
        if isinstance(images, str | bytes | bytearray | memoryview):
            raise TypeError("images must be an iterable of images; predict() takes a single one")
        check_text(model, version)
        check_frame(frame)
        return StreamSettings(
            timeout=timeout,
            in_flight=in_flight,
            ordered=ordered,
            model=model,
            version=version,
            frame=frame,
            max_image_bytes=self._config.max_image_bytes,
            target=self._target,
            retry=self._config.retry,
            is_closed=lambda: self._closed,
            count_servers=ServerCount(self._count_lanes) if self._config.address.may_grow else None,
            note_wait=self.note_wait,
        )

    def _settle_study(
        self,
        files: StudyFiles,
        *,
        model: str,
        version: str,
        timeout: float | None,
        request_id: str | None,
        on_file: Callable[[int], None] | None,
    ) -> StudySettings:
        """Returns the settings of a call of ``predict_study``, which documents them and what is raised."""
        from .study.exchange import make_settings  # a single image does without studies

        timeout = self._settle_timeout(timeout)
        return make_settings(
            files,
            model=model,
            version=version,
            request_id=request_id,
            timeout=timeout,
            max_image_bytes=self._config.max_image_bytes,
            target=self._target,
            on_file=on_file,
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
        from ._retry import Retry  # a call that is answered does without

        return Retry(self._config.retry, started, timeout, self._throttle, self._restraint)

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

    def _choose_hold(self, retry: Retry) -> float:
        """Returns the seconds to wait on, after the pause, before a call is made again; 0: it is to be made.

        Raises:
            StrokeClientError: it is not to be made again.
        """
        seconds = retry.hold(time.monotonic())
        if seconds is None:
            raise retry.failure
        return seconds

    def _end_try(self, failure: StrokeClientError | None, *, is_answered: bool) -> None:
        """Takes note of how a try has ended."""
        is_refused = failure is not None and failure.code == "RESOURCE_EXHAUSTED"
        self._restraint.end(is_answered=is_answered, is_refused=is_refused)
        if is_answered and self._throttle is not None:
            self._throttle.refund()

    def _translate(self, error: BaseException, request_id: str | None = None) -> StrokeClientError:
        """Returns the error of the client for what a call raised: grpc's error, or how grpc says that the channel is
        closed. It may look at the server for some seconds. To be raised outside of the ``except`` block: see
        ``error_from_rpc``."""
        failure = self._translate_at_once(error, request_id)
        return self._look(error, failure) if self._needs_look(error) else failure

    def _translate_at_once(self, error: BaseException, request_id: str | None = None) -> StrokeClientError:
        """Does what ``_translate`` does, without a look at the server."""
        if not isinstance(error, grpc.RpcError) or self._closed:
            return error_from_closed(self._target)
        failure = error_from_rpc(error, target=self._target, request_id=request_id)
        if failure.reason == "IMAGE_TOO_LARGE" and failure.code == "RESOURCE_EXHAUSTED":  # gRPC's own refusal
            own = f"{failure.message}. This client sends images of up to {self._config.max_image_bytes} bytes"
            return _replace(failure, type(failure), f"{own} (max_image_bytes).", failure.reason)
        is_own = self._owned_channel is not None
        if is_own and failure.reason == "SERVER_UNREACHABLE" and self._config.address.is_looked_up_once:
            moved = f"{failure.message} Names of a list are looked up once: if they moved, make a new client."
            return _replace(failure, type(failure), moved, failure.reason)
        return failure

    def _needs_look(self, error: BaseException) -> bool:
        """True when a look at the server may tell more than ``error`` does. The settings say nothing about a channel
        that somebody else made."""
        return self._owned_channel is not None and not self._closed and needs_look(error)

    def _look(self, error: Any, failure: StrokeClientError) -> StrokeClientError:
        """Returns the error that a look at the server gives, otherwise ``failure``, which is what is known without.
        It can block for as long as ``client.tls.probe.LIMIT_SECONDS``; in an event loop call it in a thread."""
        from .tls.probe import explain_connection  # needed only now

        found = explain_connection(error.details() or "", self._config)
        if found is None:
            return failure
        kind, reason, sentence = found
        return _replace(failure, kind, sentence, reason)


def _replace(failure: StrokeClientError, kind: type[StrokeClientError], message: str, reason: str) -> StrokeClientError:
    """Returns an error that says more about the same failure."""
    better = kind(message, reason, failure.code, failure.request_id)
    better.__cause__ = failure.__cause__
    return better


class Readiness:
    """``wait_until_ready``: when to ask again, and when to give up."""

    def __init__(self, target: str, timeout: float) -> None:
        self._target = target
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._pause = _FIRST_PAUSE

    @property
    def check_timeout(self) -> float:
        """Seconds that the next health check may take."""
        return min(max(self._deadline - time.monotonic(), 0.05), _CHECK_SECONDS)

    def judge(self, outcome: HealthStatus | StrokeClientError) -> float | None:
        """Returns the seconds to wait before the next check; None: the server is ready.

        Args:
            outcome: of the last check: what it returned or raised.

        Raises:
            ServerUnavailableError: the time is over.
            StrokeClientError: the outcome, when waiting does not change it.
        """
        if outcome is HealthStatus.SERVING:
            return None
        failure: StrokeClientError = ServerUnavailableError(
            f"the server at {self._target} was not ready after {self._timeout:g} s: see its log, or wait longer",
            "SERVER_NOT_READY",
        )
        if isinstance(outcome, StrokeClientError):
            if not (may_pass(outcome) or outcome.code in _NOT_READY_CODES):
                raise outcome
            if outcome.code == "UNAVAILABLE":
                failure = outcome
        pause, self._pause = self._pause, min(self._pause * 1.5, _LONGEST_PAUSE)
        if time.monotonic() + pause >= self._deadline:
            raise failure
        return pause


def model_from_proto(model: stroke_pb2.Model) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        version=model.version,
        digest=model.digest,
        is_default=model.is_default,
        task=model.task,
        intended_use=model.intended_use,
        labels=tuple(model.labels),
        positive_label=model.positive_label,
        threshold=model.threshold,
        input_height=model.input_height,
        input_width=model.input_width,
        input_channels=model.input_channels,
        precision=model.precision,
        runtime=model.runtime,
        runtime_version=model.runtime_version,
        threads=model.threads,
        busy_threads=model.busy_threads,
        workers=model.workers,
        profile=model.profile,
        server_version=model.server_version,
        # A protobuf map has no order of its own; sorted, two listings of one model read the same.
        metrics=dict(sorted(model.metrics.items())),
        provenance=dict(sorted(model.provenance.items())),
        model_card=model.model_card,
        windows=tuple(Window(window.level, window.width) for window in model.windows),
        study_top_k=model.study_top_k,
        study_threshold=model.study_threshold,
        outlier_threshold=model.outlier_threshold,
        indeterminate_margin=model.indeterminate_margin,
        explains=model.explains,
        positive_labels=tuple(model.positive_labels) or (model.positive_label,),
    )
