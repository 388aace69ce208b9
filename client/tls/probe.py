"""Why a connection could not be made: what gRPC's text leaves open, a look at the server tells.

gRPC calls every failed handshake UNAVAILABLE, and says "Socket closed" alike to a plaintext client of a TLS server and
to one whose certificate is missing, expired or unknown. So after such a failure, and when somebody wants to know until
when the server's certificate holds, one connection of our own is opened for a TLS handshake. No request, token or image
is sent on it, and the client's certificate is shown only to a server whose own certificate gRPC had accepted before.

    reason                          error                    cause
    TLS_REQUIRED                    ServerUnavailableError   the server speaks TLS, the client plain text
    TLS_NOT_SPOKEN                  ServerUnavailableError   the client speaks TLS, the server does not
    TLS_FAILED                      ServerUnavailableError   both speak TLS but agree on no version or cipher
    NOT_A_GRPC_SERVER               ServerUnavailableError   a TLS server for something else, such as web pages
    TLS_SERVER_UNKNOWN_CA           AuthenticationError      its certificate is of an authority that was not named
    TLS_SERVER_WRONG_NAME           AuthenticationError      its certificate is for other names
    TLS_SERVER_EXPIRED              AuthenticationError      its certificate held until some day past
    TLS_SERVER_NOT_YET_VALID        AuthenticationError      its certificate holds from some day to come
    TLS_CLIENT_CERTIFICATE_MISSING  AuthenticationError      it asks for a client certificate and there is none
    TLS_CLIENT_CERTIFICATE_EXPIRED  AuthenticationError      the client's certificate does not hold now
    TLS_CLIENT_CERTIFICATE_REFUSED  AuthenticationError      the server does not accept the client's certificate

Standard library only; nothing of gRPC is called.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote

from .._address import is_literal
from .._config import ClientConfig, TLSConfig
from .._errors import ServerUnavailableError
from .certificate import Certificate, parse_certificate, split_pem
from .credentials import present_certificate
from .verdict import (
    Explanation,
    explain_client_certificate,
    explain_no_tls,
    explain_server_certificate,
    explain_tls_required,
)

LIMIT_SECONDS = 2.0
"""Most time that a look may take, all addresses together."""

_FIRST_BYTES_SECONDS = 1.0
"""Time for the server's first bytes after the handshake, which a gRPC server sends unasked (HTTP/2 SETTINGS)."""

_CLEAR = ("refused", "errors resolving", "No such file", "timed out", "handshaker shutdown", "unhealthy", "unreachable")
"""Words of gRPC's text for failures that need no look: nothing listens, or nothing gets there."""

_UNCLEAR = ("socket closed", "handshake", "http/2", "verification", "peer", "reset", "broken pipe", "eof", "connect")

_FAILED_ADDRESS = re.compile(r"(?:(ipv[46]):(\S+):(\d+)|(unix):(\S+?)): ")


@dataclass(frozen=True)
class Sight:
    """What one look at a server showed."""

    speaks_tls: bool
    """True when it answered in TLS."""

    certificate: Certificate | None = None
    """Its certificate, unverified; None when there was none or it cannot be read."""

    is_http2: bool = False
    """True when it agreed on HTTP/2, without which there is no gRPC."""

    ended: bool = False
    """True when it ended the connection instead of saying anything."""

    alert: str = ""
    """OpenSSL's name of the TLS alert that it sent; empty when it sent none."""


def explain_connection(details: str, config: ClientConfig) -> Explanation | None:
    """Returns what is wrong with the connection and what to do, None where a look shows nothing.

    Takes at most ``LIMIT_SECONDS``, and no time when ``details`` says that nothing listens.

    Args:
        details: gRPC's text of an UNAVAILABLE that it made itself.
        config: settings of the channel.
    """
    words = details.casefold()
    if any(word.casefold() in words for word in _CLEAR) or not any(word in words for word in _UNCLEAR):
        return None
    deadline = time.monotonic() + LIMIT_SECONDS
    is_rejected = _is_server_rejected(details)
    for where in _list_addresses(details, config):
        sight = look_at(where, config, deadline=deadline, show_certificate=not is_rejected)
        explanation = None if sight is None else _judge(sight, details, config, is_rejected=is_rejected)
        if explanation is not None:
            return explanation
    if config.tls is not None and is_rejected:  # gone in the meantime: then without what its certificate says
        return explain_server_certificate(details, config.address.text, None, config.tls, config.address.name)
    return None


def find_end(config: ClientConfig, deadline: float) -> datetime | None:
    """Returns until when the server's certificate holds, UTC; None where it cannot be seen, as through a proxy.

    gRPC has verified it, but does not say when it ends.

    Args:
        config: settings of a channel to one server, which has answered.
        deadline: moment of ``time.monotonic()`` at which to give up; it takes at most ``LIMIT_SECONDS``.
    """
    address = config.address
    where = address.hosts[0] if address.hosts else address.text.removeprefix("unix:")
    deadline = min(deadline, time.monotonic() + LIMIT_SECONDS)
    sight = look_at(where, config, deadline=deadline, show_certificate=False)
    return None if sight is None or sight.certificate is None else sight.certificate.not_after


