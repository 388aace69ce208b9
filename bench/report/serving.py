"""The section of the report that sets the server against the limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.report.figures import divide, summarise, take
from bench.report.machine import format_machine
from bench.report.tables import Budget, render_budgets, render_table

THROUGHPUT_FLOORS = {"int8": {2: 0.70, 4: 0.78, 8: 0.80}, "fp32": {8: 0.90}}
"""Precision → clients → least share of the bare loop on all processors."""

LATENCY_CEILING = 1.10
"""Of the median latency of a single client, over that of a bare loop on one thread."""

CPU_CEILING = 1.12
"""Of the server's CPU time for a request at 8 clients, over the bare loop's for an image."""

COLD_CEILING_S = {"stroke-cnn": 0.5, "resnet50": 0.8}
RESIDENT_CEILING_MB = {"stroke-cnn": 115, "resnet50": 170}
INSTALLED_CEILING_MB = 215


def render_serving(section: dict[str, Any]) -> str:
    """The section as Markdown."""
    settings, machine = section["settings"], section["machine"]
    flags = f"; server started with `{' '.join(settings['flags'])}`" if settings["flags"] else ""
    texts = [
        "## Against the limit",
        format_machine(machine) + ".",
        f"{settings['model']}; {settings['image_count']} images ({settings['images']}) of {settings['image_size']} "
        f"pixels and {settings['image_kb']:.0f} kB on average; {settings['rounds']} rounds of "
        f"{settings['seconds']:g} s for each measurement{flags}.",
        "![Throughput against clients, latency against offered load](performance.png)",
        "The limit is a bare loop of decode and `run`, without a server, on all processors. Clients of a closed loop "
        "send again as soon as they are answered, each on a connection of its own; all of them run in one process "
        "beside the server.",
    ]
    for precision, series in section["precisions"].items():
        texts += [f"### {precision}", render_closed(series, str(machine["processors"]))]
        if series["open"]:
            texts += [
                "Open loop: requests are due by a Poisson timetable, whatever the server does, and latency counts from "
                "when a request was due (no coordinated omission).",
                render_open(series["open"]),
            ]
    texts += ["### The model on one core", render_arithmetic(section), "### Start, memory, size", render_costs(section)]
    texts += ["### Budgets", render_budgets(list_budgets(section))]
    return "\n\n".join(texts) + "\n"


def render_closed(series: dict[str, Any], processors: str) -> str:
    """Bare loops and closed loops of one precision, as shares of the limit."""
    limit = take(series["bare"][processors], "rate")
    rows = []
    for label, entries in (
        *((f"bare loop, {count} thread{'s' * (count != '1')}", rounds) for count, rounds in series["bare"].items()),
        *((f"server, {count} client{'s' * (count != '1')}", rounds) for count, rounds in series["clients"].items()),
    ):
        rates = take(entries, "rate")
        times = [summarise(take(entries, key), ".1f") for key in ("p50_ms", "p99_ms", "cpu_ms")]
        rows.append((label, summarise(rates, ".0f"), summarise(divide(rates, limit)), *times))
    rows.sort(key=lambda row: row[0].replace("bare", " "))  # bare loops first, whichever came first in the rounds
    return render_table(("", "images/s", "share of the limit", "p50 ms", "p99 ms", "CPU ms an image"), rows)


def render_open(loads: dict[str, list[dict[str, float]]]) -> str:
    """Latencies by offered load."""
    rows = []
    for load, entries in sorted(loads.items(), key=lambda item: float(item[0])):
        times = [summarise(take(entries, key), ".1f") for key in ("p50_ms", "p90_ms", "p99_ms")]
        failures = sum(take(entries, "failures"))
        rows.append((load, summarise(take(entries, "offered"), ".0f"), *times, f"{failures:.0f}"))
    return render_table(("offered share of the limit", "requests/s", "p50 ms", "p90 ms", "p99 ms", "refused"), rows)


def render_arithmetic(section: dict[str, Any]) -> str:
    """What the model reaches of the core's measured peak."""
    gflop = section["settings"]["gflop"]
    rows = []
    for precision, series in section["precisions"].items():
        reached = [1000 * gflop / milliseconds for milliseconds in series["run_ms"]]
        shares = summarise(divide(reached, series["peak_gops"]))
        figures = [summarise(values, ".0f") for values in (reached, series["peak_gops"])]
        rows.append((precision, summarise(series["run_ms"], ".1f"), *figures, shares))
    text = (
        f"`run` alone on one thread, the fastest of a round, against the fastest large matrix product of the same "
        f"round. The model takes {gflop:.2f} GFLOP an image, counted from its graph (a multiply-add is two)."
    )
    return f"{text}\n\n{render_table(('', 'run ms', 'GFLOP/s', 'peak GFLOP/s', 'share of the peak'), rows)}"


def render_costs(section: dict[str, Any]) -> str:
    """Cold start, memory and size."""
    rows = [
        (
            label,
            f"{summarise(series['cold_s'])} s",
            f"{summarise(series['resident_mb'], '.0f')} MB",
        )
        for label, series in list_served(section)
    ]
    table = render_table(("served", "cold start to first answer", "resident after load"), rows)
    lines = [f"`python -m client --help`: {summarise(section['client_help_s'])} s."]
    if section["installed_mb"] is not None:
        lines.append(
            f"The serving environment's site-packages hold {section['installed_mb']:.0f} MB (10^6 bytes of file "
            "contents, compiled modules included, pip and setuptools not)."
        )
    return f"{table}\n\n{' '.join(lines)}"


def list_served(section: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything of which start and memory were measured: ``name precision``, and its series."""
    name = section["settings"]["model"].split(" ")[0]
    for precision, series in section["precisions"].items():
        yield f"{name} {precision}", series
    yield from section["further"].items()


def list_budgets(section: dict[str, Any]) -> Iterator[Budget]:
    """The budgets for which there are figures."""
    processors = str(section["machine"]["processors"])
    for precision, series in section["precisions"].items():
        limit, clients = series["bare"][processors], series["clients"]
        for count, floor in THROUGHPUT_FLOORS[precision].items():
            if str(count) in clients:
                shares = divide(take(clients[str(count)], "rate"), take(limit, "rate"))
                yield Budget(f"{precision}, {count} clients: share of the limit", floor, shares)
        if "1" in clients:
            ratios = divide(take(clients["1"], "p50_ms"), take(series["bare"]["1"], "p50_ms"))
            yield Budget(f"{precision}, 1 client: p50 over the bare loop's", LATENCY_CEILING, ratios, at_least=False)
        if "8" in clients:
            ratios = divide(take(clients["8"], "cpu_ms"), take(limit, "cpu_ms"))
            figure = f"{precision}, 8 clients: server CPU a request over the bare loop's"
            yield Budget(figure, CPU_CEILING, ratios, at_least=False)
    for label, series in list_served(section):
        name, _, precision = label.partition(" ")
        if precision == "int8" and name in COLD_CEILING_S:
            yield Budget(f"{label}: cold start", COLD_CEILING_S[name], series["cold_s"], at_least=False, unit=" s")
            ceiling = RESIDENT_CEILING_MB[name]
            yield Budget(
                f"{label}: resident memory", ceiling, series["resident_mb"], at_least=False, unit=" MB", form=".0f"
            )
    if section["installed_mb"] is not None:
        size = [section["installed_mb"]]
        yield Budget("serving installation", INSTALLED_CEILING_MB, size, at_least=False, unit=" MB", form=".0f")
