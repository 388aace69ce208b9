"""Which of a peer's settings is its best, so that it is measured with that one."""

from __future__ import annotations

import statistics
from pathlib import Path

from bench.images import read_images
from bench.peers.catalogue import SETTINGS, Peer, Setting
from bench.peers.run import Side, run_peer
from bench.report.machine import say
from bench.serving.load import spawn

TUNING_ROUNDS = 3
"""Of which the median counts: a slow moment of the machine must not cost a peer its best setting, nor a lucky split of
its connections among its processes win it a worse one."""


def tune(peer: Peer, model: Path, images: Path, seconds: float) -> dict[Setting, float]:
    """Median throughput at 8 clients of each setting; 0 for one with which it does not work."""
    image = read_images(images)[0]
    rates: dict[Setting, list[float]] = {choice: [] for choice in SETTINGS}
    for _ in range(TUNING_ROUNDS):
        for choice in SETTINGS:
            rate = 0.0
            try:
                with run_peer(Side(peer, model, choice), image) as (service, _):
                    load = spawn(peer.target, service.address, images, seconds, clients=8, python=str(peer.python))
                    rate = load.rate
            except RuntimeError as error:
                say(f"{peer.title} with {describe_setting(choice)}: {error}")
            rates[choice].append(rate)
    return {choice: statistics.median(found) for choice, found in rates.items()}


def describe_setting(choice: Setting) -> str:
    """A setting in words."""
    workers, threads = choice
    return f"{workers} worker{'s' * (workers > 1)}, {threads} thread{'s' * (threads > 1)} a run"
