"""The figures of docs/processes.md: one process or two on the same processors, gRPC's two kinds of server, and what
that comes to on more of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.report.figures import divide, round_figures, summarise, take
from bench.report.interop import embed
from bench.report.machine import format_machine
from bench.report.serving import CPU_CEILING
from bench.report.tables import Budget, render_budgets, render_table

ONE = "one process"
ONE_PORT = "two processes, one port (SO_REUSEPORT)"
TWO_PORTS = "two processes, two ports, round robin"
THREADS = "bare grpc.server, a thread for each call"
AIO = "bare grpc.aio.server"
"""Names of the sides."""

CALLERS = (1, 8, 64)
JUDGED = "8"
"""Callers with which it is decided whether several processes are worth it."""

WORTH = 1.10
MOST_OTHERS = 0.1
"""Share of the processors that other programs may have for images a second to mean anything."""

WANTED_SHARE = {"int8": 0.8, "fp32": 0.9}
"""Of the bare loop's images a second, by precision."""

CORES = (2, 4, 8, 16, 32)

BEGIN = "<!-- begin: python -m bench.onebox --out docs -->"

Rounds = list[dict[str, float]]


def publish_processes(section: Mapping[str, Any], out: Path | None) -> str:
    """Writes the section into ``processes.md`` and ``processes.json`` of a folder, and returns its Markdown.

    Args:
        section: what was measured, of one precision; sections of others stay in the files.
        out: the folder; None writes nothing.
    """
    section = round_figures(dict(section))  # so that the page is that of the published figures
    precision = section["settings"]["precision"]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        figures = out / "processes.json"
        sections = json.loads(figures.read_text("utf-8")) if figures.exists() else {}
        sections[precision] = section
        figures.write_text(json.dumps(sections, indent=1) + "\n", "utf-8")
        page = out / "processes.md"
        page.write_text(
            embed(page.read_text("utf-8") if page.exists() else "", render_sections(sections), BEGIN), "utf-8"
        )
    return render_processes(section)


