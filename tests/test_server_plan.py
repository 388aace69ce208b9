"""How a machine is used."""

from __future__ import annotations

import pytest

from server.config import ServerConfig
from server.core.plan import make_plan


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (4, 1, 4)),
        ({"profile": "latency"}, (4, 4, 4)),
        ({"profile": "throughput"}, (1, 1, 4)),
        ({"threads": "2"}, (2, 1, 4)),
        ({"threads": "2", "profile": "latency"}, (2, 2, 4)),
        ({"workers": 3}, (4, 1, 3)),
    ],
)
def test_profile_and_flags_make_the_plan(settings: dict[str, object], expected: tuple[int, int, int]) -> None:
    """Threads for an image alone, threads when busy, workers, on four processors."""
    plan = make_plan(ServerConfig(**settings), 4)  # type: ignore[arg-type]

    assert (plan.options.threads, plan.options.busy_threads, plan.workers) == expected


@pytest.mark.parametrize(("workers", "calm"), [(1, {1, 2, 3, 9}), (2, {1}), (3, {1}), (4, {1, 2}), (6, {1, 2, 3})])
def test_half_of_the_workers_is_not_busy(workers: int, calm: set[int]) -> None:
    """An image that is alone has the machine for itself, and a single worker always has."""
    plan = make_plan(ServerConfig(workers=workers), workers)

    assert {count for count in (1, 2, 3, 9) if not plan.is_busy(count)} == calm