def look_at(
    where: tuple[str, int] | str, config: ClientConfig, *, deadline: float, show_certificate: bool
) -> Sight | None:
    """Shakes hands with a server and hangs up. Returns what was seen, None when it cannot be reached in time.

    Args:
        where: host and port, or the path of a Unix socket.
        config: settings of the channel.
        deadline: moment of ``time.monotonic()`` at which to give up.
        show_certificate: True to show the client's certificate when the server asks for one, and to wait for what the
            server makes of it.
    """
    tls = config.tls or TLSConfig()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    name = tls.server_name or config.address.name or "localhost"
    try:
        if show_certificate and tls.certificate is not None:
            present_certificate(context, tls)
            _trust(context, tls)  # as gRPC did: the certificate says who this client is
        else:
            context.check_hostname = (
                False  # nothing is told: the server's certificate is looked at, whatever it is worth
            )
            context.verify_mode = ssl.CERT_NONE
        with _connect(where, deadline) as plain:
            plain.settimeout(max(0.01, deadline - time.monotonic()))
            return _shake_hands(plain, context, name, deadline if show_certificate else None)
    except (OSError, ValueError):  # the handshake's own failures are told apart in _shake_hands
        return None


def _trust(context: ssl.SSLContext, tls: TLSConfig) -> None:
    if isinstance(tls.ca, bytes):
        context.load_verify_locations(cadata=b"\n".join(split_pem(tls.ca)).decode("ascii"))
    else:
        context.load_default_certs()


def _shake_hands(plain: socket.socket, context: ssl.SSLContext, name: str, deadline: float | None) -> Sight:
    """Returns what the handshake shows and, up to ``deadline``, what the server says first; None: not waited for."""
    try:
        secure = context.wrap_socket(plain, server_hostname=name)
    except ssl.SSLError as error:
        reason = error.reason or ""
        return Sight(speaks_tls="ALERT" in reason, alert=reason if "ALERT" in reason else "")
    with secure:
        certificate = parse_certificate(secure.getpeercert(binary_form=True) or b"")
        is_http2 = secure.selected_alpn_protocol() == "h2"
        if not is_http2 or deadline is None:  # what speaks no HTTP/2 would wait for the client to speak
            return Sight(speaks_tls=True, certificate=certificate, is_http2=is_http2)
        ended, alert = False, ""
        # TLS 1.3: the client is done before the server has seen its certificate; the verdict comes as the first bytes.
        try:
            secure.settimeout(max(0.01, min(_FIRST_BYTES_SECONDS, deadline - time.monotonic())))
            ended = secure.recv(1) == b""
        except TimeoutError:
            pass
        except ssl.SSLError as error:
            ended, alert = True, error.reason or ""
        except OSError:  # reset
            ended = True
        return Sight(speaks_tls=True, certificate=certificate, is_http2=True, ended=ended, alert=alert)


def _judge(sight: Sight, details: str, config: ClientConfig, *, is_rejected: bool) -> Explanation | None:
    target, tls = config.address.text, config.tls
    if tls is None:
        if not sight.speaks_tls:
            return None
        return explain_tls_required(target, sight.certificate, wants_certificate=sight.ended or bool(sight.alert))
    if not sight.speaks_tls:
        return explain_no_tls(target) if "WRONG_VERSION_NUMBER" in details else None
    if is_rejected:
        return explain_server_certificate(details, target, sight.certificate, tls, config.address.name)
    if sight.certificate is not None and not sight.is_http2:
        sentence = f"what answers at {target} speaks TLS but not gRPC, as a web server does: check the port"
        return ServerUnavailableError, "NOT_A_GRPC_SERVER", sentence
    if not (sight.ended or sight.alert):
        return None  # all is well by now
    return explain_client_certificate(sight.alert, target, tls)


def _is_server_rejected(details: str) -> bool:
    """True when gRPC's text says that the client did not accept the server's certificate."""
    return any(text in details for text in ("CERTIFICATE_VERIFY_FAILED", "erification check failed", "Peer name"))


def _list_addresses(details: str, config: ClientConfig) -> list[tuple[str, int] | str]:
    """Returns the address that gRPC's text names, otherwise those of the settings that need no look-up: a name server
    that is away, too, would hold up the error for longer than the limit."""
    if (match := _FAILED_ADDRESS.search(details)) is not None:
        _, host, port, is_unix, path = match.groups()
        return [path] if is_unix else [(unquote(host).strip("[]"), int(port))]
    return [(host, port) for host, port in config.address.hosts if is_literal(host)]


def _connect(where: tuple[str, int] | str, deadline: float) -> socket.socket:
    left = max(0.01, deadline - time.monotonic())
    if not isinstance(where, str):
        return socket.create_connection(where, timeout=left)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(left)
    try:
        connection.connect(where)
    except OSError:
        connection.close()
        raise
    return connection
