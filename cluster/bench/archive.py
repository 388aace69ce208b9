"""``python -m cluster.bench.archive``: what an archive on Ray costs beside the bare loop, and what its driver needs.

The bare loop reads, decodes and scores files one after another in one process, and keeps nothing. Compared are CPU
times: they hold on machines that others use, too. Processes that work side by side are compared with bare loops that do
so, because they share the machine's caches and memory.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from cluster.archive.command import prepare
from cluster.archive.judge import Job, Judge
from cluster.archive.parts import Tally, write_part
from cluster.archive.plan import write_plan
from cluster.archive.run import run
from cluster.archive.settings import ScoreConfig
from cluster.archive.storage import Storage
from cluster.bench.free import TERMS, FreeJudge
from cluster.bench.page import publish, table
from cluster.bench.patience import be_patient
from cluster.bench.processes import Meter
from cluster.bench.turns import BareLoop, Group, TurnJudge, start_bare
from cluster.ray_session import connect
from server.config import ServerConfig
from server.flags import LineParser, check_settings, parse_settings, setting
from server.process.children import run_main
from server.process.console import say

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
WORKERS = 2
"""Processes in which Ray judges, and bare loops beside them."""

WARM_ROUNDS = 2
"""One before those that are measured, and one after them: what a turn took is told where the next one would begin."""


@dataclass(frozen=True)
class ArchiveOptions:
    """What is measured."""

    rounds: int = setting(5, "rounds in which bare loops and what judges take turns", least=1, most=1000)
    files: int = setting(1000, "files that each of them goes through in a turn: a partition", least=100, most=100_000)
    rows: int = setting(1_000_000, "files of the archive whose model costs nothing", least=10_000, most=100_000_000)
    out: Path | None = setting(None, "folder of ray.md and ray.json; none unless given", metavar="DIR")

    def __post_init__(self) -> None:
        check_settings(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints the section and returns 0."""
    parser = LineParser("python -m cluster.bench.archive", "Measures archives on Ray.")
    options = parse_settings(parser, ArchiveOptions, argv)
    be_patient()
    with tempfile.TemporaryDirectory() as folder:
        archive = copy_samples(Path(folder) / "archive", (options.rounds + WARM_ROUNDS) * WORKERS * options.files)
        jobs = [
            prepare(ScoreConfig(str(archive), f"{folder}/{name}", partition_files=options.files), ServerConfig())
            for name in ("process", "cluster")
        ]
        # Before Ray, whose threads in this process would count.
        section: dict[str, Any] = {"process": compare_process(jobs[0], options.rounds)}
        with connect("", WORKERS) as processors:
            section["cluster"] = measure_cluster(jobs[1], processors)
            section["driver"] = measure_driver(Storage(f"{folder}/free"), options.rows, processors)
    say(publish("archive", section, render, options.out))
    return 0


def copy_samples(archive: Path, count: int) -> Path:
    """A folder of so many files: the PNG samples in turn."""
    samples = [path.read_bytes() for path in sorted(SAMPLES.glob("*.png"))]
    for number in range(count):
        folder = archive / f"{number // 1000:03}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06}.png").write_bytes(samples[number % len(samples)])
    return archive


def compare_process(job: Job, rounds: int) -> dict[str, float]:
    """CPU time of an image in the bare loop and in the judge, files written; they take turns in this process."""
    judge, loop, files = Judge(job), BareLoop(job), job.plan.count_files(0)

    def run_bare() -> None:
        loop.run(0)

    def run_judge() -> None:
        write_part(job.out, job.plan, 0, judge.judge(0), judge.schema)

    run_bare()
    run_judge()
    bare, own = [], []
    for _ in range(rounds):
        bare.append(measure(run_bare) / files)
        own.append(measure(run_judge) / files)
    return compare("judge_ms", bare, own)


def measure(do: Callable[[], None]) -> float:
    """CPU seconds of this process."""
    before = time.process_time()
    do()
    return time.process_time() - before


def compare(name: str, bare: Sequence[float], own: Sequence[float]) -> dict[str, float]:
    """CPU seconds of an image in each round, as figures: the medians, and the ratio of the same round."""
    ratios = sorted(one / other for one, other in zip(bare, own, strict=True))
    return {
        "bare_ms": 1000 * statistics.median(bare),
        name: 1000 * statistics.median(own),
        "ratio": statistics.median(ratios),
        "ratio_least": ratios[0],
        "ratio_most": ratios[-1],
    }


