"""Groups of processes that take turns: bare loops, and those in which Ray judges, the same files on both sides.

All of a group work side by side when they are told to, and each then says what CPU time that took it. What comes before
the first turn, its start and the loading of a model, counts for neither side.
"""

from __future__ import annotations

import multiprocessing
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

import numpy as np
import pyarrow as pa

from cluster.archive.judge import Job, Judge
from cluster.archive.rows import Row
from cluster.models import PROCESSORS, load_registry
from server.core.plan import make_plan
from server.images.preprocess import load_pixels
from server.machine.memory import return_freed_memory
from server.process.children import end_with_parent

SECONDS = 600.0
"""How long is waited for the others: far more than it takes."""

USED = struct.Struct("d")
"""What a process says of its last turn: CPU seconds."""

GO = b"."
Address = tuple[str, int]


class BareLoop:
    """Reads, decodes and scores files one after another, and keeps nothing."""

    def __init__(self, job: Job) -> None:
        """Loads the model, as what judges does."""
        return_freed_memory(PROCESSORS)
        self._job, self._model = job, load_registry(job.server).default
        self._busy = make_plan(job.server, PROCESSORS).is_busy(0)

    def run(self, partition: int) -> None:
        """Goes through the files of a partition."""
        model, limits = self._model, self._job.server.image_limits
        for path in self._job.plan.list_files(partition):
            with open(self._job.source.locate(path), "rb") as file:
                pixels = load_pixels(file.read(), model.input_format, limits)
            model.score(pixels.array[np.newaxis], busy=self._busy)


class Turn:
    """In a process of a group: when it may work."""

    def __init__(self, address: Address) -> None:
        """Joins the group that listens there."""
        self._socket = socket.create_connection(address, SECONDS)
        self._before = 0.0

    def wait(self) -> bool:
        """Says what the last turn took, and waits for the next one; False: no more turns are taken."""
        told = b""
        with suppress(OSError):  # nobody listens any more
            self._socket.sendall(USED.pack(time.process_time() - self._before))
            told = self._socket.recv(len(GO))
        if not told:
            self._socket.close()
        self._before = time.process_time()
        return bool(told)


class Group:
    """Processes that work side by side; use it in a ``with`` statement, the end of which lets them go on alone."""

    def __init__(self, size: int) -> None:
        """Listens for so many of them."""
        self._size, self._members = size, list[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(SECONDS)
        self.address: Address = self._listener.getsockname()

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in (self._listener, *self._members):
            with suppress(OSError):  # it is closed already
                one.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits at it
            one.close()

    def gather(self) -> None:
        """Waits until all are there, and has them take a turn that does not count, to get warm. Raises OSError."""
        for _ in range(self._size):
            member, _ = self._listener.accept()
            member.settimeout(SECONDS)
            self._members.append(member)
        self._hear()
        self.take_turn()

    def take_turn(self) -> float:
        """Has all of them work, and returns their CPU seconds once all have done so. Raises OSError."""
        for member in self._members:
            member.sendall(GO)
        return self._hear()

    def _hear(self) -> float:
        total = 0.0
        for member in self._members:
            said = member.recv(USED.size, socket.MSG_WAITALL)
            if not said:
                raise ConnectionError("a process that is measured has ended")
            total += USED.unpack(said)[0]
        return total


class TurnJudge:
    """Judges a partition in each turn, and all that are left once no more turns are taken."""

    def __init__(self, address: Address, job: Job) -> None:
        """Joins the group, once the model is loaded. Raises what ``Judge`` does."""
        self._judge = Judge(job)
        self.schema: pa.Schema = self._judge.schema
        self._turn = Turn(address)

    def judge(self, partition: int, takes: Callable[[int], bool] = lambda number: True) -> list[Row]:
        """See ``Judge.judge``."""
        self._turn.wait()
        return self._judge.judge(partition, takes)


def run_bare(address: Address, job: Job, partitions: Iterable[int]) -> None:
    """What a process of bare loops does: a partition in each turn."""
    end_with_parent()
    loop, turn = BareLoop(job), Turn(address)
    for partition in partitions:
        if not turn.wait():
            return
        loop.run(partition)
    turn.wait()


@contextmanager
def start_bare(group: Group, job: Job, workers: int) -> Iterator[None]:
    """Starts bare loops, each in a process of its own, and ends them. Of the partitions each takes every so many-th."""
    processes = [
        multiprocessing.get_context("spawn").Process(
            target=run_bare, args=(group.address, job, range(number, job.plan.partitions, workers)), daemon=True
        )
        for number in range(workers)
    ]
    try:
        for process in processes:
            process.start()
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()
