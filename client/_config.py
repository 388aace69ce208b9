"""Settings of a client, with their defaults and checks. Standard library only, so that `--help` starts fast."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_PORT = 50051
DEFAULT_TIMEOUT = 10.0
DEFAULT_MAX_IMAGE_BYTES = 64 * 1024 * 1024
"""Not the limit of the server, which is lower and which only the server knows: it keeps a wrong file (a video, a disk
image) from being read into memory and sent."""

DEFAULT_IN_FLIGHT = 8
"""Enough to keep the workers of a small box busy while answers travel; each one holds an image in memory."""


@dataclass(frozen=True)
class ClientConfig:
    """Settings of one ``StrokeClient``.

    Raises:
        ValueError: a setting is out of range; the message names it.
    """

    target: str = DEFAULT_TARGET
    """Address of the server, ``HOST:PORT``; without a port 50051 is meant. gRPC's own forms, such as ``unix:/path``,
    are left as they are."""

    timeout: float = DEFAULT_TIMEOUT
    """Seconds that one call, or one image of ``predict_many``, may take; > 0 and finite."""

    max_image_bytes: int = DEFAULT_MAX_IMAGE_BYTES
    """Size above which an image is refused before it is sent, in bytes; > 0."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", complete_target(self.target))
        check_timeout(self.timeout)
        if self.max_image_bytes < 1:
            raise ValueError(f"max_image_bytes must be at least 1, not {self.max_image_bytes}")


def check_timeout(timeout: float) -> float:
    """Returns ``timeout`` in seconds when it is usable: without an end, a call to a dead server would never return."""
    if not (timeout > 0 and math.isfinite(timeout)):
        raise ValueError(f"timeout must be a positive, finite number of seconds, not {timeout}")
    return timeout


def complete_target(target: str) -> str:
    """Returns ``target`` with a port, because gRPC would silently take 443.

    Raises:
        ValueError: it is empty, or its port is none; gRPC would silently take a too large port modulo 65536.
    """
    if not target or not target.isprintable() or " " in target:
        raise ValueError(f"the server's address must have the form HOST:PORT, not {target!r}")
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^:/\[\]]+)(?::(.*))?", target)
    if match is None:  # unix:/path, dns:///host, ipv4:1.2.3.4:5: gRPC knows how to read them
        return target
    host, port = match.groups()
    if port is None:
        return f"{host}:{DEFAULT_PORT}"
    if host not in ("unix", "dns") and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"the server's address {target!r} must end with a port between 1 and 65535")
    return target
