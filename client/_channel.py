"""The connection: channel options, credentials, the calls of one message for either kind of channel, and how soon calls
come again that were refused."""

from __future__ import annotations

import json
import threading
from typing import Any

import grpc

from ._config import ClientConfig, Token, find_token_fault
from ._errors import AuthenticationError, StrokeClientError, error_from_unknown_host
from ._proto import stroke_pb2
from ._types import HealthStatus

SERVICE = "stroke.v1.StrokeService"

_MOST_AFFORDED = 10.0
_EARNED_BY_ANSWER = 0.1
_EARNED_BY_SECOND = 0.5

_LOOK_SECONDS = 0.25
"""How often a call that waits for its turn asks for it."""

_STATUS = {
    0: HealthStatus.UNKNOWN,
    1: HealthStatus.SERVING,
    2: HealthStatus.NOT_SERVING,
    3: HealthStatus.SERVICE_UNKNOWN,
}


def make_channel(config: ClientConfig, module: Any = grpc) -> Any:
    """Returns a channel; it connects at the first call, and the caller closes it.

    Args:
        config: where to, and how.
        module: ``grpc`` or ``grpc.aio``, whose functions have the same form.

    Raises:
        ServerUnavailableError: none of the names of a list is known (HOST_UNKNOWN).
        ValueError: a list has hosts of different kinds.
    """
    return open_channel(config, find_target(config), module)


def find_target(config: ClientConfig) -> str:
    """Returns what gRPC is to connect to. It looks up the names of a list, which may take seconds.

    Raises:
        ServerUnavailableError: none of the names is known (HOST_UNKNOWN).
        ValueError: a list has hosts of different kinds.
    """
    try:
        return config.address.resolve()
    except OSError:
        raise error_from_unknown_host(config.address.text) from None


def open_channel(config: ClientConfig, target: str, module: Any = grpc) -> Any:
    """Does what ``make_channel`` does, with what ``find_target`` returned."""
    options = channel_options(config)
    if config.tls is None:
        return module.insecure_channel(target, options=options)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=config.tls.ca, private_key=config.tls.key, certificate_chain=config.tls.certificate
    )
    return module.secure_channel(target, credentials, options=options)


def channel_options(config: ClientConfig) -> list[tuple[str, str | int]]:
    """Returns gRPC's channel arguments for these settings."""
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(service_config(balanced=config.address.is_balanced))),
        # gRPC's own limit of 4 MiB is below the images that a server may be set to accept; it knows its limits best.
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # gRPC's defaults (1 s to 120 s) are for the internet; on a local network a restarted server is back in seconds.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 5000),  # in fact the time that one attempt to connect may take
        ("grpc.max_reconnect_backoff_ms", 500),
        # A name is looked up again when a connection breaks or is old; by default not within 30 s of the last time, in
        # which an update may have moved all servers of a name to other addresses.
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        # A connection of its own: by default all clients of a process share one, its limit of calls at a time, and the
        # pause before the next attempt to connect, which a client made after a restart would inherit.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", round(1000 * config.keep_alive.interval)),
        # Two names for one time: gRPC 1.85 never acts on the first (its timer is only ever renewed, not set) and takes
        # a minute for the second; older ones know no other than the first.
        ("grpc.keepalive_timeout_ms", round(1000 * config.keep_alive.timeout)),
        ("grpc.http2.ping_timeout_ms", round(1000 * config.keep_alive.timeout)),
        # Between calls, too, and for as long as it takes: by default gRPC stops after two pings without data.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # The server stands in the same house: images of patients do not go through the proxy that http_proxy names.
        ("grpc.enable_http_proxy", 0),
    ]
    if config.tls is not None and config.tls.server_name is not None:
        options.append(("grpc.default_authority", config.tls.server_name))
    elif len(config.address.hosts) != 1 and config.address.name:
        # A list goes to gRPC as numbers, which it would call the server by, commas included, and a socket as its path.
        # The name is also what certificates must hold: with TLS it is the same for all (ClientConfig sees to it).
        options.append(("grpc.default_authority", config.address.name))
    return options


def service_config(*, balanced: bool) -> dict[str, Any]:
    """Returns gRPC's service config: several servers are called round robin. What is repeated is decided by ``Retry``;
    without a policy gRPC repeats only what no server has read."""
    config: dict[str, Any] = {}
    if balanced:
        config["loadBalancingConfig"] = [{"round_robin": {}}]
        # A box that says NOT_SERVING (it loads, it stops) is left out until it says SERVING again.
        config["healthCheckConfig"] = {"serviceName": SERVICE}
    return config


