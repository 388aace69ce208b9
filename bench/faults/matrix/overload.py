"""More calls than can be answered."""

from __future__ import annotations

import os
import re
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from bench.faults.callers import Caller, StubCaller, connect, read_error
from bench.faults.checker import SLACK_SECONDS
from bench.faults.flood import Flood, spawn
from bench.faults.history import Ended, Sent
from bench.faults.load import count_failures, wait_until
from bench.faults.rig import DEADLINE, Fault, Rig
from bench.faults.server import Server
from bench.faults.witness import read_cpu_seconds
from bench.processes import find_ports
from client.cli.latencies import find_percentile
from proto import stroke_pb2 as pb
from proto import stroke_pb2_grpc

FACTORS = (3, 10)
PLACES = 33
"""Of the default queue, and one in work: so many callers at once saturate a server of one worker and are never
refused."""

GOODPUT = 0.9
"""Share of saturation that is answered to ten times as many callers, who wait when they are refused."""

STRANGERS_GOODPUT = {3: 0.7, 10: 0.35}
"""The same for senders who never wait. A refusal costs a sixteenth of an answer, nine tenths of it gRPC's own part
(docs/limits.md), so that 9 refusals for each answer leave less than half."""

GREEDY = 64
FAIR = 2.5
"""How many times as long one caller may wait because of another: for the one image of the other that is in work, and
for its own turn on a processor that always has work."""

REFUSAL_SECONDS = {3: 0.05, 10: 2.0}
"""Within which 99 % of refusals come. At ten times as much calls wait in gRPC, before anything of ours sees them."""

KEPT_P99 = 2.0
"""How many times as long as at saturation what was accepted may take."""

KNOWN_ENDS = ("OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")

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
    rig.learn_images()
    seconds = rig.choose(20, 3)
    port = find_ports(1)[0]
    mine, others = str(processors[0]), ",".join(map(str, processors[1:]))
    with rig.serve("--metrics-port", str(port), wrap=("taskset", "-c", mine)) as server:
        crowd = Crowd(rig, server, others)
        full, cpu = crowd.flood(clients=PLACES, seconds=seconds)
        rig.verdict.note(
            f"saturation {full.rate:.0f}/s, p99 {1000 * full.answer_p99:.0f} ms, {1000 * cpu:.1f} ms of CPU an answer"
        )
        usual, found = (
            crowd.flood(clients=factor * PLACES, library=True, seconds=seconds)[0] for factor in (1, FACTORS[-1])
        )
        judge_crowd(rig, found, usual)
        for factor in FACTORS[: rig.choose(2, 1)]:
            found, cpu_now = crowd.flood(rate=factor * full.rate, seconds=seconds)
            judge_flood(rig, factor, found, full, cpu / cpu_now)
        judge_waste(rig, crowd, port, full)


def judge_crowd(rig: Rig, found: Flood, usual: Flood) -> None:
    """Promises to ten times as many callers as saturate it, with this project's client."""
    what = f"{FACTORS[-1] * PLACES} callers who wait when refused"
    others = {end: number for end, number in found.ends.items() if not end.startswith(KNOWN_ENDS)}
    rig.check(not others and not found.without_hint, f"{what}: {found.ends}")
    check_goodput(rig, found.rate / usual.rate, GOODPUT)


def judge_flood(rig: Rig, factor: int, found: Flood, full: Flood, cpu_share: float) -> None:
    """Promises to senders who never wait.

    Args:
        rig: takes them.
        factor: how many times saturation.
        found: what came of it.
        full: what came of saturation.
        cpu_share: answers for each second of the server's CPU, as a share of those at saturation.
    """
    # gRPC itself ends by CANCELLED what it has no time to hand over before the deadline.
    known = (*KNOWN_ENDS, "CANCELLED") if factor == FACTORS[-1] else KNOWN_ENDS
    others = {end: number for end, number in found.ends.items() if not end.startswith(known)}
    rig.check(not others, f"{factor}x that never waits: {found.offered} calls, {found.ends}")
    rig.check(not found.without_hint, f"{found.without_hint} refusals without reason or hint")
    check_goodput(rig, found.rate / full.rate, STRANGERS_GOODPUT[factor])
    rig.verdict.note(f"{cpu_share:.0%} by the server's CPU time")
    rig.check(
        found.refusal_p99 <= rig.allow(REFUSAL_SECONDS[factor]),
        f"refused within {1000 * found.refusal_p50:.0f} ms (p99 {1000 * found.refusal_p99:.0f}, at most "
        f"{1000 * found.refusal_most:.0f})",
    )
    rig.verdict.note(f"the sender was {found.busy:.0%} busy, {1000 * found.late:.0f} ms late at most")
    most = KEPT_P99 * full.answer_p99 if factor == FACTORS[0] else DEADLINE
    rig.check(
        found.answer_p99 <= rig.allow(most),
        f"accepted p99 {1000 * found.answer_p99:.0f} ms",
    )


