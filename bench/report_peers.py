"""The section of the report that sets the server against other servers."""

from __future__ import annotations

from typing import Any


def render_peers(section: dict[str, Any]) -> str:
    """The section as Markdown."""
    return ""
