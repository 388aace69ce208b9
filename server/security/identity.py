"""Who a client is by its certificate, which the transport has verified."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

KINDS = {
    "uri": "peer_uri",
    "dns": "peer_dns",
    "email": "peer_email",
    "ip": "peer_ip",
    "cn": "x509_common_name",
}
"""Kinds of names, from the one that says most to the one that says least, and what gRPC calls each."""

MOST_CHARACTERS = 256
"""Of a name; a longer one is none."""


def read_names(auth_context: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    """Returns all names in a client's certificate, such as ``dns:station-3`` or ``cn:Station 3``; those in its
    alternative names come first. None without TLS, or where clients are asked for no certificate.

    Args:
        auth_context: of a call, by ``context.auth_context()``.
    """
    return tuple(
        f"{kind}:{text}"
        for kind, key in KINDS.items()
        for value in auth_context.get(key, ())
        if (text := decode(value))
    )


SSL_KINDS = {"URI": "uri", "DNS": "dns", "email": "email", "IP Address": "ip"}
"""What Python's ``ssl`` calls kinds of alternative names."""


def read_peer_certificate(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """``read_names`` of a certificate as ``ssl.SSLSocket.getpeercert`` gives it; none without one."""
    if not certificate:
        return ()
    found = [(SSL_KINDS.get(kind, ""), value) for kind, value in certificate.get("subjectAltName", ())]
    found += [("cn", value) for part in certificate["subject"] for key, value in part if key == "commonName"]
    order = list(KINDS)
    known = sorted((name for name in found if name[0] in KINDS), key=lambda name: order.index(name[0]))
    return tuple(f"{kind}:{text}" for kind, value in known if (text := check_name(value)))


def decode(value: bytes) -> str:
    """A name as text."""
    return check_name(value.decode("utf-8", errors="replace"))


def check_name(text: str) -> str:
    """A name for logs and lists; empty where it is none that could stand there."""
    return text if len(text) <= MOST_CHARACTERS and text.isprintable() and "\ufffd" not in text else ""
