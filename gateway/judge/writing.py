"""Results written down: all of a study at once, or none."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.queue.files import PART, make_folder, move_folder, remove_folder, write_record, write_whole
from gateway.queue.folder import QueueFolder
from gateway.queue.journal import begin_journal, write_journal


@dataclass(frozen=True)
class WrittenResults:
    """The results of one study."""

    files: Mapping[str, bytes]
    """Contents by file name."""

    identity: tuple[str, ...]
    """UIDs of the objects: the same for the same slices and the same model."""

    record: Mapping[str, Any] = field(default_factory=dict)
    """Its line of the worklist."""


def write_results(folder: QueueFolder, job: str, results: WrittenResults, destinations: Sequence[str]) -> None:
    """Puts results to those that are to be sent.

    Raises:
        OSError: they cannot be written; then nothing of them is there.
    """
    target = folder.sending / job
    if target.exists():  # a kill before the study was removed
        return
    part = folder.sending / f"{job}{PART}"
    remove_folder(part)
    try:
        make_folder(part)
        for name, data in results.files.items():
            write_whole(part / name, data)
        write_journal(part, begin_journal(time.time(), results.identity, tuple(results.files), destinations))
        write_record(folder.results / f"{job}.json", dict(results.record))
        move_folder(part, target)
    except OSError:
        remove_folder(part)
        raise
