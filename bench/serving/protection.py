"""``python -m bench.serving.protection``: what mutual TLS, tokens, the audit log and metrics cost together.

A server with all of them and one with none take turns in every round, each loaded by clients in a process of their own
that shares the processors. ``--each`` sets servers with one of them alone beside these, and ``--base`` one of another
checkout with nothing on: what is paid by those who do not use it.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.images import read_images
from bench.processes import ROOT, find_ports, measure_cold_start, run_server
from bench.report.machine import describe_machine, say
from bench.report.page import publish
from bench.report.protection import ALL, BASE, CLIENTS, OFF
from bench.serving.closed import measure_closed
from bench.serving.settings import BenchOptions, describe_images, describe_model
from bench.serving.targets import NO_ACCESS, Access
from bench.serving.variants import list_precisions, server_flags
from server.flags import LineParser, parse_settings, setting
from server.process.children import run, run_main

SCRAPE_SECONDS = 5.0
"""Between two readings of the metrics: more often than most sites have Prometheus ask."""


@dataclass(frozen=True)
class ProtectionOptions(BenchOptions):
    """What is measured."""

    rounds: int = setting(20, "rounds; many short ones tell two per cent from noise", least=1, most=1000)
    each: bool = setting(False, "each part of the protection alone, too")
    base: Path | None = setting(None, "another checkout, such as a git worktree of the commit before", metavar="DIR")

    def __post_init__(self) -> None:
        if self.base is not None and not (self.base / "server").is_dir():
            raise ValueError(f"--base: {self.base} is no checkout of this project")


@dataclass(frozen=True)
class Side:
    """A server as it is measured."""

    checkout: Path = ROOT
    flags: tuple[str, ...] = ()
    access: Access = NO_ACCESS
    metrics_port: int = 0
    """0: nobody reads its metrics."""


@dataclass
class Series:
    """What was measured of one side: a list entry for each round."""

    clients: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """Closed loops, by number of clients."""

    resident_mb: list[float] = field(default_factory=list)
    """After the loads of the round."""

    cold_s: list[float] = field(default_factory=list)


def make_parts(folder: Path, metrics_port: int) -> dict[str, Side]:
    """Each part of the protection alone, with the files that it needs in a new folder."""
    certs, tokens, token = folder / "certs", folder / "tokens", folder / "token"
    run_command("certs", "--out", str(certs))
    token.write_text(run_command("token", "add", "bench", "--file", str(tokens)), "ascii")
    pair = ("--tls-cert", str(certs / "server.pem"), "--tls-key", str(certs / "server.key"))
    return {
        "mutual TLS": Side(flags=(*pair, "--tls-client-ca", str(certs / "ca.pem")), access=Access(certs=certs)),
        "tokens": Side(flags=("--tokens", str(tokens)), access=Access(token=token)),
        "audit log": Side(flags=("--audit", str(folder / "audit.jsonl"))),
        "metrics": Side(flags=("--metrics-port", str(metrics_port)), metrics_port=metrics_port),
    }


def run_command(*words: str) -> str:
    """Runs a command of the server, such as ``certs``; returns what it printed."""
    command = [sys.executable, "-m", "server", *words]
    return str(run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def join_parts(parts: dict[str, Side]) -> Side:
    """All of them on one server."""
    flags = tuple(flag for part in parts.values() for flag in part.flags)
    access = Access(parts["mutual TLS"].access.certs, parts["tokens"].access.token)
    return Side(flags=flags, access=access, metrics_port=parts["metrics"].metrics_port)


def make_sides(options: ProtectionOptions, folder: Path) -> dict[str, Side]:
    """All servers of a run by their names; their files are in ``folder``, in one for each that shares none."""
    port, other_port = find_ports(2)
    sides = {OFF: Side(), ALL: join_parts(make_parts(make_folder(folder / "all"), port))}
    if options.base is not None:
        sides[BASE] = Side(checkout=options.base.resolve())
    if options.each:
        sides |= make_parts(make_folder(folder / "each"), other_port)
    return sides


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


@contextmanager
def scraping(port: int) -> Iterator[None]:
    """Reads metrics at once and every ``SCRAPE_SECONDS``, as Prometheus does; a reading that fails is raised."""
    stopping = threading.Event()

    def scrape() -> None:
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=SCRAPE_SECONDS) as page:
                page.read()
            if stopping.wait(SCRAPE_SECONDS):
                return

    with ThreadPoolExecutor(1) as pool:
        scraper = pool.submit(scrape) if port else None
        try:
            yield
        finally:
            stopping.set()
        if scraper is not None:
            scraper.result()


def measure(options: ProtectionOptions, precision: str) -> dict[str, Series]:
    """All rounds; sides take turns for each number of clients, backwards in every other round."""
    flags = server_flags(options.models, precision)
    image = read_images(options.images)[0]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides = make_sides(options, Path(folder))
        series = {name: Series() for name in sides}
        services = {
            name: stack.enter_context(run_server(options.models, [*flags, *side.flags], side.checkout))
            for name, side in sides.items()
        }
        for number in range(options.rounds):
            started = time.monotonic()
            turns = list(sides)[:: -1 if number % 2 else 1]
            for clients in CLIENTS:
                for name in turns:
                    side = sides[name]
                    with scraping(side.metrics_port):
                        figures = measure_closed(
                            services[name], options.images, options.seconds, clients, access=side.access
                        )
                    series[name].clients.setdefault(str(clients), []).append(figures)
            for name in turns:
                series[name].resident_mb.append(services[name].resident_mb())
                if options.base is not None and name in (OFF, BASE):
                    seconds = measure_cold_start(options.models, image, flags, sides[name].checkout)
                    series[name].cold_s.append(seconds)
            say(f"round {number + 1} of {options.rounds}: {time.monotonic() - started:.0f} s")
    return series


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints or writes the report."""
    parser = LineParser("python -m bench.serving.protection", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, ProtectionOptions, argv)
    precision = list_precisions(options.models)[0]
    section: dict[str, Any] = {
        "machine": describe_machine(),
        "settings": {
            **describe_images(options.images),
            **describe_model(options.models),
            "precision": precision,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "scrape_seconds": SCRAPE_SECONDS,
        },
        "sides": {name: vars(series) for name, series in measure(options, precision).items()},
    }
    print(publish("protection", section, options.out))
    return 0


if __name__ == "__main__":
    run_main(main)