def check_goodput(rig: Rig, goodput: float, least: float) -> None:
    """Promises a share of saturation. Where others use the machine as well, two loads one after the other do not
    compare: then it is only told."""
    rig.check(goodput >= least or rig.scale.room != 1, f"goodput {goodput:.0%} of saturation")


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


def wait_without_deadline(rig: Rig) -> None:
    """Callers who would wait for ever, more than can be answered in the time that the server allows."""
    cap, number = 1.0, rig.choose(400, 200)
    flags = ("--max-wait-seconds", str(cap), "--queue", "1000", "--workers", "1")
    with rig.serve(*flags) as server, connect(server.address) as channel:
        stub = stroke_pb2_grpc.StrokeServiceStub(channel)
        stub.Predict(pb.PredictRequest(image=rig.images[0]))
        began = time.monotonic()
        took: list[float] = []
        futures = []
        for image in (rig.images * number)[:number]:
            future = stub.Predict.future(pb.PredictRequest(image=image))
            future.add_done_callback(lambda future: took.append(time.monotonic() - began))
            futures.append(future)
        ended = wait_until(lambda: len(took) == number, 60)
        statuses = Counter("OK" if f.exception() is None else read_error("", f.exception()).status for f in futures)
        longest = max(took, default=0.0)
        rig.check(
            ended and longest <= rig.allow(cap + SLACK_SECONDS),
            f"{number} at once without a deadline, allowed {cap:g} s: {dict(statuses)}, the last after {longest:.2f} s",
        )
        known = {"OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
        rig.check(set(statuses) <= known, f"{len(set(statuses) - known)} other statuses")


def share_with_greedy(rig: Rig) -> None:
    """One who has 64 calls on their way all the time, beside one who has one."""
    processors = sorted(os.sched_getaffinity(0))
    # Callers who took the server's processor would be waited for as well.
    wrap = ("taskset", "-c", str(processors[0])) if len(processors) > 1 else ()
    with rig.serve(wrap=wrap) as server:
        (polite,) = rig.make_callers(StubCaller, server.address, 1)
        for image in rig.images:
            polite.call(image, DEADLINE)
        alone = measure(rig, polite)
        busy_from = read_cpu_seconds(server.pid) + 0.3
        crowd = Crowd(rig, server, ",".join(map(str, processors[len(wrap) // 3 :])))
        with ThreadPoolExecutor(1) as pool:
            greedy = pool.submit(crowd.flood, clients=GREEDY, connections=1, seconds=rig.choose(30, 10))
            wait_until(lambda: read_cpu_seconds(server.pid) > busy_from, 20)
            time.sleep(0.5)
            beside = measure(rig, polite)
            is_valid = not greedy.done()
            found, _ = greedy.result()
        polite.close()
    rig.check(is_valid and found.rate > 0, f"the other got {found.rate:.0f} answers a second all the while")
    failures = count_failures([ended for _, ended in beside])
    rig.check(
        not failures, f"{failures.total()} of {len(beside)} of the one's calls failed {dict(failures) or ''}".strip()
    )
    before, after = (find_percentile(sorted(seconds for seconds, _ in one), 99) for one in (alone, beside))
    rig.check(
        after <= rig.allow(FAIR) * before,
        f"its p99 {1000 * before:.0f} ms alone, {1000 * after:.0f} ms beside one with {GREEDY} calls",
    )


def measure(rig: Rig, caller: Caller) -> list[tuple[float, Ended]]:
    """Calls one after the other, with their times."""
    found = []
    for index in range(rig.choose(300, 60)):
        began = time.monotonic()
        ended = caller.call(rig.images[index % len(rig.images)], DEADLINE)
        found.append((time.monotonic() - began, ended))
    return found


FAULTS = (
    Fault(
        "overload",
        "3 and 10 times as many calls as it can answer",
        "ten times as many callers of this project's client: goodput >= 90 % of saturation; 3 x of those who never "
        "wait: refused in < 50 ms (99 %) with RESOURCE_EXHAUSTED, reason and hint, goodput >= 70 %, and what is "
        "accepted keeps its p99 (<= 2 x that at saturation) once the first burst is through; 10 x of them: an end "
        "within their 2 s, goodput >= 35 %; nothing is judged for callers whose deadline has passed",
        overload,
        in_smoke=True,
    ),
    Fault(
        "no-deadline",
        "400 calls at once whose callers would wait for ever, more than can be answered in time",
        "all end within the server's cap (--max-wait-seconds) + 250 ms",
        wait_without_deadline,
        in_smoke=True,
    ),
    Fault(
        "greedy",
        "one with 64 calls on their way all the time, beside one with one",
        "the one's calls do not fail, and its p99 is at most 2.5 times that alone",
        share_with_greedy,
    ),
)
