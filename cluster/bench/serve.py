"""``python -m cluster.bench.serve``: what Ray Serve costs beside plain gRPC, asked by our own client's command.

Each side has one process that judges, with one processor: a plain server, a replica behind Ray's gRPC proxy, and one
that is asked without it. They take turns in every round.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.bench.page import publish, table
from cluster.bench.patience import be_patient
from cluster.bench.processes import Meter, read_pss_mb
from server.flags import LineParser, check_settings, parse_settings, setting
from server.process import children
from server.process.console import say

ROOT = Path(__file__).resolve().parents[2]
PLAIN, PROXY, DIRECT = "plain gRPC", "Ray's gRPC proxy", "Ray without its proxy"
SIDES = (PLAIN, PROXY, DIRECT)
LOADS = {"1 client": ("--clients", "1"), "8 clients": ("--clients", "8"), "a stream": ("--stream", "--clients", "16")}
READY_SECONDS = 600


@dataclass(frozen=True)
class ServeOptions:
    """What is measured."""

    rounds: int = setting(5, "rounds in which the sides take turns", least=1, most=1000)
    seconds: float = setting(5.0, "of each load", least=1, most=600)
    out: Path | None = setting(None, "folder of ray.md and ray.json; none unless given", metavar="DIR")

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Side:
    """Something that serves."""

    address: str
    pid: int


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints the section and returns 0."""
    parser = LineParser("python -m cluster.bench.serve", "Measures Ray Serve beside plain gRPC.")
    options = parse_settings(parser, ServeOptions, argv)
    be_patient()
    measured: dict[str, dict[str, list[dict[str, float]]]] = {}
    with ExitStack() as stack:
        sides = {PLAIN: stack.enter_context(run_plain())}
        sides[PROXY] = stack.enter_context(run_ray(is_direct=False))
        sides[DIRECT] = stack.enter_context(run_ray(is_direct=True))
        for number in range(options.rounds):
            for load, flags in LOADS.items():
                for name, side in sides.items():
                    figures = measure(side, flags, options.seconds)
                    measured.setdefault(load, {}).setdefault(name, []).append(figures)
                    print(f"round {number + 1}, {load}, {name}: {figures}", file=sys.stderr, flush=True)
        found = {name: read_pss_mb(side.pid) for name, side in sides.items()}
    section = {
        "rounds": options.rounds,
        "loads": {load: summarise(figures) for load, figures in measured.items()},
        "memory": {name: {"pss_mb": pss_mb, "processes": count} for name, (pss_mb, count) in found.items()},
    }
    say(publish("serve", section, render, options.out))
    return 0


def measure(side: Side, flags: Sequence[str], seconds: float) -> dict[str, float]:
    """One load: median latency, images a second, and CPU time of all of the side's processes for an image."""
    command = [sys.executable, "-m", "client", "bench", "samples", "--json", "--seconds", str(seconds), "--warmup", "1"]
    meter = Meter(side.pid)
    result = children.run([*command, *flags, "--server", side.address], cwd=ROOT, capture_output=True, text=True)
    spent = meter.read()
    (run,) = json.loads(result.stdout)["runs"]
    assert run["failed"] == 0, run
    # The warm-up's images cost, too.
    images = run["answered"] * (seconds + 1) / seconds
    return {"p50_ms": run["latency_ms"]["p50"], "rate": run["images_per_s"], "cpu_ms": 1000 * spent / images}


def summarise(sides: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds, and over the ratios of each round to the plain side."""
    found = {}
    for name, rounds in sides.items():
        pairs = list(zip(rounds, sides[PLAIN], strict=True))
        found[name] = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]} | {
            f"{key}_ratio": statistics.median(one[key] / plain[key] for one, plain in pairs) for key in rounds[0]
        }
    return found


def render(section: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    rows = [
        (
            load,
            name,
            f"{one['p50_ms']:.1f} ms ({one['p50_ms_ratio']:.2f})",
            f"{one['rate']:.0f} ({one['rate_ratio']:.2f})",
            f"{one['cpu_ms']:.1f} ms ({one['cpu_ms_ratio']:.2f})",
        )
        for load in LOADS
        for name, one in ((side, section["loads"][load][side]) for side in SIDES)
    ]
    head = ("load", "", "p50", "images/s", "server's CPU an image")
    found = ((name, section["memory"][name]) for name in SIDES)
    memory = [(name, f"{one['pss_mb']:.0f} MB", f"{one['processes']:.0f}") for name, one in found]
    text = f"Medians of {section['rounds']} rounds; in brackets the ratio to plain gRPC in the same round."
    return "\n\n".join((text, table(head, rows), table(("memory (PSS) after that", "", "processes"), memory)))


@contextmanager
def run_plain() -> Iterator[Side]:
    """A plain server with one worker."""
    command = [sys.executable, "-m", "server", "--port", "0", "--workers", "1", "--threads", "1", "--admin", "off"]
    command += ["--log-level", "warning"]  # a replica writes no line for each image either
    with run(command, {}) as (pid, line):
        yield Side(line.rsplit(" ", 1)[1], pid)


@contextmanager
def run_ray(*, is_direct: bool) -> Iterator[Side]:
    """One replica on a Ray cluster of its own."""
    port, http_port, own_port = (find_port() for _ in range(3))
    command = [sys.executable, "-m", "cluster", "serve", "--insecure", "--most-replicas", "1"]
    command += ["--port", str(port), "--http-port", str(http_port)]
    direct = {"RAY_SERVE_ENABLE_DIRECT_INGRESS": "1", "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(own_port)}
    direct["RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT"] = str(own_port + 1)
    with run(command, direct if is_direct else {}) as (pid, _):
        yield Side(f"127.0.0.1:{own_port if is_direct else port}", pid)


@contextmanager
def run(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Starts a program, and ends it. Returns its process id, and the line by which it says that it serves."""
    process = children.start(command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("serving "):
                break
        else:
            raise RuntimeError(f"{' '.join(command)}: does not serve")
        yield process.pid, line.strip()
        process.send_signal(signal.SIGTERM)
        process.wait(READY_SECONDS)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def find_port() -> int:
    """One that is free now."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    children.run_main(main)
