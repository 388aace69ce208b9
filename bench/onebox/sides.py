"""What is compared: one process, two on one port, two on two ports; and gRPC's kinds of server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.processes import Service, find_ports, list_tree, run_server
from bench.report.processes import AIO, ONE, ONE_PORT, THREADS, TWO_PORTS

SERVERS = "bench.onebox.servers"
MANY = ("--queue", "128", "--log-level", "error")
"""Of all sides: nobody is refused, however many callers there are."""

SINGLE = ("--workers", "1", "--threads", "1")
"""Of each of two processes: as many workers in all as one process has."""


@dataclass(frozen=True)
class Group:
    """Processes that serve together."""

    services: tuple[Service, ...]
    address: str
    """As our client takes it: HOST:PORT, or several of them."""

    def cpu_seconds(self) -> float:
        """CPU time so far, user and system."""
        return sum(service.cpu_seconds() for service in self.services)

    def read_pss_mb(self) -> float:
        """Memory in MB (2**20 bytes), pages that processes share counted once in all (proc(5), smaps_rollup)."""
        return sum(read_field(pid, "smaps_rollup", "Pss") for pid in self.list_pids()) / 1024

    def count_switches(self) -> int:
        """How often their threads have given up or lost a processor so far."""
        names = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
        tasks = [f"{pid}/task/{task.name}" for pid in self.list_pids() for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(read_field(task, "status", name) for task in tasks for name in names)

    def read_loop_seconds(self) -> float:
        """CPU time so far of the threads that event loops run in: the main ones (schedstat, nanoseconds)."""
        paths = [Path(f"/proc/{service.pid}/task/{service.pid}/schedstat") for service in self.services]
        return sum(int(path.read_text("ascii").split()[0]) for path in paths) / 1e9

    def list_pids(self) -> list[int]:
        """All of them."""
        return [process.pid for service in self.services for process in list_tree(service.pid)]


def read_field(process: int | str, file: str, name: str) -> int:
    """The number behind ``name`` in a file of /proc; 0 of a thread that has ended."""
    try:
        lines = Path(f"/proc/{process}/{file}").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


@contextmanager
def run_one(models: Path, flags: Sequence[str]) -> Iterator[Group]:
    """The server as it is."""
    with run_server(models, [*flags, *MANY]) as service:
        yield Group((service,), service.address)


@contextmanager
def run_on_one_port(models: Path, flags: Sequence[str]) -> Iterator[Group]:
    """Two of them, among which the kernel divides the connections."""
    (port,) = find_ports(1)
    with ExitStack() as stack:
        shared = [*flags, *MANY, *SINGLE, "--port", str(port)]
        services = [stack.enter_context(run_server(models, shared, program=(SERVERS, "shared"))) for _ in range(2)]
        yield Group(tuple(services), services[0].address)


@contextmanager
def run_on_two_ports(models: Path, flags: Sequence[str]) -> Iterator[Group]:
    """Two of them, which our client calls round robin."""
    with ExitStack() as stack:
        services = [stack.enter_context(run_server(models, [*flags, *MANY, *SINGLE])) for _ in range(2)]
        yield Group(tuple(services), ",".join(service.address for service in services))


@contextmanager
def run_kind(kind: str, models: Path, flags: Sequence[str]) -> Iterator[Group]:
    """One of gRPC's kinds of server over the same workers, with nothing around them."""
    with run_server(models, [*flags, *MANY], program=(SERVERS, kind)) as service:
        yield Group((service,), service.address)


SIDES: dict[str, Callable[[Path, Sequence[str]], AbstractContextManager[Group]]] = {
    ONE: run_one,
    ONE_PORT: run_on_one_port,
    TWO_PORTS: run_on_two_ports,
    THREADS: partial(run_kind, "threads"),
    AIO: partial(run_kind, "aio"),
}
"""Name → what runs it, with a folder of models and further flags of the server."""
