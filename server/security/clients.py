"""What calls say of their callers beside the certificate, and the list of those who may call."""

from __future__ import annotations

from collections.abc import Iterable

from server.security.files import list_lines
from server.security.identity import KINDS

AUTHORIZATION = "authorization"
BEARER = "bearer "


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
    """Reads the list of those who may call: a name of a certificate in each line, with or without its kind."""
    return frozenset(line for _, line in list_lines(text))


def find_allowed(names: Iterable[str], allowed: frozenset[str]) -> str:
    """The first of a certificate's names that is on the list; empty: there is none.

    A line such as ``dns:station-3`` means that kind of name, one such as ``station-3`` any kind.
    """
    return next((name for name in names if name in allowed or without_kind(name) in allowed), "")


def without_kind(name: str) -> str:
    """``cn:station-3`` → ``station-3``; empty where that would look like a name with a kind."""
    text = name.partition(":")[2]
    return "" if text.partition(":")[0] in KINDS else text
