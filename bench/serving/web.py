"""``python -m bench.serving.web``: what HTTP costs those who call by gRPC, and what it gives those who call by HTTP.

A server with ``--http`` and one without take turns in every round, and so do the ways of asking the first: gRPC, the
image as the body of a POST, and a form as the paper's clients send it. Then the seed system, FastAPI around Keras,
takes turns with this server: the same form from the same client, to the same path.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench.images import read_images
from bench.peers.catalogue import PEERS
from bench.peers.run import Side, install, run_peer
from bench.peers.tuning import describe_setting, tune
from bench.processes import Service, find_ports, run_server
from bench.report.machine import describe_machine, say
from bench.report.page import publish
from bench.report.peers import SEED
from bench.report.web import CLIENTS, FORM, OFF, ON, OURS, RAW, THEIRS
from bench.serving.closed import measure_closed
from bench.serving.resnet50 import find_keras_file
from bench.serving.settings import BenchOptions, describe_images, describe_model
from bench.serving.variants import list_precisions, server_flags
from server.flags import LineParser, parse_settings, setting
from server.process.children import run_main

SEED_CLIENTS = (8, 1)


@dataclass(frozen=True)
class WebOptions(BenchOptions):
    """What is measured."""

    rounds: int = setting(20, "rounds; many short ones tell two per cent from noise", least=1, most=1000)
    seed_rounds: int = setting(5, "rounds beside the seed system; 0: without it", least=0, most=1000)


@dataclass(frozen=True)
class Way:
    """A way of asking a running server."""

    service: Service
    target: str = "stroke"
    """Key of ``bench.serving.targets.TARGETS``."""

    address: str | None = None
    """HOST:PORT, where that is not the service's own."""

    python: str = sys.executable


Rounds = dict[str, dict[str, list[dict[str, float]]]]
"""Way → number of clients → figures of each round."""


@contextmanager
def run_web_server(options: WebOptions) -> Iterator[tuple[Service, str]]:
    """This server with HTTP beside gRPC; yields it and where it listens for HTTP."""
    (port,) = find_ports(1)
    address = f"127.0.0.1:{port}"
    with run_server(options.models, [*choose_flags(options), "--http", address]) as service:
        yield service, address


def choose_flags(options: WebOptions) -> list[str]:
    """The precision that the server prefers."""
    return server_flags(options.models, list_precisions(options.models)[0])


def take_turns(ways: Mapping[str, Way], clients: Sequence[int], rounds: int, options: WebOptions) -> Rounds:
    """Closed loops on all ways by turns, for each number of clients; backwards in every other round."""
    found: Rounds = {name: {str(count): [] for count in clients} for name in ways}
    for number in range(rounds):
        started = time.monotonic()
        for count in clients:
            for name in list(ways)[:: -1 if number % 2 else 1]:
                way = ways[name]
                figures = measure_closed(
                    way.service,
                    options.images,
                    options.seconds,
                    count,
                    target=way.target,
                    address=way.address,
                    python=way.python,
                )
                found[name][str(count)].append(figures)
        say(f"round {number + 1} of {rounds}: {time.monotonic() - started:.0f} s")
    return found


def measure_ways(options: WebOptions) -> dict[str, Any]:
    """Two servers of this project, and the memory that each of them has after each other's last round."""
    with ExitStack() as stack:
        off = stack.enter_context(run_server(options.models, choose_flags(options)))
        on, address = stack.enter_context(run_web_server(options))
        ways = {OFF: Way(off), ON: Way(on), RAW: Way(on, "http-raw", address), FORM: Way(on, "http", address)}
        rounds = take_turns(ways, CLIENTS, options.rounds, options)
        return {"ways": rounds, "resident_mb": {OFF: off.resident_mb(), ON: on.resident_mb()}}


def measure_seed(options: WebOptions) -> dict[str, Any]:
    """The seed system with its best setting beside this server."""
    (peer,) = (peer for peer in PEERS if peer.name == SEED)
    say(f"{peer.title}: installing")
    install(peer)
    model, is_trained = find_keras_file()
    rates = tune(peer, model, options.images, options.seconds)
    best = max(rates, key=rates.__getitem__)
    say(f"{peer.title}: {describe_setting(best)}, {rates[best]:.0f} images/s")
    with ExitStack() as stack:
        seed, _ = stack.enter_context(run_peer(Side(peer, model, best), read_images(options.images)[0]))
        ours, address = stack.enter_context(run_web_server(options))
        ways = {OURS: Way(ours, "http", address), THEIRS: Way(seed, peer.target, python=str(peer.python))}
        rounds = take_turns(ways, SEED_CLIENTS, options.seed_rounds, options)
    return {"setting": describe_setting(best), "keras_is_trained": is_trained, "ways": rounds}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints or writes the report."""
    parser = LineParser("python -m bench.serving.web", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, WebOptions, argv)
    section: dict[str, Any] = {
        "machine": describe_machine(("onnxruntime", "grpcio", "starlette", "uvicorn", "h11", "numpy")),
        "settings": {
            **describe_images(options.images),
            **describe_model(options.models),
            "precision": list_precisions(options.models)[0],
            "rounds": options.rounds,
            "seconds": options.seconds,
            "seed_rounds": options.seed_rounds,
        },
        **measure_ways(options),
        "seed": measure_seed(options) if options.seed_rounds else None,
    }
    print(publish("web", section, options.out))
    return 0


if __name__ == "__main__":
    run_main(main)
