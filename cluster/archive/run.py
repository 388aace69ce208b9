"""The partitions of a run, spread over the actors of a Ray cluster by Ray Data.

Through Ray go numbers of partitions and counts, never a file or a row. An actor that dies is started again, and its
partition is judged by the next one; what it had finished is found, not judged again. A file that kills every process
is given up (``cluster.archive.attempt``), so Ray may try as often as it takes, as it does by default.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa

from cluster.archive.attempt import Attempt
from cluster.archive.judge import Job
from cluster.archive.parts import Tally, read_part, read_tally, write_part
from cluster.archive.rows import Row
from cluster.archive.storage import StorageError
from server.errors import StrokeError

MOST_TASKS = 4096
"""Each task of Ray takes some kB of the driver, so of a very large archive it has several partitions."""


class PartitionJudge(Protocol):
    """What judges; ``cluster.archive.judge.Judge`` is one."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of its rows."""

    def judge(self, partition: int, takes: Callable[[int], bool]) -> list[Row]:
        """The rows of a partition. ``takes`` is told of each file before; False: it is to be given up."""


class Worker:
    """What an actor does with the numbers of partitions."""

    def __init__(self, job: Job, make_judge: Callable[[Job], PartitionJudge]) -> None:
        """Makes what judges.

        Raises:
            RuntimeError: it cannot; the text is for the user.
        """
        self._job = job
        try:
            self._judge = make_judge(job)
        except StrokeError as error:  # does not survive the way to another process
            raise RuntimeError(f"{error.message} [{error.reason}]") from None

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        """Judges partitions, and tells of each what has come of it."""
        job = self._job
        for partition in batch["partition"].tolist():
            found = read_part(job.out, job.plan, partition)  # of one that died between writing and telling
            if found is None:
                with Attempt(job.out, partition) as attempt:
                    rows = self._judge.judge(partition, attempt.takes)
                    attempt.put_down()
                    found = write_part(job.out, job.plan, partition, rows, self._judge.schema)
            yield {"partition": [partition], "tally": [json.dumps(found.to_json())]}


def run(
    job: Job, pending: Sequence[int], workers: int, make_judge: Callable[[Job], PartitionJudge]
) -> Iterator[tuple[int, Tally]]:
    """Judges partitions, and yields each once it is written, in no order. Ray must be connected.

    Args:
        job: the run.
        pending: the partitions that are to be judged; at least one.
        workers: actors, one processor each.
        make_judge: makes what judges, in each of them.

    Raises:
        ClusterError: an actor cannot work; the message is one line.
    """
    import ray

    silence(ray)
    numbers = ray.data.from_items(
        [{"partition": number} for number in pending], override_num_blocks=min(len(pending), MOST_TASKS)
    )
    actors = max(1, min(workers, len(pending)))
    results = numbers.map_batches(
        Worker,
        batch_size=1,
        batch_format="numpy",
        fn_constructor_args=(job, make_judge),
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
    )
    try:
        for batch in results.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
            for partition, text in zip(batch["partition"].tolist(), batch["tally"].tolist(), strict=True):
                yield partition, read_tally(json.loads(text))
    except ray.exceptions.RayError as error:
        raise ClusterError(describe(error)) from None


class ClusterError(StorageError):
    """The cluster has given up."""


def silence(ray: Any) -> None:
    """Has Ray Data report nothing but errors."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def describe(error: Exception) -> str:
    """What an error of Ray comes to, in one line: the last of the traceback that it brings along."""
    cause: BaseException | None = getattr(error, "cause", None)
    words = str(cause if cause is not None else error).strip().splitlines()
    return words[-1].strip() if words else type(error).__name__
