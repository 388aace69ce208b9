"""``python -m cluster score``: an archive in, Parquet parts and a summary out."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from typing import Any

from cluster.archive.files import read_manifest, walk
from cluster.archive.judge import Job, Judge, make_terms
from cluster.archive.parts import Tally, find_parts, remove_left
from cluster.archive.plan import PlanError, check_terms, read_plan, write_plan
from cluster.archive.run import ClusterError, PartitionJudge, run
from cluster.archive.settings import ScoreConfig
from cluster.archive.storage import Storage, StorageError, tell
from cluster.progress import Progress, format_duration
from cluster.ray_session import connect
from cluster.settings import OF_MODEL, read_command
from server.config import ServerConfig
from server.errors import ModelFileError
from server.flags import LineParser
from server.images.image_folder import PLURALS
from server.process.console import complain, say
from server.process.program import EXIT_INTERRUPTED

EXIT_ANSWERED, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
"""As those of the client."""

EPILOG = """examples:
  python -m cluster score /archive/ct --out /results/2026-11
  python -m cluster score s3://archive/ct --out s3://results/2026-11 --address auto
  python -m cluster score /archive/ct --manifest wanted.csv --out wanted --json
  python -m cluster score /archive/ct --out again --model stroke-cnn/4 --precision fp32

After a stop, a crash or a full disk the same command goes on: partitions that are finished stay as they are. All that
a table of the results needs is in OUT/part-*.parquet; a file that could not be judged is a row with its reason.
With --address, all machines must see INPUT, OUT and --models by the same names.
exit status: 0 all files answered, 1 some not, 2 wrong usage or nothing to judge, 130 interrupted
Research software: not a medical device, not for diagnosis.
"""


def main(argv: Sequence[str]) -> int:
    """Judges an archive and returns the exit code."""
    parser = LineParser("python -m cluster score", "Judges each file of an archive once, by the server's core.", EPILOG)
    return score(*read_command(parser, ScoreConfig, OF_MODEL, argv))


def score(config: ScoreConfig, server: ServerConfig, make_judge: Callable[[Job], PartitionJudge] = Judge) -> int:
    """Judges an archive and returns the exit code. ``make_judge`` makes what judges, in each process."""
    started = time.monotonic()
    try:
        job = prepare(config, server)
        done = find_parts(job.out, job.plan)
    except (ModelFileError, PlanError, StorageError) as error:
        complain(f"cluster score: error: {error}")
        return EXIT_USAGE
    except OSError as error:
        complain(f"cluster score: error: {config.out}: cannot be used ({tell(error)})")
        return EXIT_USAGE
    total = add_up(done.values())
    pending = [number for number in range(job.plan.partitions) if number not in done]
    code = judge_rest(config, job, pending, total, make_judge) if pending else EXIT_ANSWERED
    if code:  # parts may have been written that nobody was told of
        with suppress(OSError):
            total = add_up(find_parts(job.out, job.plan).values())
    summary = {
        **total.to_json(),
        "missing": job.plan.files - total.files,
        "left_out": job.plan.left_out,
        "model": job.plan.terms.model,
        "version": job.plan.terms.version,
        "digest": job.plan.terms.digest,
        "out": config.out,
        "partitions": job.plan.partitions,
        "skipped_partitions": len(done),
        "seconds": round(time.monotonic() - started, 3),
    }
    say(json.dumps(summary) if config.json else describe(summary))
    return code or (EXIT_FAILED if total.failed else EXIT_ANSWERED)


def add_up(tallies: Iterable[Tally]) -> Tally:
    """What has come of all files of some partitions."""
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def prepare(config: ScoreConfig, server: ServerConfig) -> Job:
    """Finds out what there is to do, or what an earlier run has fixed.

    Raises:
        ModelFileError, PlanError, StorageError: there is nothing, or it cannot be done.
        OSError: the folder of results cannot be made or read.
    """
    source, out = Storage(config.input), Storage(config.out)
    manifest = None if config.manifest is None else str(config.manifest)
    terms = make_terms(server, source, manifest, config.partition_files)
    out.make()
    plan = read_plan(out)
    if plan is not None:
        check_terms(plan, terms, out)
        return Job(source, out, plan, server)
    left_out: Counter[str] = Counter()
    progress = Progress()
    paths = walk(source, left_out) if config.manifest is None else read_manifest(config.manifest)
    plan = write_plan(out, terms, paths, left_out, lambda files: progress.note("listing", files))
    progress.end()
    return Job(source, out, plan, server)


def judge_rest(
    config: ScoreConfig,
    job: Job,
    pending: Sequence[int],
    total: Tally,
    make_judge: Callable[[Job], PartitionJudge],
) -> int:
    """Judges the partitions that are left, adds to ``total`` what comes of them, and returns the exit code."""
    progress = Progress(skipped=total.files)
    missing = set(pending)
    try:
        # Ray tells of processes that died on standard output, where the summary is to be alone.
        with redirect_stdout(sys.stderr), connect(config.address, config.workers) as processors:
            for partition, tally in run(job, pending, config.workers or processors, make_judge):
                if partition in missing:  # a block of results that was lost comes again
                    missing.discard(partition)
                    total.add(tally)
                progress.note("judging", total.files, job.plan.files)
    except KeyboardInterrupt:
        complain("cluster score: interrupted; the same command goes on with the rest")
        return EXIT_INTERRUPTED
    except (ClusterError, OSError) as error:
        complain(f"cluster score: error: {tell(error)}; the same command goes on with the rest")
        return EXIT_FAILED
    finally:
        progress.end()
        with suppress(OSError):  # else the next run would take the end of this one for that of processes
            remove_left(job.out)
    return EXIT_ANSWERED


def describe(summary: Mapping[str, Any]) -> str:
    """The summary for people."""
    lines = [
        f"{summary['files']:,} files in {format_duration(summary['seconds'])} by {summary['model']} "
        f"{summary['version']}: {summary['out']}"
    ]
    if summary["skipped_partitions"]:
        lines.append(
            f"  {summary['skipped_partitions']:,} of {summary['partitions']:,} partitions were finished before"
        )
    for name, counts in (("", summary["labels"]), ("not analysed, ", summary["not_analysed"])):
        lines += [f"  {count:,} {name}{key}" for key, count in sorted(counts.items())]
    lines += [f"  {count:,} not judged: {reason}" for reason, count in sorted(summary["failed"].items())]
    if summary["left_out"]:
        kinds = (
            f"{n:,} {kind if n == 1 else PLURALS.get(kind, f'{kind}s')}" for kind, n in summary["left_out"].items()
        )
        lines.append(f"  left out: {', '.join(kinds)}")
    if summary["missing"]:
        lines.append(f"  {summary['missing']:,} files are still to be judged")
    return "\n".join(lines)
