"""Several real servers under one name, that are replaced one by one, as a Deployment of Kubernetes does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.fakes import ServerProcess, run_server
from tests.name_server import NameServer
from tests.scraping import find_free_port


@contextmanager
def run_replicas(models: Path, hosts: Sequence[str], *flags: str, port: int = 0) -> Iterator[list[ServerProcess]]:
    """Runs a server on each of some addresses of this machine, all on one port, a free one unless it is given."""
    port = port or find_free_port()
    with ExitStack() as stack:
        yield [
            stack.enter_context(run_server(models, "--host", host, "--port", str(port), "--workers", "1", *flags))
            for host in hosts
        ]


def split_address(server: ServerProcess) -> tuple[str, int]:
    """Host and port."""
    host, _, port = server.address.rpartition(":")
    return host, int(port)


def replace(
    names: NameServer,
    old: Sequence[ServerProcess],
    new: Sequence[ServerProcess],
    settle: Callable[[], object] = lambda: None,
) -> None:
    """Puts new servers in the place of old ones: each is under the name before the old one is told to stop, which is
    not under it any more.

    Args:
        names: knows the old ones.
        old: must end well, every one.
        new: serve already.
        settle: called between the two, which is what ``preStop`` gives time for.
    """
    for before, after in zip(old, new, strict=True):
        names.addresses = [*names.addresses, split_address(after)[0]]
        names.addresses = [host for host in names.addresses if host != split_address(before)[0]]
        settle()
        assert before.stop() == 0
