"""The section of the report about HTTP: what it costs beside gRPC, and what it gives beside the seed system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.report.figures import divide, summarise, take
from bench.report.machine import format_machine
from bench.report.tables import Budget, render_budgets, render_table

OFF = "gRPC, `--http` off"
ON = "gRPC, `--http` on"
RAW = "POST /predict, the image"
FORM = "POST /predict, a form"
OURS = "StrokeServe"
THEIRS = "FastAPI + Keras .h5 (the seed system)"
"""Names of what takes turns: the first four, and then the last two."""

CLIENTS = (1, 4, 8)
FEW, MANY = str(CLIENTS[0]), str(CLIENTS[-1])

DRIFT = 0.03
"""Most that a server with HTTP may differ, for those who call by gRPC, from one without."""

SEED_THROUGHPUT_FLOOR = 15
SEED_LATENCY_CEILING = 1 / 10

Ways = Mapping[str, Mapping[str, Sequence[dict[str, float]]]]


def render_web(section: dict[str, Any]) -> str:
    """The section as Markdown."""
    settings, ways, seed = section["settings"], section["ways"], section["seed"]
    others = [share for way in ways.values() for share in take(way[MANY], "others")]
    memory = section["resident_mb"]
    texts = [
        "## HTTP beside gRPC",
        format_machine(section["machine"]) + ".",
        f"{settings['model']} {settings['precision']}; {settings['image_count']} images ({settings['images']}) of "
        f"{settings['image_size']} pixels and {settings['image_kb']:.0f} kB on average; {settings['rounds']} rounds of "
        f"{settings['seconds']:g} s for each measurement. Clients of a closed loop, each with a connection that is "
        "kept open, in a process beside the server: by gRPC this project's library, by HTTP Python's `http.client`. "
        "CPU time is the server's and, apart from it, the clients'. Ratios are to gRPC on the server without HTTP in "
        "the same round.",
        f"With {MANY} clients other processes took {summarise(others)} of the processors. At the end the server "
        f"without HTTP had {memory[OFF]:.0f} MB in memory, the one with HTTP {memory[ON]:.0f} MB.",
        *(render_ways(ways, count) for count in map(str, CLIENTS)),
    ]
    if seed is not None:
        texts += ["### Beside the seed system", describe_seed(settings, seed), render_seed(seed["ways"])]
    texts += ["### Budgets of HTTP", render_budgets(list_budgets(section))]
    return "\n\n".join(texts) + "\n"


def render_ways(ways: Ways, clients: str) -> str:
    """A row for each way of asking with so many clients."""
    rows = []
    for name, way in ways.items():
        cells = [name]
        for key, form in (("rate", ".0f"), ("p50_ms", ".1f"), ("server_cpu_ms", ".2f")):
            own, other = take(way[clients], key), take(ways[OFF][clients], key)
            cells += [summarise(own, form), summarise(divide(own, other))]
        rows.append([*cells, summarise(take(way[clients], "client_cpu_ms"))])
    heading = f"{clients} client{'s' * (clients != '1')}"
    head = (heading, "images/s", "ratio", "p50 ms", "ratio", "server's CPU ms an image", "ratio", "clients'")
    return render_table(head, rows)


def describe_seed(settings: Mapping[str, Any], seed: Mapping[str, Any]) -> str:
    """How the two were measured."""
    weights = "" if seed["keras_is_trained"] else " Its Keras file has random weights, which are as fast."
    return (
        f"Both are sent the same form at `/predict` by the same client; {settings['seed_rounds']} rounds. The seed "
        f"system has the setting that gave it the highest throughput ({seed['setting']}).{weights}"
    )


def render_seed(ways: Ways) -> str:
    """A row for each of the two systems and number of clients."""
    rows = [
        (
            f"{name}, {clients} client{'s' * (clients != '1')}",
            summarise(take(rounds, "rate"), ".1f"),
            *(summarise(take(rounds, key), ".1f") for key in ("p50_ms", "p99_ms", "server_cpu_ms")),
            summarise(take(rounds, "client_cpu_ms")),
        )
        for name, way in ways.items()
        for clients, rounds in way.items()
    ]
    return render_table(("", "images/s", "p50 ms", "p99 ms", "server's CPU ms an image", "clients'"), rows)


def list_budgets(section: Mapping[str, Any]) -> Iterator[Budget]:
    """What HTTP may cost those who call by gRPC, and what it is to reach beside the seed system."""
    on, off = section["ways"][ON], section["ways"][OFF]
    for clients, key, figure in (
        (MANY, "server_cpu_ms", "server's CPU an image"),
        (FEW, "server_cpu_ms", "server's CPU an image"),
        (FEW, "p50_ms", "p50"),
        (MANY, "p50_ms", "p50"),
    ):
        values = divide(take(on[clients], key), take(off[clients], key))
        name = f"gRPC, {clients} client{'s' * (clients != '1')}: {figure} with `--http` over without"
        yield Budget(name, 1 + DRIFT, values, at_least=False, form=".3f")
    if section["seed"] is None:
        return
    ours, theirs = section["seed"]["ways"][OURS], section["seed"]["ways"][THEIRS]
    rates = divide(take(ours[MANY], "rate"), take(theirs[MANY], "rate"))
    yield Budget(f"form, {MANY} clients: throughput over the seed system's", SEED_THROUGHPUT_FLOOR, rates, form=".1f")
    for clients in (MANY, FEW):
        values = divide(take(ours[clients], "p50_ms"), take(theirs[clients], "p50_ms"))
        name = f"form, {clients} client{'s' * (clients != '1')}: p50 over the seed system's"
        yield Budget(name, SEED_LATENCY_CEILING, values, at_least=False, form=".3f")