def measure_cluster(job: Job, workers: int) -> dict[str, float]:
    """CPU time of an image in the processes in which Ray judges, and in as many bare loops without Ray, each side by
    side over a partition each; the two take turns. Of all else (the driver and Ray's own processes) CPU time for each
    second in which Ray judges, since most of that does not depend on the images."""
    with ThreadPoolExecutor(1) as pool, Group(workers) as own, Group(workers) as bare, start_bare(bare, job, workers):
        taken = pool.submit(take_turns, own, bare, job.plan.partitions // workers - WARM_ROUNDS)
        for _ in run(job, range(job.plan.partitions), workers, partial(TurnJudge, own.address)):
            pass
        figures = taken.result()
    files = workers * job.plan.count_files(0)
    return {
        "workers": workers,
        "files": len(figures.own) * files,
        **compare("cpu_ms", [one / files for one in figures.bare], [one / files for one in figures.own]),
        "beside": figures.beside / figures.seconds,
    }


@dataclass
class Turns:
    """What turns took: CPU seconds of both groups in each round, and in those of Ray's, together, CPU seconds of all
    other processes and the time that passed."""

    bare: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    beside: float = 0.0
    seconds: float = 0.0

    def take_bare(self, group: Group) -> None:
        """One of bare loops."""
        self.bare.append(group.take_turn())

    def take_own(self, group: Group) -> None:
        """One in which Ray judges."""
        meter, started = Meter(os.getpid()), time.monotonic()
        self.own.append(group.take_turn())
        self.seconds += time.monotonic() - started
        self.beside += meter.read() - self.own[-1]


def take_turns(own: Group, bare: Group, rounds: int) -> Turns:
    """Has two groups take turns, backwards in every other round, and lets the first one go on alone after that."""
    turns = Turns()
    steps = [partial(turns.take_bare, bare), partial(turns.take_own, own)]
    with own, bare:
        own.gather()
        bare.gather()
        for number in range(rounds):
            for step in steps[:: -1 if number % 2 else 1]:
                step()
            ratio = turns.bare[-1] / turns.own[-1]
            print(f"round {number + 1} of {rounds}: {ratio:.2f}", file=sys.stderr, flush=True)
    return turns


def measure_driver(out: Storage, rows: int, workers: int) -> dict[str, Any]:
    """Memory of the driver while an archive of so many files is judged at no cost, by tenths of it."""
    out.make()
    own = psutil.Process()
    names = (f"{number // 1000:06}/{number:08}.png" for number in range(rows))
    plan = write_plan(out, TERMS, names, {}, lambda files: None)
    job = Job(Storage("nowhere"), out, plan, ServerConfig())
    listed_mb = own.memory_info().rss / 2**20
    total, samples, started = Tally(), list[float](), time.monotonic()
    for _, tally in run(job, range(plan.partitions), workers, FreeJudge):
        total.add(tally)
        if total.files * 10 >= rows * (len(samples) + 1):
            samples.append(own.memory_info().rss / 2**20)
            print(f"{total.files:,} files: driver {samples[-1]:.0f} MB", file=sys.stderr, flush=True)
    assert total.files == rows, total
    return {
        "rows": rows,
        "partitions": plan.partitions,
        "listed_mb": listed_mb,
        "tenths_mb": samples,
        "growth_mb": samples[-1] - samples[1],
        "seconds": time.monotonic() - started,
    }


def render(section: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    process, cluster, driver = section["process"], section["cluster"], section["driver"]
    rows = [
        ("bare loop: read, decode, score", f"{process['bare_ms']:.2f} ms", "1"),
        (
            "the process that judges: all fields of an answer, Parquet, fsync",
            f"{process['judge_ms']:.2f} ms",
            f"{process['ratio']:.2f} ({process['ratio_least']:.2f} to {process['ratio_most']:.2f})",
        ),
        (
            f"{cluster['workers']} bare loops side by side, each in a process of its own",
            f"{cluster['bare_ms']:.2f} ms",
            "1",
        ),
        (
            f"{cluster['workers']} processes that judge on Ray, {cluster['files']:,} files",
            f"{cluster['cpu_ms']:.2f} ms",
            f"{cluster['ratio']:.2f} ({cluster['ratio_least']:.2f} to {cluster['ratio_most']:.2f})",
        ),
    ]
    tenths = ", ".join(f"{value:.0f}" for value in driver["tenths_mb"])
    return "\n\n".join(
        (
            table(("CPU time of an image", "", "share of the bare loop's speed"), rows),
            f"Beside them, the driver and Ray's own processes took {100 * cluster['beside']:.0f} % of a processor, "
            "however fast the images went.",
            f"Driver, {driver['rows']:,} files in {driver['partitions']:,} partitions, with a model that costs "
            f"nothing: {tenths} MB after each tenth; from the second tenth on it grew by {driver['growth_mb']:.0f} MB.",
        )
    )


if __name__ == "__main__":
    run_main(main)
