"""What a call brings along that says who makes it: the names in its certificate, and its token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from server.security.files import list_lines

NAME_KEYS = ("x509_subject_alternative_name", "x509_common_name")
"""Where gRPC puts the names of a certificate that it has verified; alternative names are the better ones (RFC 9525)."""

AUTHORIZATION = "authorization"
BEARER = "bearer "


def read_names(auth_context: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    """The names of a client's verified certificate, each once, alternative names first; none without a certificate."""
    names = [name.decode("utf-8", "replace") for key in NAME_KEYS for name in auth_context.get(key, ())]
    return tuple(dict.fromkeys(name for name in names if name))


def read_token(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    """The bearer token (RFC 6750) of a call; empty where what is there is none; None: nothing is there."""
    found = [value for key, value in metadata or () if key == AUTHORIZATION]
    if not found:
        return None
    value = found[0]
    if len(found) > 1 or not isinstance(value, str) or not value.lower().startswith(BEARER):
        return ""
    return value[len(BEARER) :].strip()


def parse_allowed(text: str) -> frozenset[str]:
    """Reads the list of those who may call: a name of a certificate in each line."""
    return frozenset(line for _, line in list_lines(text))
