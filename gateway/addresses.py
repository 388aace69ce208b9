"""Titles and addresses of application entities, as people type them."""

from __future__ import annotations

import re
from typing import NamedTuple

_ADDRESS = re.compile(r"(?P<title>[ -\[\]-~]{1,16})@(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")


class Address(NamedTuple):
    """An application entity."""

    title: str
    host: str
    port: int


def read_address(text: str) -> Address:
    """Reads ``TITLE@HOST:PORT``; an IPv6 address stands in brackets.

    Raises:
        ValueError: it is none.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65536 or not found["title"].strip():
        raise ValueError(f"must be TITLE@HOST:PORT, got {text!r}")
    return Address(found["title"].strip(), found["host"].strip("[]"), int(found["port"]))


def is_title(text: str) -> bool:
    """Whether it may be the title of an application entity (PS3.5, 6.2)."""
    return 0 < len(text.strip()) <= 16 and text.isascii() and text.isprintable() and "\\" not in text
