"""Judges partitions, by the server's own core: what a process of a cluster does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import inf

from cluster.archive.plan import Plan, Terms, split
from cluster.archive.rows import Row, make_row, make_schema
from cluster.archive.storage import Content, Storage, tell
from cluster.models import PROCESSORS, load_registry
from proto import __version__
from server.admission.status import Status, to_status
from server.config import ServerConfig
from server.core.detector import Budget, Detection, Detector
from server.core.plan import make_plan
from server.errors import ModelFileError
from server.machine.memory import return_freed_memory

LOCAL_READERS, STORE_READERS = 2, 8
"""Groups of files that are read at the same time: in an object store each file takes tens of milliseconds. Each thread
takes processor time from the one that judges: with 8 an image costs 3 % more than with 2."""

FILES_AHEAD = 64
"""Files that are in memory, or are being read, before they are judged."""

GIVEN_UP = Status(
    "INTERNAL", "PROCESS_DIED", "processes died while they judged the image, one after another: it was given up"
)


@dataclass(frozen=True)
class Job:
    """A run: what is to be judged, by what, and where the results go. It can be sent to other processes."""

    source: Storage
    out: Storage
    plan: Plan
    server: ServerConfig


def make_terms(server: ServerConfig, source: Storage, manifest: str | None, partition_files: int) -> Terms:
    """By what the files of a run are judged: the model that a server would answer with by default, without a canary.

    Raises:
        ModelFileError: there is none.
    """
    model, limits = load_registry(server).default, server.image_limits
    return Terms(
        software=__version__,
        input=source.name,
        manifest=manifest,
        partition_files=partition_files,
        model=model.spec.name,
        version=model.spec.version,
        digest=model.digest,
        labels=tuple(model.spec.labels),
        checks=server.checks,
        limits=(limits.max_bytes, limits.min_side, limits.max_side, limits.max_pixels),
    )


class Judge:
    """Judges files one after another with one processor, while the next ones are read."""

    def __init__(self, job: Job) -> None:
        """Loads the model.

        Raises:
            ModelFileError: it cannot be loaded, or MODEL_DIFFERS: here it is not the one that the run began with.
        """
        return_freed_memory(PROCESSORS)
        terms = job.plan.terms
        server = replace(job.server, model=f"{terms.model}/{terms.version}")
        registry = load_registry(server)
        if registry.default.digest != terms.digest:
            raise ModelFileError(
                "MODEL_DIFFERS",
                f"{server.models}: {server.model} is here the file with the SHA-256 {registry.default.digest[:12]}, "
                f"and the run began with {terms.digest[:12]}: give all machines the same models, and --precision "
                "fp32 where their processors differ",
            )
        self._job = job
        self._most_bytes = server.max_image_bytes + 1  # enough to be refused
        plan = make_plan(server, PROCESSORS)
        self._detector = Detector(registry, plan, queue=0, limits=server.image_limits, checks=server.checks == "on")
        self.schema = make_schema(terms.labels)

    def judge(self, partition: int, takes: Callable[[int], bool] = lambda number: True) -> list[Row]:
        """Judges the files of a partition, in their order.

        Args:
            partition: its number.
            takes: is told of each file before it is judged, by its place; False: it is to be given up.

        Raises:
            OSError: the plan cannot be read, or by ``takes``.
        """
        paths = self._job.plan.list_files(partition)
        rows = []
        for number, (path, content) in enumerate(self.read(paths)):
            # The same in every run, and where a log names it the row is found.
            request_id = f"{partition:06}-{number:06}"
            read = None if isinstance(content, Status) else content
            if isinstance(content, Status):
                outcome: Detection | Status = content
            else:
                outcome = self._detect(content.data, request_id) if takes(number) else GIVEN_UP
            rows.append(make_row(self._job.source.show(path), request_id, outcome, read))
        return rows

    def _detect(self, data: bytes, request_id: str) -> Detection | Status:
        try:
            return self._detector.detect_here(data, Budget(inf))
        except Exception as error:
            return to_status(error, request_id)

    def read(self, paths: Iterable[str]) -> Iterator[tuple[str, Content | Status]]:
        """Yields files as they are read, in their order; some are read while others are judged."""
        waiting: deque[tuple[list[str], Future[list[Content | Status]]]] = deque()
        readers = LOCAL_READERS if self._job.source.is_local else STORE_READERS
        with ThreadPoolExecutor(readers) as pool:
            for group in split(paths, FILES_AHEAD // readers):
                waiting.append((group, pool.submit(self._read_all, group)))
                if len(waiting) == readers:
                    yield from take_first(waiting)
            while waiting:
                yield from take_first(waiting)

    def _read_all(self, paths: list[str]) -> list[Content | Status]:
        return [self._read(path) for path in paths]

    def _read(self, path: str) -> Content | Status:
        try:
            return self._job.source.read(path, self._most_bytes)
        except (OSError, ValueError) as error:
            return Status("INVALID_ARGUMENT", "IMAGE_UNREADABLE", f"the image cannot be read: {tell(error)}")


def take_first(
    waiting: deque[tuple[list[str], Future[list[Content | Status]]]],
) -> Iterator[tuple[str, Content | Status]]:
    """The files of the first group that is read or being read, each given up as it is taken."""
    paths, future = waiting.popleft()
    contents = future.result()
    contents.reverse()
    for path in paths:
        yield path, contents.pop()
