"""How this machine is used: what the profile and the flags come to here."""

from __future__ import annotations

from dataclasses import dataclass

from server.config import ServerConfig


@dataclass(frozen=True)
class Plan:
    """Resolved settings: no ``auto`` is left but in ``precision``, which each model's manifest decides."""

    profile: str
    precision: str
    threads: int
    """Threads inside one run while the machine has little else to do."""

    busy_threads: int
    """Threads inside one run while many images are in work."""

    workers: int
    """Images in work at the same time."""

    def is_busy(self, in_flight: int) -> bool:
        """Whether so many images in flight keep more than half of the workers busy.

        An image that is alone, or nearly, gets ``threads``; many images are the parallelism themselves.
        """
        return 2 * min(in_flight, self.workers) > max(self.workers, 2)


def make_plan(config: ServerConfig, processors: int) -> Plan:
    """Resolves the settings for a machine.

    Args:
        config: the settings.
        processors: how many this process may use.
    """
    threads, busy_threads = {"latency": (processors, processors), "throughput": (1, 1), "balanced": (processors, 1)}[
        config.profile
    ]
    if config.threads != "auto":
        threads = int(config.threads)
        busy_threads = threads if config.profile != "balanced" else 1
    return Plan(config.profile, config.precision, threads, busy_threads, config.workers or processors)
