"""The section of the report about the client library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.report.figures import divide, summarise, take
from bench.report.machine import format_machine
from bench.report.tables import Budget, render_budgets, render_table

SHARE_FLOOR = 0.85
"""Of the bare loop's images a second, server and client on the same processors."""

CLIENT_CPU_CEILING_MS = 0.45
EXTRA_CEILING_MB = 20
"""Of the client's resident memory during a run, above that of the idle client."""

GROWTH_CEILING_MB = 2
"""Over a long run. Flat means: no more than the allocator's pages come to."""


def render_client(section: dict[str, Any]) -> str:
    """The section as Markdown."""
    settings = section["settings"]
    window = "its own number" if settings["in_flight"] is None else str(settings["in_flight"])
    size, count = f"{settings['noise_kb']:g} kB", f"{settings['count']:,}"
    texts = [
        "## The client library",
        format_machine(section["machine"]) + ".",
        f"`StrokeClient.predict_many` over {count} slices with {window} in flight; {settings['model']} "
        f"{settings['precision']}; {settings['image_count']} images ({settings['images']}) of "
        f"{settings['image_kb']:.0f} kB on average, in turn; {settings['rounds']} rounds. The limit is the mean of two "
        f"bare loops of {settings['seconds']:g} s on all processors, before and after the client in the same round.",
        render_share(section["share"]),
        f"During the bare loops other processes took {summarise(take(section['share'], 'others'))} of the processors. "
        "Where that is much, images a second say little, and CPU time an image is what compares.",
        f"Images of {size} are grey PNGs of noise. CPU is that of the client's whole process, all threads, user and "
        "system; memory is its highest resident set during a run above that before it, when it was connected and had "
        "had one answer. The server that judges nothing answers at once, in a process of its own. A server that takes "
        "single images only, as those from before PredictBatches, gets one to a message.",
        render_table(
            ("images", "server", "client's CPU ms an image", "memory above the idle client, MB"),
            [
                (label, server, summarise(take(rounds, "cpu_ms")), summarise(take(rounds, "extra_mb"), ".1f"))
                for label, server, rounds in (
                    (f"{settings['image_kb']:.0f} kB", "real", section["share"]),
                    (size, "real", section["noise"]),
                    (size, "judges nothing", section["noise_noop"]),
                    (size, "judges nothing, takes single images only", section["noise_singles"]),
                )
            ],
        ),
    ]
    if section["endurance"] is not None:
        texts.append(render_endurance(section["endurance"], size))
    texts += ["### Budgets of the client", render_budgets(list_budgets(section))]
    return "\n\n".join(texts) + "\n"


def render_share(rounds: list[dict[str, float]]) -> str:
    """Throughput, and where the processors' time went."""
    limit, bare = take(rounds, "limit"), take(rounds, "bare_cpu_ms")
    both = [
        server + client for server, client in zip(take(rounds, "server_cpu_ms"), take(rounds, "cpu_ms"), strict=True)
    ]
    rows = [
        ("bare loop", summarise(limit, ".0f"), "1", summarise(bare, ".1f"), "1"),
        (
            "server and client",
            summarise(take(rounds, "rate"), ".0f"),
            summarise(divide(take(rounds, "rate"), limit)),
            summarise(both, ".1f"),
            summarise(divide(both, bare)),
        ),
    ]
    return render_table(("", "images/s", "share of the limit", "CPU ms an image", "of the bare loop's"), rows)


def render_endurance(run: dict[str, float], size: str) -> str:
    """The long run in one sentence."""
    return (
        f"Over {run['count']:,.0f} predictions of {size} at the server that judges nothing the client's resident "
        f"memory is {run['settled_mb']:.1f} MB after a tenth of them and {run['end_mb']:.1f} MB at the end (idle: "
        f"{run['idle_mb']:.1f} MB, with the images to send)."
    )


def list_budgets(section: dict[str, Any]) -> Iterator[Budget]:
    """What the client is meant to reach and to cost."""
    rounds, settings = section["share"], section["settings"]
    shares = divide(take(rounds, "rate"), take(rounds, "limit"))
    yield Budget("share of the limit", SHARE_FLOOR, shares)
    for key, server in (("noise", "the real server"), ("noise_noop", "a server that judges nothing")):
        figure = f"client's CPU for an image of {settings['noise_kb']:g} kB, {server}"
        values = take(section[key], "cpu_ms")
        yield Budget(figure, CLIENT_CPU_CEILING_MS, values, at_least=False, unit=" ms")
    extra = take(rounds, "extra_mb")
    yield Budget("memory above the idle client", EXTRA_CEILING_MB, extra, at_least=False, unit=" MB", form=".1f")
    if section["endurance"] is not None:
        growth = [section["endurance"]["growth_mb"]]
        figure = f"growth of memory over {section['endurance']['count']:,.0f} predictions"
        yield Budget(figure, GROWTH_CEILING_MB, growth, at_least=False, unit=" MB", form=".1f")
