"""What all faces of a server share, put together once: from a call's place to the workers that judge."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.admission.boundary import Boundary
from server.admission.inbox import Inbox
from server.admission.judge import Judge
from server.admission.places import StreamPlaces
from server.admission.study import Studies
from server.config import ServerConfig
from server.core.capacity import find_message_bytes
from server.core.detector import Detector
from server.core.outcomes import Journal, LogLines, Recorder
from server.core.plan import Plan
from server.core.study.rules import SeriesRules
from server.models.registry import ModelRegistry

if TYPE_CHECKING:  # loaded by those who have one
    from server.security.gate import Gate

CALLS = 1024
"""Calls that are open at the same time, those included whose message has not come: each costs 20 kB."""


@dataclass(frozen=True)
class Core:
    """The parts of one server that its faces need."""

    config: ServerConfig
    inbox: Inbox
    journal: Journal
    boundary: Boundary
    detector: Detector
    judge: Judge
    streams: StreamPlaces
    studies: Studies
    is_serving: Callable[[], bool]


def make_core(
    config: ServerConfig,
    plan: Plan,
    registry: ModelRegistry,
    rules: SeriesRules,
    is_serving: Callable[[], bool],
    *,
    gate: Gate | None = None,
    recorders: Iterable[Recorder] = (),
    check_ready: Callable[[], None] | None = None,
) -> Core:
    """Puts them together.

    Args:
        config: the settings.
        plan: for this machine.
        registry: the models, be they loaded or not.
        rules: of studies.
        is_serving: whether the server says so.
        gate: see ``Boundary``.
        recorders: are told what has come of calls, beside the log.
        check_ready: see ``Detector``.
    """
    inbox = Inbox(find_message_bytes(config))
    journal = Journal([LogLines(), *recorders])
    detector = Detector(
        registry,
        plan,
        queue=config.queue,
        limits=config.image_limits,
        checks=config.checks == "on",
        check_ready=check_ready,
    )
    judge = Judge(detector, journal, max_wait_seconds=config.max_wait_seconds, batches=config.streams)
    streams = StreamPlaces(config.streams)
    studies = Studies(detector, judge, streams, config, rules)
    return Core(config, inbox, journal, Boundary(CALLS, journal, gate), detector, judge, streams, studies, is_serving)
