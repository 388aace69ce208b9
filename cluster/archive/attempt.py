"""Attempts at a partition: a file at which processes die is found and given up, so that the run goes on without it.

Each attempt has a mark beside the results for as long as it lasts. Where the next one finds a mark, a process has died,
and nobody knows at which file. So from then on each file is noted in the mark before it is judged.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Any

from cluster.archive.storage import Storage, StorageError

DEATHS = 3
"""Of processes with the same file in hand, then it is given up. More than one: machines are lost, too, whatever they
have in hand."""

VAIN_DEATHS = 8
"""Of processes at the same partition with no file in hand, then the run ends: that would go on for ever."""

MOST_BYTES = 1 << 20
"""Of a mark, which has a few bytes for each death."""


class Attempt:
    """One attempt at a partition; use it in a ``with`` statement."""

    def __init__(self, out: Storage, partition: int) -> None:
        """Begins, after whatever has become of the attempts before.

        Args:
            out: the folder of results.
            partition: its number.

        Raises:
            StorageError: too many processes have died at it, and at none of its files.
            OSError: the mark cannot be written.
        """
        self._out, self._name = out, f".part-{partition:06}.mark"
        before = read_mark(out, self._name)
        self._died_at: list[int | None] = [] if before is None else [*before["died_at"], before["in_hand"]]
        deaths = Counter(self._died_at)
        if deaths.pop(None, 0) >= VAIN_DEATHS:
            raise StorageError(f"{VAIN_DEATHS} processes have died at partition {partition}, at no file of it")
        self._given_up = {number for number, count in deaths.items() if count >= DEATHS}
        self._write(None)

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the end of the run removes what is left
            self._out.remove(self._name)

    def takes(self, number: int) -> bool:
        """Takes a file in hand, by its place in the partition; False: it is given up. Raises OSError."""
        if number in self._given_up:
            return False
        if self._died_at:
            self._write(number)
        return True

    def put_down(self) -> None:
        """Has no file in hand any more. Raises OSError."""
        if self._died_at:
            self._write(None)

    def _write(self, in_hand: int | None) -> None:
        self._out.put(self._name, json.dumps({"died_at": self._died_at, "in_hand": in_hand}).encode())


def read_mark(out: Storage, name: str) -> dict[str, Any] | None:
    """What the attempt before has left; None: it came to its end, or there was none."""
    try:
        data = out.read(name, MOST_BYTES).data
    except FileNotFoundError:
        return None
    with suppress(ValueError):
        return dict(json.loads(data))
    return {"died_at": [], "in_hand": None}  # the machine was lost while it was written
