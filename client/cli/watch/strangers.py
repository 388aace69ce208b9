"""What a watch says of files that it does not judge."""

from __future__ import annotations

import os
from collections.abc import Set

from ...files.folder import LeftOut
from ..results import left_out_to_json
from .log import WatchLog


class Strangers:
    """Names the first of each kind that is no image, and records each file of which somebody may miss a result.

    Args:
        left_out: what the last look at the folder has found.
        log: where it is said.
    """

    def __init__(self, left_out: LeftOut, log: WatchLog) -> None:
        self._left_out = left_out
        self._log = log
        self._kinds: set[str] = set()
        self._recorded: Set[str] = frozenset()

    def take_up(self) -> str:
        """Takes what was there before; returns it as the rest of a sentence."""
        self._record()
        self._kinds.update(self._left_out.files.values())
        return f"; {self._left_out.describe()}" if self._left_out.files else ""

    def look(self) -> None:
        """Says what has come since."""
        self._record()
        for path, kind in self._left_out.files.items():
            if kind not in self._kinds:
                self._kinds.add(kind)
                why = f"left out, as all like it: {kind}; PNG, JPEG and DICOM files are judged"
                self._log.note(os.path.basename(path), why)

    def _record(self) -> None:
        unjudged = self._left_out.unjudged
        for path in sorted(unjudged.keys() - self._recorded):
            self._log.show_record(left_out_to_json(path, unjudged[path]))
        self._recorded = unjudged.keys()
