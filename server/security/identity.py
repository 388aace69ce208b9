"""Who a client is by its certificate, which gRPC has verified."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


def decode(value: bytes) -> str:
    """A name as text, for logs and lists; empty where it is none that could stand there."""
    text = value.decode("utf-8", errors="replace")
    return text if len(text) <= MOST_CHARACTERS and text.isprintable() and "\ufffd" not in text else ""
