"""``python -m cluster.bench.archive``: what an archive on Ray costs beside the bare loop, and what its driver needs.

The bare loop reads, decodes and scores files one after another in one process, and keeps nothing. Compared are CPU
times: they hold on machines that others use, too.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from cluster.archive.command import prepare
from cluster.archive.judge import Job, Judge
from cluster.archive.parts import Tally, find_parts, write_part
from cluster.archive.plan import write_plan
from cluster.archive.run import run
from cluster.archive.settings import ScoreConfig
from cluster.archive.storage import Storage
from cluster.bench.free import TERMS, FreeJudge
from cluster.bench.page import publish, table
from cluster.bench.patience import be_patient
from cluster.bench.processes import Meter
from cluster.models import PROCESSORS, load_registry
from cluster.ray_session import connect
from server.config import ServerConfig
from server.core.plan import make_plan
from server.flags import LineParser, check_settings, parse_settings, setting
from server.images.preprocess import load_pixels
from server.process.children import run_main
from server.process.console import say

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
PARTITION = 50
"""Files, where it is counted what was judged between two moments: those that are half done are not known."""

ACTOR = "ray::MapWorker"
"""How Ray calls the processes that judge."""


@dataclass(frozen=True)
class ArchiveOptions:
    """What is measured."""

    rounds: int = setting(5, "rounds in which the bare loop and the judge take turns", least=1, most=1000)
    files: int = setting(4000, "files that are judged on Ray", least=2000, most=10_000_000)
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
        archive = copy_samples(Path(folder) / "archive", options.files)
        usual = prepare(ScoreConfig(input=str(archive), out=f"{folder}/usual"), ServerConfig())
        small = ScoreConfig(input=str(archive), out=f"{folder}/out", partition_files=PARTITION)
        # Before Ray, whose threads in this process would count.
        section: dict[str, Any] = {"process": compare_process(usual, options.rounds)}
        with connect("", 2) as processors:
            section["cluster"] = measure_cluster(
                prepare(small, ServerConfig()), processors, section["process"]["bare_ms"]
            )
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
    judge = Judge(job)
    model = load_registry(job.server).default
    limits, busy = job.server.image_limits, make_plan(job.server, PROCESSORS).is_busy(0)
    paths = [job.source.locate(path) for path in job.plan.list_files(0)]

    def run_bare() -> None:
        for path in paths:
            with open(path, "rb") as file:
                pixels = load_pixels(file.read(), model.input_format, limits)
            model.score(pixels.array[np.newaxis], busy=busy)

    def run_judge() -> None:
        write_part(job.out, job.plan, 0, judge.judge(0), judge.schema)

    run_bare()
    run_judge()
    bare, own = [], []
    for _ in range(rounds):
        bare.append(measure(run_bare) / len(paths))
        own.append(measure(run_judge) / len(paths))
    ratios = sorted(one / other for one, other in zip(bare, own, strict=True))
    return {
        "bare_ms": 1000 * statistics.median(bare),
        "judge_ms": 1000 * statistics.median(own),
        "ratio": statistics.median(ratios),
        "ratio_least": ratios[0],
        "ratio_most": ratios[-1],
    }


def measure(do: Any) -> float:
    """CPU seconds of this process."""
    before = time.process_time()
    do()
    return time.process_time() - before


def measure_cluster(job: Job, workers: int, bare_ms: float) -> dict[str, float]:
    """CPU time of an image on Ray: in the processes that judge, and of all else (the driver and Ray's own processes)
    for each second, since most of that does not depend on the images."""
    meters, started, before = list[Meter](), 0.0, 0
    actors, total, passed, judged = 0.0, 0.0, 0.0, 0
    for number, _ in enumerate(run(job, range(job.plan.partitions), workers, Judge)):
        finished = len(find_parts(job.out, job.plan))  # more than have been told of
        if number < 2 * workers:  # by then all have started
            meters, started, before = [Meter(os.getpid(), ACTOR), Meter(os.getpid())], time.monotonic(), finished
        elif finished < job.plan.partitions:  # by the end of it they have ended
            actors, total = (meter.read() for meter in meters)
            passed, judged = time.monotonic() - started, (finished - before) * PARTITION
    own_ms = 1000 * actors / judged
    return {
        "workers": workers,
        "files": judged,
        "cpu_ms": own_ms,
        "ratio": bare_ms / own_ms,
        "beside": (total - actors) / passed,
        "rate": judged / passed,
    }


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
            f"{cluster['workers']} such processes on Ray, {cluster['files']:,} files",
            f"{cluster['cpu_ms']:.2f} ms",
            f"{cluster['ratio']:.2f}",
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
