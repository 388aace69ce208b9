"""A gateway that kills itself at a step, for tests of restarts.

    python -m tests.gateway_driver QUEUE ARCHIVE STEP QUIET FETCH_FROM

It prints its port. The server is a fake one, so that it starts in a second.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.deliver import outbox
from gateway.fetch import archive
from gateway.judge import judge, writing
from gateway.listen.quiet import quiet_libraries
from gateway.listen.service import Gateway
from gateway.listen.settings import ListenConfig
from gateway.queue import arrivals, files, steps
from tests.gateway_box import FakeClient, make_written, send_all

STEPS: dict[str, tuple[Any, str, bool]] = {
    "instance half written": (files.os, "replace", False),
    "instance written and not answered": (arrivals, "write_whole", True),
    "study complete": (arrivals, "move_folder", True),
    "judged and not written": (judge, "write_results", False),
    "results half written": (writing, "write_journal", False),
    "results written": (judge, "write_results", True),
    "sent and not noted": (outbox, "write_journal", False),
    "noted and not remembered": (outbox, "write_journal", True),
    "remembered and not removed": (outbox, "remove_folder", False),
    "half removed": (files.shutil, "rmtree", False),
}
STEPS_OF_SCANNERS: dict[str, tuple[Any, str, bool]] = {
    "step half written": (steps, "write_whole", False),
    "step written and not answered": (steps, "write_whole", True),
    "all is here": (arrivals, "write_notes", False),
    "notes written": (arrivals, "write_notes", True),
    "step settled": (steps.Steps, "settle", True),
    "study complete": (arrivals, "move_folder", True),
}
STEPS_OF_FETCHES: dict[str, tuple[Any, str, bool]] = {
    "archive asked": (archive.Archive, "find_series", True),
    "series fetched": (archive.Archive, "move", True),
    "fetched and not released": (arrivals.Arrivals, "release", False),
    "released": (arrivals.Arrivals, "release", True),
    "study complete": (arrivals, "move_folder", True),
}
"""Function by its module → whether the process ends after it; otherwise it ends in its place."""


def kill_at(step: str) -> None:
    """Has the process end as by a power cut when it comes to a step."""
    module, name, is_after = (STEPS | STEPS_OF_SCANNERS | STEPS_OF_FETCHES)[step]
    original: Callable[..., object] = getattr(module, name)

    def end(*arguments: object, **options: object) -> None:
        if is_after:
            original(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, name, end)


def make_config(queue: Path, archive: str, quiet: float = 0.5, fetch_from: str = "") -> ListenConfig:
    """Settings of a gateway that is in a hurry."""
    return ListenConfig(
        queue=queue,
        send_to=(archive,),
        dicom_port=0,
        quiet_seconds=quiet,
        least_free_mb=1,
        fetch_from=fetch_from,
    )


def main() -> int:
    queue, destination, step, quiet, fetch_from = sys.argv[1:]
    quiet_libraries()
    config = make_config(Path(queue), destination, float(quiet), fetch_from)
    gateway = Gateway(config, FakeClient(), send_all, make_written)  # type: ignore[arg-type]
    kill_at(step)
    return gateway.run(handle_signals=True)


if __name__ == "__main__":
    sys.exit(main())
