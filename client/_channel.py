"""The connection: channel options and credentials, the same for the blocking and the asynchronous client."""

from __future__ import annotations

import json
import os
from typing import Any

import grpc

from client._config import ClientConfig, Pem, RetryConfig, TLSConfig

SERVICE = "stroke.v1.StrokeService"


def make_channel(config: ClientConfig, module: Any = grpc) -> Any:
    """Returns a channel; it connects at the first call, and the caller closes it.

    Args:
        config: where to, and how.
        module: ``grpc`` or ``grpc.aio``, whose functions have the same form.

    Raises:
        ValueError: a certificate or key cannot be read.
    """
    # A list whose names are not known is left to gRPC as it is: its own error says so at the first call.
    try:
        target = config.address.resolve()
    except OSError:
        target = "dns:///" + config.address.text
    options = channel_options(config)
    if config.tls is None:
        return module.insecure_channel(target, options=options)
    return module.secure_channel(target, channel_credentials(config.tls), options=options)


def channel_credentials(tls: TLSConfig) -> grpc.ChannelCredentials:
    """Returns what gRPC needs for TLS.

    Raises:
        ValueError: a certificate or key cannot be read.
    """
    return grpc.ssl_channel_credentials(
        root_certificates=None if tls.ca is None else read_pem(tls.ca, "CA certificate"),
        private_key=None if tls.key is None else read_pem(tls.key, "private key"),
        certificate_chain=None if tls.certificate is None else read_pem(tls.certificate, "client certificate"),
    )


def read_pem(pem: Pem, what: str) -> bytes:
    """Returns the content of a PEM file; bytes are taken as they are.

    Raises:
        ValueError: it cannot be read or is no PEM; the message names ``what`` and the file, never the content.
    """
    name, data = "", b""
    if isinstance(pem, bytes):
        data = pem
    else:
        name = f" {os.fspath(pem)}"
        try:
            with open(pem, "rb") as file:
                data = file.read()
        except OSError as error:
            raise ValueError(f"the {what}{name} cannot be read: {error.strerror}") from None
    if b"-----BEGIN " not in data:
        raise ValueError(f"the {what}{name} is not in PEM form (it must hold a line -----BEGIN ...-----)")
    return data


def channel_options(config: ClientConfig) -> list[tuple[str, str | int]]:
    """Returns gRPC's channel arguments for these settings."""
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(service_config(config.retry, balanced=config.address.is_balanced))),
        # gRPC's own limit of 4 MiB is below the images that a server may be set to accept; it knows its limits best.
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # gRPC's defaults (1 s to 120 s) are for the internet; on a local network a restarted server is back in seconds.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 5000),  # in fact the time that one attempt to connect may take
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.keepalive_time_ms", round(1000 * config.keep_alive.interval)),
        ("grpc.keepalive_timeout_ms", round(1000 * config.keep_alive.timeout)),
        # Between calls, too, and for as long as it takes: by default gRPC stops after two pings without data.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # The server stands in the same house: images of patients do not go through the proxy that http_proxy names.
        ("grpc.enable_http_proxy", 0),
    ]
    if config.tls is not None and config.tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", config.tls.server_name))
        options.append(("grpc.default_authority", config.tls.server_name))
    elif config.tls is not None and len(config.address.hosts) > 1:
        # The list goes to gRPC as numbers; its certificates hold the name. It is one: ClientConfig sees to it.
        options.append(("grpc.ssl_target_name_override", config.address.hosts[0][0]))
    return options


def service_config(retry: RetryConfig, *, balanced: bool) -> dict[str, Any]:
    """Returns gRPC's service config: what is repeated and, for several servers, how they take turns."""
    config: dict[str, Any] = {}
    if retry.max_attempts > 1:
        config["methodConfig"] = [
            {
                "name": [{"service": SERVICE, "method": method} for method in ("Predict", "GetModel", "ListModels")],
                "retryPolicy": {
                    "maxAttempts": retry.max_attempts,
                    "initialBackoff": f"{retry.initial_backoff:.9f}s",
                    "maxBackoff": f"{retry.max_backoff:.9f}s",
                    "backoffMultiplier": retry.backoff_multiplier,
                    # CANCELLED is what gRPC sends for calls that cross the GOAWAY of a server that stops gracefully
                    # (github.com/grpc/grpc/issues/24237).
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ]
        config["retryThrottling"] = {"maxTokens": retry.throttle_tokens, "tokenRatio": 0.1}
    if balanced:
        config["loadBalancingConfig"] = [{"round_robin": {}}]
        # A box that says NOT_SERVING (it loads, it stops) is left out until it says SERVING again.
        config["healthCheckConfig"] = {"serviceName": SERVICE}
    return config
