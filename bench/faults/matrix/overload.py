"""More calls than can be answered."""

from __future__ import annotations

import os
import re
import urllib.request
from dataclasses import replace

from bench.faults.flood import Flood, spawn
from bench.faults.history import Ended, Sent
from bench.faults.rig import Fault, Rig
from bench.faults.server import Server
from bench.faults.witness import read_cpu_seconds
from bench.processes import find_ports

FACTORS = (3, 10)
PLACES = 33
"""Of the default queue, and one in work: so many callers at once saturate a server of one worker and are never
refused."""

GOODPUT = 0.9
REFUSAL_SECONDS = 0.05
KEPT_P99 = 2.0
"""How many times as long as at saturation what was accepted may take."""

TIGHT_SECONDS = 0.1
WASTE = 0.05
"""Share of inferences that may turn out to be for nobody: what was being judged when its deadline passed."""


class Crowd:
    """Floods of one server, which has processors of its own."""

    def __init__(self, rig: Rig, server: Server, processors: str) -> None:
        self._rig, self._server, self._processors = rig, server, processors
        self._number = 0

    def flood(self, **options: object) -> tuple[Flood, float]:
        """Floods; returns what came of it, and the server's CPU seconds for each good answer."""
        rig = self._rig
        self._number += 1
        before = read_cpu_seconds(self._server.pid)
        options |= {"seed": rig.random.randrange(2**32), "images": rig.scale.images.resolve()}
        found, entries = spawn(self._processors, rig.folder / "flood.jsonl", address=self._server.address, **options)
        cpu = read_cpu_seconds(self._server.pid) - before
        for entry in entries:  # ids of several floods must differ
            if isinstance(entry, Sent):
                rig.history.add(replace(entry, call=self._rename(entry.call)))
            elif isinstance(entry, Ended):
                names = self._rename(entry.call), self._rename(entry.answer_id)
                rig.history.add(replace(entry, call=names[0], answer_id=names[1]))
        return found, cpu / max(1, sum(n for end, n in found.ends.items() if end == "OK"))

    def _rename(self, name: str) -> str:
        return f"{self._number}:{name}" if name else ""


def overload(rig: Rig) -> None:
    """Three and ten times as much as it can answer."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        rig.verdict.skip("a single processor, which callers would take from the server")
        return
    rig.images  # noqa: B018  # they become golden
    seconds = rig.choose(20, 3)
    port = find_ports(1)[0]
    mine, others = str(processors[0]), ",".join(map(str, processors[1:]))
    with rig.serve("--metrics-port", str(port), wrap=("taskset", "-c", mine)) as server:
        crowd = Crowd(rig, server, others)
        full, cpu = crowd.flood(clients=PLACES, seconds=seconds)
        rig.verdict.note(
            f"saturation {full.rate:.0f}/s, p99 {1000 * full.answer_p99:.0f} ms, {1000 * cpu:.1f} ms of CPU an answer"
        )
        for factor in FACTORS:
            found, cpu_now = crowd.flood(rate=factor * full.rate, seconds=seconds)
            judge_flood(rig, factor, found, full, cpu / cpu_now)
        judge_waste(rig, crowd, port, full)


def judge_flood(rig: Rig, factor: int, found: Flood, full: Flood, cpu_share: float) -> None:
    """Promises of an overload.

    Args:
        rig: takes them.
        factor: how many times saturation.
        found: what came of it.
        full: what came of saturation.
        cpu_share: answers for each second of the server's CPU, as a share of those at saturation.
    """
    what = f"{factor}x"
    others = {end: number for end, number in found.ends.items() if end != "OK" and "RESOURCE_EXHAUSTED" not in end}
    rig.check(not others, f"{what}: {found.offered} calls, {found.ends}")
    rig.check(not found.without_hint, f"{found.without_hint} refusals without reason or hint")
    # Where others use the machine as well only the server's own time says what it does with it.
    goodput = found.rate / full.rate if rig.scale.room == 1 else cpu_share
    rig.check(goodput >= GOODPUT, f"goodput {goodput:.0%} of saturation ({cpu_share:.0%} by CPU time)")
    rig.check(
        found.refusal_p99 <= rig.allow(REFUSAL_SECONDS),
        f"refused within {1000 * found.refusal_p50:.0f} ms (p99 {1000 * found.refusal_p99:.0f}, at most "
        f"{1000 * found.refusal_most:.0f})",
    )
    rig.check(
        found.answer_p99 <= rig.allow(KEPT_P99) * full.answer_p99, f"accepted p99 {1000 * found.answer_p99:.0f} ms"
    )


def judge_waste(rig: Rig, crowd: Crowd, port: int, full: Flood) -> None:
    """Promises that nothing is judged for callers whose time is up."""
    before = count_judged(port)
    found, _ = crowd.flood(rate=FACTORS[0] * full.rate, seconds=rig.choose(10, 2), deadline=TIGHT_SECONDS)
    judged, answered = count_judged(port) - before, found.ends.get("OK", 0)
    most = max(3.0, rig.allow(WASTE) * judged)
    rig.check(
        judged - answered <= most,
        f"with {1000 * TIGHT_SECONDS:.0f} ms each, {judged} judged of which {max(0, judged - answered)} for nobody",
    )


def count_judged(port: int) -> int:
    """Images that a server has judged so far, by its metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        text = page.read().decode()
    return int(sum(map(float, re.findall(r"^stroke_image_inference_seconds_count(?:\{.*\})? (\S+)", text, re.M))))


FAULTS = (
    Fault(
        "overload",
        "3 and 10 times as many calls as it can answer",
        "refused in < 50 ms (99 %) with RESOURCE_EXHAUSTED, reason and hint; goodput >= 90 % of saturation; what is "
        "accepted keeps its p99 (<= 2 x that at saturation); nothing is judged for callers whose deadline has passed",
        overload,
        in_smoke=True,
    ),
)
