"""The section of the report that sets the server against other servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.report.figures import divide, summarise, take
from bench.report.machine import format_machine
from bench.report.tables import Budget, render_budgets, render_table

SEED = "fastapi-keras"
"""The system that this project replaces."""

SEED_THROUGHPUT_FLOOR = 30
SEED_LATENCY_CEILING = 1 / 12
BEST_PEER_FLOOR = 2.5
"""Throughput at 8 clients, the server's preferred precision over the best peer, each with its own decoder."""

SAME_PIXELS_FLOOR = 1.10
"""The same for fp32 over the best peer that decodes as this server does."""

Side = Mapping[str, Any]


def render_peers(section: dict[str, Any]) -> str:
    """The section as Markdown."""
    settings = section["settings"]
    weights = "" if settings["keras_is_trained"] else " The Keras file has random weights, which are as fast."
    texts = [
        "## Beside other servers",
        f"{format_machine(section['machine'])}.",
        f"{settings['model']}; {settings['image_count']} images ({settings['images']}) of {settings['image_size']} "
        f"pixels and {settings['image_kb']:.0f} kB on average; {settings['rounds']} rounds of "
        f"{settings['seconds']:g} s for each measurement.",
        "![Throughput of each server](performance-peers.png)",
        "Each server has an environment of its own with pinned versions (`bench/peers/`) and the same ONNX file, the "
        f"seed system its Keras file.{weights} Each runs with the setting that gave it the highest throughput. They "
        'decode with plain Pillow, as their authors would; rows that say "same pixels" decode with this '
        "project's decoder. Memory is summed over a server's processes. Cold start is until an image was judged, for "
        "MLServer until it says that it is ready.",
        render_sides(section["sides"], section["installed_mb"]),
    ]
    budgets = list(list_budgets(section["sides"]))
    if budgets:
        texts += ["### Budgets beside other servers", render_budgets(budgets)]
    return "\n\n".join(texts) + "\n"


def rates_of(side: Side, clients: int = 8) -> list[float]:
    """Images a second of each round."""
    return take([entry["clients"][str(clients)] for entry in side["rounds"]], "rate")


def latencies_of(side: Side) -> list[float]:
    """Median latency of a single client in each round, in milliseconds."""
    return take([entry["clients"]["1"] for entry in side["rounds"]], "p50_ms")


def render_sides(sides: Mapping[str, Side], installed_mb: float | None) -> str:
    """All servers."""
    ours = find_ours(sides)
    rows = []
    for title, side in sides.items():
        size = installed_mb if side["ours"] else side["installed_mb"]
        rows.append(
            (
                title,
                summarise(rates_of(side), ".0f"),
                summarise(divide(rates_of(ours), rates_of(side)), ".1f"),
                summarise(latencies_of(side), ".1f"),
                summarise(take(side["rounds"], "cold_s")),
                summarise(take(side["rounds"], "resident_mb"), ".0f"),
                "" if size is None else f"{size:.0f}",
                "" if side["ours"] else side["setting"],
            )
        )
    head = ("", "images/s, 8 clients", "first row over this one", "p50 ms, 1 client", "cold start s", "resident MB")
    return render_table((*head, "installed MB", "setting"), rows)


def find_ours(sides: Mapping[str, Side], precision: str | None = None) -> Side:
    """This server in one precision, or in the one that it prefers."""
    return next(side for side in sides.values() if side["ours"] and precision in (None, side["precision"]))


def best_rates(sides: Mapping[str, Side], pixels: str) -> list[float]:
    """Throughput at 8 clients of whichever peer was the fastest in each round; none without peers."""
    rates = [rates_of(side) for side in sides.values() if not side["ours"] and side["pixels"] == pixels]
    return [max(rounds) for rounds in zip(*rates, strict=True)]


def list_budgets(sides: Mapping[str, Side]) -> Iterator[Budget]:
    """The budgets for which there are figures."""
    ours = find_ours(sides)
    seed = next((side for side in sides.values() if side.get("peer") == SEED), None)
    if seed:
        ratios = divide(rates_of(ours), rates_of(seed))
        yield Budget("8 clients: throughput over the seed system's", SEED_THROUGHPUT_FLOOR, ratios)
        ratios = divide(latencies_of(ours), latencies_of(seed))
        yield Budget("1 client: p50 over the seed system's", SEED_LATENCY_CEILING, ratios, at_least=False, form=".3f")
    if best := best_rates(sides, "pillow"):
        figure = f"8 clients: throughput of {ours['precision']} over the best peer's"
        yield Budget(figure, BEST_PEER_FLOOR, divide(rates_of(ours), best))
    if best := best_rates(sides, "strokeserve"):
        ratios = divide(rates_of(find_ours(sides, "fp32")), best)
        yield Budget("8 clients: throughput of fp32 over the best peer's, same pixels", SAME_PIXELS_FLOOR, ratios)