def call_metadata(token: Token | None) -> tuple[tuple[str, str], ...]:
    """Returns the metadata that goes with each call: the bearer token, asked for now where it is a callable.

    Raises:
        AuthenticationError: the callable failed or returned no token (TOKEN_UNREADABLE).
    """
    if token is None:
        return ()
    if not isinstance(token, str):
        try:
            token = token()
        except StrokeClientError:
            raise
        except Exception as error:
            # Its text may hold what nobody should see: it is the cause, for those who look at the whole traceback.
            raise AuthenticationError(
                f"no token for the call: what should return it failed with {type(error).__name__}", "TOKEN_UNREADABLE"
            ) from error
        fault = find_token_fault(token)
        if fault is not None:
            raise AuthenticationError(f"no token for the call: what was returned {fault}", "TOKEN_UNREADABLE")
    return (("authorization", f"Bearer {token}"),)


class UnaryCalls:
    """The calls of one request and one answer.

    Made by hand, as those of the streams are (``client.stream.wire``): gRPC's generated stub finds its messages only in
    a package ``proto`` at the top of the path, which the wheel does without.
    """

    def __init__(self, channel: Any) -> None:
        def make_call(method: str, request: Any, answer: Any) -> Any:
            return channel.unary_unary(
                f"/{SERVICE}/{method}",
                request_serializer=request.SerializeToString,
                response_deserializer=answer.FromString,
            )

        self.predict = make_call("Predict", stroke_pb2.PredictRequest, stroke_pb2.PredictResponse)
        self.explain = make_call("Explain", stroke_pb2.PredictRequest, stroke_pb2.ExplainResponse)
        self.get_model = make_call("GetModel", stroke_pb2.GetModelRequest, stroke_pb2.Model)
        self.list_models = make_call("ListModels", stroke_pb2.ListModelsRequest, stroke_pb2.ListModelsResponse)
        # grpc.health.v1. Its messages have one field each, and the package that holds them (grpcio-health-checking) is
        # not worth a dependency: HealthCheckRequest {string service = 1}, HealthCheckResponse {enum status = 1}.
        self.check_health = channel.unary_unary(
            "/grpc.health.v1.Health/Check", request_serializer=_serialize_service, response_deserializer=_parse_status
        )
        """Takes the name of a service; answers with a ``HealthStatus``."""


def _serialize_service(service: str) -> bytes:
    name = service.encode("ascii")
    return bytes([0x0A, len(name)]) + name  # tag of field 1 (bytes), length below 128, content


def _parse_status(data: bytes) -> HealthStatus:
    # Tag of field 1 (varint); an absent field is 0.
    number = data[1] if len(data) > 1 and data[0] == 0x08 else 0
    return _STATUS.get(number, HealthStatus.UNKNOWN)


class Restraint:
    """Gives refused calls of a connection their turns: its repetitions must not be what keeps a server busy. May be
    used by several threads.

    A refused call waits for its turn, within its time. It has one

    - when half of the calls are through that were on their way at the last refusal: then there is room again, as after
      a burst of more calls than the server takes;
    - otherwise when a repetition can be afforded: there are some at first, each good answer earns a tenth of one, and
      time a little. So where more is asked for long than can be done, one call in ten is repeated and not each of them
      again and again (the budget of gRFC A6, which counts every failure; a restart is no refusal).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._afforded = _MOST_AFFORDED
        self._seen = 0.0
        self._on_their_way = 0
        self._crowd = 0

    def begin(self) -> None:
        """A try begins."""
        with self._lock:
            self._on_their_way += 1

    def end(self, *, is_answered: bool, is_refused: bool) -> None:
        """A try has ended, with a good answer, a refusal for want of room, or neither."""
        with self._lock:
            if is_refused:
                self._crowd = self._on_their_way
            self._on_their_way -= 1
            if is_answered:
                self._afforded = min(self._afforded + _EARNED_BY_ANSWER, _MOST_AFFORDED)

    def hold(self, now: float) -> float:
        """Returns the seconds after which a refused call is to ask again; 0: it may be made again.

        Args:
            now: seconds of ``time.monotonic``.
        """
        with self._lock:
            earned = max(0.0, now - self._seen) * _EARNED_BY_SECOND
            self._afforded = min(self._afforded + earned, _MOST_AFFORDED)
            self._seen = now
            if self._crowd > 1 and 2 * self._on_their_way <= self._crowd:
                return 0.0
            if self._afforded < 1:
                return _LOOK_SECONDS
            self._afforded -= 1
            return 0.0
