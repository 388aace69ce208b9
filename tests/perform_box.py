"""What tests of the performer share: one in this process, whose server of models is a fake one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from client import HealthStatus
from gateway.perform import service as serving
from gateway.perform.service import Performer
from gateway.perform.settings import PerformConfig
from tests.fakes import wait_until
from tests.gateway_box import FakeClient, make_written
from tests.ups_server import Service

DONE = ("COMPLETED", "CANCELED")


@dataclass
class ReadyClient(FakeClient):
    """A server that is ready, or not."""

    health: HealthStatus = HealthStatus.SERVING
    entered: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    """Where ``holds``, a study is judged when this is set."""

    holds: bool = False

    def check_health(self) -> HealthStatus:
        return self.health

    def predict_study(self, images: list[Path]) -> Any:
        self.entered.set()
        if self.holds:
            assert self.go_on.wait(30)
        return super().predict_study(images)


def make_config(queue: Path, service: Service, **settings: Any) -> PerformConfig:
    """Settings of a performer that is in a hurry."""
    usual: dict[str, Any] = {"label": "STROKE", "poll_seconds": 0.5, "least_free_mb": 1, "tasks": 1}
    return PerformConfig(worklist=service.url, queue=queue, **usual | settings)


@contextmanager
def hurry() -> Iterator[None]:
    """Performers hardly pause between two looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "LEAST_SECONDS", 0.01)
        patch.setattr(serving, "LOOK_SECONDS", 0.01)
        yield


@hurry()
def perform_once(queue: Path, service: Service, client: FakeClient | None = None, **settings: Any) -> int:
    """``--once``; returns the exit code."""
    config = make_config(queue, service, once=True, **settings)
    return Performer(config, client or ReadyClient(), make_written).run()  # type: ignore[arg-type]


@contextmanager
def run_performer(
    queue: Path, service: Service, client: FakeClient | None = None, **settings: Any
) -> Iterator[Performer]:
    """A performer that looks for tasks until the end of the block."""
    performer = Performer(make_config(queue, service, **settings), client or ReadyClient(), make_written)  # type: ignore[arg-type]
    thread = threading.Thread(target=performer.run)
    thread.start()
    try:
        with hurry():
            yield performer
    finally:
        performer.stop()
        thread.join()


def wait_for_state(service: Service, uid: str, *states: str) -> str:
    """Waits until a task is in one of some states, final ones unless told; returns which."""
    wait_until(lambda: service.worklist.tasks[uid].state in (states or DONE))
    return service.worklist.tasks[uid].state


def list_left(queue: Path) -> list[str]:
    """Files of tasks that are still in a queue, and what else of patients there may be."""
    return [
        str(path)
        for path in queue.rglob("*")
        if path.is_file() and path.name != "lock" and path.parent.name not in ("results", "done")
    ]
