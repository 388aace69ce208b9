"""The parts of a server that HTTP needs. Loaded also where what HTTP is made of is not installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from server.admission.boundary import Boundary
from server.admission.inbox import Inbox
from server.admission.judge import Judge
from server.admission.study import Studies
from server.config import ServerConfig
from server.core.detector import Detector


@dataclass(frozen=True)
class Core:
    """They are one server's, and shared with its other faces."""

    config: ServerConfig
    boundary: Boundary
    inbox: Inbox
    judge: Judge
    studies: Studies
    detector: Detector
    is_serving: Callable[[], bool]
