"""``make bench-peers``: this server beside others, each with its best setting, on the same model file and images.

Every side is started anew in every round, asked by 8 clients and by one, and stopped, so that none waits beside
another. Which setting is a peer's best is found first, by its throughput.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.images import read_images
from bench.peers.catalogue import PEERS, Peer
from bench.peers.run import Side, install, run_peer
from bench.peers.tuning import describe_setting, tune
from bench.processes import ROOT, Service, measure_cold_start, measure_installed_mb, run_server
from bench.report.figures import describe_latencies
from bench.report.machine import describe_machine, say
from bench.report.page import publish
from bench.serving.load import spawn
from bench.serving.resnet50 import find_keras_file
from bench.serving.settings import BenchOptions, describe_images, describe_model
from bench.serving.variants import FILES, list_precisions, server_flags
from server.flags import LineParser, parse_settings, setting
from server.models.repository import find_only_model
from server.process.children import run_main

CLIENTS = (8, 1)
NAMES = tuple(peer.name for peer in PEERS)


@dataclass(frozen=True)
class PeerOptions(BenchOptions):
    """What is measured."""

    peers: tuple[str, ...] = setting(
        NAMES, f"some of {','.join(NAMES)}", choices=NAMES, separator=",", metavar="NAME,NAME"
    )
    flags: str = setting("", "further flags of this server, such as '--profile throughput'")


@contextmanager
def run_ours(models: Path, precision: str, flags: Sequence[str], image: bytes) -> Iterator[tuple[Service, float]]:
    """This server, as ``run_peer`` runs others."""
    flags = [*server_flags(models, precision), *flags]
    cold = measure_cold_start(models, image, flags)
    with run_server(models, flags) as service:
        yield service, cold


def load_side(service: Service, target: str, python: str, images: Path, seconds: float) -> dict[str, dict[str, float]]:
    """Closed loops of 8 clients and of one."""
    found = {}
    for clients in CLIENTS:
        load = spawn(target, service.address, images, seconds, clients=clients, python=python)
        found[str(clients)] = {**describe_latencies(load.latencies_ms), "rate": load.rate}
    return found


def measure(options: PeerOptions, peers: Sequence[Peer]) -> dict[str, Any]:
    """Installs, tunes and measures; returns what is found of each side, in the order of the report."""
    image = read_images(options.images)[0]
    onnx_file = (find_only_model(options.models) / FILES["fp32"]).resolve()  # peers run in folders of their own
    flags = options.flags.split()
    entries: dict[str, dict[str, Any]] = {}
    sides: dict[str, Side] = {}
    for precision in list_precisions(options.models):
        entries[f"StrokeServe, {precision}"] = {"ours": True, "precision": precision, "pixels": "strokeserve"}
    for peer in peers:
        say(f"{peer.title}: installing")
        install(peer)
    for peer in peers:
        model = find_keras_file()[0] if peer.keras else onnx_file
        rates = tune(peer, model, options.images, options.seconds)
        best = max(rates, key=rates.__getitem__)
        say(f"{peer.title}: {describe_setting(best)}, {rates[best]:.0f} images/s")
        common = {
            "ours": False,
            "peer": peer.name,
            "precision": peer.precision,
            "setting": describe_setting(best),
            "tried": {describe_setting(choice): rate for choice, rate in rates.items()},
            "installed_mb": measure_installed_mb(peer.environment),
        }
        for pixels in ("pillow", "strokeserve") if peer.can_share_pixels else ("pillow",):
            title = peer.title if pixels == "pillow" else f"{peer.title}, same pixels"
            entries[title] = {**common, "pixels": pixels}
            sides[title] = Side(peer, model, best, pixels)
    for entry in entries.values():
        entry["rounds"] = []
    for number in range(options.rounds):
        started = time.monotonic()
        for title in list(entries)[:: -1 if number % 2 else 1]:  # drift favours no side
            entry = entries[title]
            if entry["ours"]:
                context, target, python = run_ours(options.models, entry["precision"], flags, image), "stroke", None
            else:
                side = sides[title]
                context, target, python = run_peer(side, image), side.peer.target, side.peer.python
            with context as (service, cold):
                clients = load_side(service, target, str(python or sys.executable), options.images, options.seconds)
                entry["rounds"].append({"cold_s": cold, "resident_mb": service.resident_mb(), "clients": clients})
        say(f"round {number + 1} of {options.rounds}: {time.monotonic() - started:.0f} s")
    return entries


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints or writes the report."""
    parser = LineParser("python -m bench.peers", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, PeerOptions, argv)
    section = {
        "machine": describe_machine(),
        "settings": {
            **describe_images(options.images),
            **describe_model(options.models),
            "rounds": options.rounds,
            "seconds": options.seconds,
            "flags": options.flags.split(),
            "keras_is_trained": find_keras_file()[1],
        },
        "sides": measure(options, [peer for peer in PEERS if peer.name in options.peers]),
        "installed_mb": measure_installed_mb(ROOT / ".venv-serve"),
    }
    print(publish("peers", section, options.out))
    return 0


if __name__ == "__main__":
    run_main(main)
