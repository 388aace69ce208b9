"""How this machine is used: what the profile and the flags come to here."""

from __future__ import annotations

from dataclasses import dataclass

from server.config import ServerConfig
from server.core.tuning import read_tuning


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
    """Resolves the settings for a machine. What is set by a flag wins over the profile.

    Args:
        config: the settings.
        processors: how many this process may use.

    Raises:
        ModelFileError: ``--profile tuned`` without a tuning that is valid here.
    """
    precision, workers = config.precision, processors
    threads, busy_threads = {"latency": (processors, processors), "throughput": (1, 1)}.get(
        config.profile, (processors, 1)
    )
    if config.profile == "tuned":
        choice = read_tuning(config)
        threads, busy_threads, workers = choice.threads, choice.busy_threads, choice.workers
        # Other models that are served too may have no variant; the one that was tuned has.
        if precision == "auto" and choice.precision == "fp32":
            precision = "fp32"
    if config.threads != "auto":
        threads = int(config.threads)
        busy_threads = 1 if config.profile == "balanced" else threads
    return Plan(config.profile, precision, threads, busy_threads, config.workers or workers)
