"""How a request is named: the caller's id or one that is made, and the trace that it belongs to."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable

TRACE_KEY = "traceparent"
TRACE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""Version, trace, parent, flags. So none of it can forge a line of the log."""


def find_trace(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The ``traceparent`` (W3C Trace Context, level 1) in a call's metadata; empty without one, or where it is none."""
    found = [str(value) for key, value in metadata or () if key == TRACE_KEY]
    return found[0] if len(found) == 1 and TRACE.fullmatch(found[0]) else ""


def new_id() -> str:
    """An id for a request that came without one."""
    return uuid.uuid4().hex


def printable_id(request_id: str) -> str:
    """The id when it can be answered and logged, otherwise nothing."""
    return request_id if len(request_id) <= 128 and request_id.isascii() and request_id.isprintable() else ""
