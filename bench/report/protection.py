"""The section of the report about what protection costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.report.figures import divide, summarise, take
from bench.report.machine import format_machine
from bench.report.tables import Budget, render_budgets, render_table

OFF = "nothing on"
ALL = "mutual TLS, tokens, audit log and metrics"
BASE = "the checkout before, nothing on"
"""Names of the sides that budgets are about; all others are parts of the protection."""

CLIENTS = (1, 8)
"""Of the closed loops: latency is judged with the first, all else with the second."""

FEW, MANY = map(str, CLIENTS)
RATE_FLOOR = 0.88
"""Images a second of a protected server over those of one without protection."""

EXTRA_CEILING_MB = 25
DRIFT = 0.02
"""Most that a server with nothing on may differ from that of the checkout before."""


def render_protection(section: dict[str, Any]) -> str:
    """The section as Markdown."""
    settings, sides = section["settings"], section["sides"]
    others = [share for side in sides.values() for share in take(side["clients"][MANY], "others")]
    texts = [
        "## What protection costs",
        format_machine(section["machine"]) + ".",
        f"{settings['model']} {settings['precision']}; {settings['image_count']} images ({settings['images']}) of "
        f"{settings['image_size']} pixels and {settings['image_kb']:.0f} kB on average; {settings['rounds']} rounds of "
        f"{settings['seconds']:g} s for each measurement. {MANY} clients of a closed loop, or {FEW} for the latency, "
        "each with a connection of its own, in a process beside the server; those of a server with mutual TLS have a "
        "certificate, those of one with tokens a token, and metrics are read at the start of a measurement and every "
        f"{settings['scrape_seconds']:g} s. Ratios and differences are to the server with {OFF} in the same round.",
        f"With {MANY} clients other processes took {summarise(others)} of the processors. Where that is much, images a "
        "second say little, and CPU time an image is what compares; with that of the clients, who share the processors "
        "and encrypt as much as the server does.",
        render_sides(sides),
        "### Budgets of protection",
        render_budgets(list_budgets(sides)),
    ]
    return "\n\n".join(texts) + "\n"


def render_sides(sides: dict[str, Any]) -> str:
    """A row for each server."""
    off = sides[OFF]
    rows = []
    for name, side in sides.items():
        cells = [name]
        for count, key, form in ((MANY, "server_cpu_ms", ".2f"), (MANY, "rate", ".0f"), (FEW, "p50_ms", ".1f")):
            own, other = (take(one["clients"][count], key) for one in (side, off))
            cells += [summarise(own, form), summarise(divide(own, other))]
        cells[3:3] = [summarise(sum_cpu(side)), summarise(divide(sum_cpu(side), sum_cpu(off)))]
        rows.append([*cells, summarise(side["resident_mb"], ".0f"), summarise(subtract(side, off), "+.1f")])
    head = (
        "server",
        "its CPU ms an image",
        "ratio",
        "with the clients' CPU",
        "ratio",
        f"images/s, {MANY} clients",
        "ratio",
        f"p50 ms, {FEW} client",
        "ratio",
        "resident MB",
        "difference",
    )
    return render_table(head, rows)


def sum_cpu(side: dict[str, Any]) -> list[float]:
    """CPU time of server and clients together for an image, in milliseconds, of each round."""
    rounds = side["clients"][MANY]
    return [sum(pair) for pair in zip(take(rounds, "server_cpu_ms"), take(rounds, "client_cpu_ms"), strict=True)]


def subtract(side: dict[str, Any], off: dict[str, Any]) -> list[float]:
    """Resident memory above that of the server with nothing on, in MB, of each round."""
    return [own - other for own, other in zip(side["resident_mb"], off["resident_mb"], strict=True)]


def list_budgets(sides: dict[str, Any]) -> Iterator[Budget]:
    """What protection may cost, and what it may cost those who do not use it."""
    off, protected = sides[OFF], sides[ALL]
    ratio = divide(sum_cpu(protected), sum_cpu(off))
    # On processors that are never idle, so much more CPU time is so many fewer images a second.
    yield Budget("all on: CPU of server and clients an image, ratio", 1 / RATE_FLOOR, ratio, at_least=False)
    yield Budget(f"all on: images/s, {MANY} clients, ratio", RATE_FLOOR, divide_rates(protected, off))
    extra = subtract(protected, off)
    yield Budget("all on: resident memory above", EXTRA_CEILING_MB, extra, at_least=False, unit=" MB", form=".1f")
    if BASE in sides:
        yield from list_base_budgets(off, sides[BASE])


def list_base_budgets(off: dict[str, Any], base: dict[str, Any]) -> Iterator[Budget]:
    """Ratios of the server with nothing on to that of the checkout before."""
    few, many = ((off["clients"][count], base["clients"][count]) for count in (FEW, MANY))
    pairs: dict[str, tuple[list[float], list[float]]] = {
        "server's CPU an image": (take(many[0], "server_cpu_ms"), take(many[1], "server_cpu_ms")),
        f"p50, {FEW} client": (take(few[0], "p50_ms"), take(few[1], "p50_ms")),
        "resident memory": (off["resident_mb"], base["resident_mb"]),
        "cold start": (off["cold_s"], base["cold_s"]),
    }
    for figure, (own, other) in pairs.items():
        values = divide(own, other)
        yield Budget(f"{OFF}: {figure}, ratio to the checkout before", 1 + DRIFT, values, at_least=False, form=".3f")
    values = divide_rates(off, base)
    yield Budget(f"{OFF}: images/s, {MANY} clients, ratio to the checkout before", 1 - DRIFT, values, form=".3f")


def divide_rates(side: dict[str, Any], other: dict[str, Any]) -> list[float]:
    """Images a second with many clients over those of another side, of each round."""
    return divide(take(side["clients"][MANY], "rate"), take(other["clients"][MANY], "rate"))
