"""The ports of a server: gRPC's with its options, that of health checks, and that of HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from server.admission.core import CALLS, Core
from server.api.rpc.listen import UNIX, bind
from server.config import ServerConfig
from server.machine.addresses import ListenError

if TYPE_CHECKING:
    from server.security.certificates import Certificates
    from server.web.port import WebPort

KEEPALIVE_MS = 30_000
CLIENT_PING_MS = 5_000
"""Least time between two pings of a client. Clients ping so that firewalls do not forget their idle connections; gRPC
allows them one in 5 min and ends the connection of those who do it more often (GOAWAY, too_many_pings)."""

HANDSHAKE_MS = 10_000
"""How long a connection may take to become one of HTTP/2."""


def make_grpc_server(config: ServerConfig) -> grpc.aio.Server:
    """gRPC's server, which listens nowhere yet and knows no service."""
    return grpc.aio.server(
        options=[
            # On by default, and then a second server on the same port silently takes half of the calls.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", config.most_message_bytes),
            # gRPC would inflate a message without a bound (``server.admission.inbox.inflate``).
            ("grpc.per_message_decompression", 0),
            # Otherwise gRPC takes up to 8 MiB of a call that nobody has begun to read.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.max_concurrent_streams", CALLS),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            # Two names for one time: gRPC 1.85 never acts on the first, older ones know no other.
            ("grpc.keepalive_timeout_ms", KEEPALIVE_MS // 3),
            ("grpc.http2.ping_timeout_ms", KEEPALIVE_MS // 3),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", CLIENT_PING_MS),
            *list_ages(config),
        ],
    )


def list_ages(config: ServerConfig) -> list[tuple[str, int]]:
    """gRPC's options for connections that end. A stream may begin late in the life of a connection, and has a life of
    its own, which ends softly (``server.api.rpc.stream``): what is cut off comes after that."""
    if not config.connection_age:
        return []
    grace = config.connection_age + config.connection_grace
    return [
        ("grpc.max_connection_age_ms", round(1000 * config.connection_age)),
        ("grpc.max_connection_age_grace_ms", round(1000 * grace)),
    ]


def open_certificates(certificate: Path, key: Path, client_ca: Path | None) -> Certificates:
    """The certificates of a server that speaks TLS.

    Raises:
        CertificateError: they cannot be used.
    """
    from server.security.bundle import TLSFiles
    from server.security.certificates import Certificates

    return Certificates(TLSFiles(certificate, key, client_ca))


async def answer_probes(config: ServerConfig, health: grpc.GenericRpcHandler) -> grpc.aio.Server:
    """Opens the port for health checks alone; it closes with the process.

    Raises:
        ListenError: it cannot be listened on.
    """
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((health,))
    host = "127.0.0.1" if config.host.startswith(UNIX) else config.host
    # Plain text: probes of Kubernetes speak no TLS, and no image passes here.
    bind(server, host, config.probe_port, is_insecure=True)
    await server.start()
    return server


def open_web(core: Core, certificates: Certificates | None) -> tuple[WebPort, str]:
    """Opens the port of HTTP, and returns it with its address.

    Raises:
        ListenError: it cannot be listened on, or what it needs is not installed.
    """
    try:
        from server.web.face import make_app
        from server.web.port import WebPort
        from server.web.tls import RenewedContext
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "server":
            raise
        raise ListenError(
            f"--http needs {package}, which is not installed: python -m pip install --require-hashes -r "
            "requirements/extras/web.lock, or make install-web"
        ) from None
    config = core.config
    find_context = RenewedContext(certificates).find if certificates is not None else None
    port = WebPort(make_app(core), config.max_wait_seconds, config.most_connection_seconds, find_context)
    return port, port.listen(config.http, is_insecure=config.insecure)