def render_sections(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """All precisions as Markdown, that which is served first."""
    return "\n".join(f"### {name}\n\n{render_processes(sections[name])}" for name in sorted(sections, reverse=True))


def render_processes(section: Mapping[str, Any]) -> str:
    """The section as Markdown."""
    settings, sides, bare = section["settings"], section["sides"], section["bare"]
    others = [share for rounds in sides.values() for share in take(rounds[JUDGED], "others")]
    texts = [
        f"{format_machine(section['machine'])}.",
        f"{settings['model']} {settings['precision']}; {settings['image_count']} images ({settings['images']}) of "
        f"{settings['image_size']} pixels and {settings['image_kb']:.0f} kB on average; {settings['rounds']} rounds, "
        f"in which all take turns for {settings['seconds']:g} s each on the same {settings['processors']} processors "
        "(affinity, as with `taskset`), which they share with the callers' process. Medians with minimum and maximum; "
        f"ratios are to {ONE} in the same round. A bare loop of decode and run takes "
        f"{summarise(take(bare, 'cpu_ms'))} ms of CPU an image and does {summarise(take(bare, 'rate'), '.0f')} a "
        f"second. With {JUDGED} callers other programs took {summarise(others)} of the processors: where that is much, "
        "CPU time compares, and images a second do not.",
        *(render_callers(sides, bare, str(callers)) for callers in CALLERS),
        render_verdict(sides),
        render_budgets(list_budgets(sides, bare, settings["precision"])),
        render_calculation(sides),
    ]
    return "\n\n".join(texts) + "\n"


def render_callers(sides: Mapping[str, Mapping[str, Rounds]], bare: Rounds, callers: str) -> str:
    """A row for each side."""
    one = sides[ONE][callers]
    rows = []
    for name, side in sides.items():
        rounds = side[callers]
        rows.append(
            (
                name,
                summarise(take(rounds, "rate"), ".0f"),
                summarise(divide(take(rounds, "rate"), take(one, "rate"))),
                summarise(take(rounds, "p50_ms"), ".1f"),
                summarise(take(rounds, "p99_ms"), ".1f"),
                summarise(take(rounds, "server_cpu_ms")),
                summarise(divide(take(rounds, "server_cpu_ms"), take(one, "server_cpu_ms"))),
                summarise(divide(take(rounds, "server_cpu_ms"), take(bare, "cpu_ms"))),
                summarise(take(rounds, "switches"), ".0f"),
                summarise(take(rounds, "pss_mb"), ".0f"),
            )
        )
    head = (f"{callers} callers" if callers != "1" else "1 caller", "images/s", "ratio", "p50 ms", "p99 ms")
    costs = ("CPU ms an image", "ratio", "over the bare loop's", "switches an image", "memory MB (PSS)")
    return render_table((*head, *costs), rows)


def render_verdict(sides: Mapping[str, Mapping[str, Rounds]]) -> str:
    """Whether several processes are worth it."""
    others = statistics.median(take(sides[ONE][JUDGED], "others"))
    if others > MOST_OTHERS:
        return (
            f"Whether two processes do {WORTH:.2f} x the images of one with {JUDGED} callers, which would be worth a "
            f"setting, these rounds cannot tell: other programs took {others:.2f} of the processors, at most "
            f"{MOST_OTHERS:.2f} may be. The same command on a quiet machine tells."
        )
    gains = {name: compare_rates(sides, name) for name in (ONE_PORT, TWO_PORTS)}
    best = max(gains, key=lambda name: statistics.median(gains[name]))
    is_worth = statistics.median(gains[best]) >= WORTH
    outcome = "Several processes are worth it here" if is_worth else "So there is no setting for several processes"
    return (
        f"The better of the two with {JUDGED} callers, {best}, does {summarise(gains[best])} x the images of {ONE}; "
        f"{WORTH:.2f} was wanted. {outcome}."
    )


def compare_rates(sides: Mapping[str, Mapping[str, Rounds]], name: str) -> list[float]:
    return divide(take(sides[name][JUDGED], "rate"), take(sides[ONE][JUDGED], "rate"))


def list_budgets(sides: Mapping[str, Mapping[str, Rounds]], bare: Rounds, precision: str) -> Iterator[Budget]:
    """What is wanted of the server as it is."""
    one = sides[ONE][JUDGED]
    share = divide(take(one, "rate"), take(bare, "rate"))
    yield Budget(f"{JUDGED} callers: share of the bare loop's images/s", WANTED_SHARE[precision], share)
    cpu = divide(take(one, "server_cpu_ms"), take(bare, "cpu_ms"))
    yield Budget(f"{JUDGED} callers: server CPU an image over the bare loop's", CPU_CEILING, cpu, at_least=False)


def render_calculation(sides: Mapping[str, Mapping[str, Rounds]]) -> str:
    """What the measured cost comes to on more processors: a calculation, no measurement."""
    rounds = sides[ONE][JUDGED]
    total, loop = (statistics.median(take(rounds, key)) for key in ("server_cpu_ms", "loop_cpu_ms"))
    rows = []
    for cores in CORES:
        most = 1000 * cores / total
        bound = 1000 / loop
        rows.append((str(cores), f"{most:.0f}", f"{min(most, bound):.0f}", str(count_needed(most, bound))))
    head = ("processors", "images/s that they have CPU time for", "of one process at most", "processes needed")
    return (
        "**Beyond two processors this is a calculation**, with the callers elsewhere: an image takes "
        f"{total:.2f} ms of CPU in all, of which {loop:.2f} ms are the one thread's that runs the event loop. Python's "
        "lock is held for longer than that, by the workers too, so one process ends earlier than this says.\n\n"
        + render_table(head, rows)
    )


def count_needed(rate: float, bound: float) -> int:
    """Processes for so many images a second, of which each does at most ``bound``."""
    return -int(-rate // bound)
