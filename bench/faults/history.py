"""What every call has met: written down as it happens, for ``bench.faults.checker`` to judge afterwards."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

OK = "OK"


@dataclass(frozen=True)
class Sent:
    """A call begins."""

    call: str
    """Its id, which no other call has."""

    client: str
    """Who makes it."""

    sha256: str
    """Of the image."""

    deadline: float
    """Seconds that the caller waits."""

    at: float
    """Seconds of ``time.monotonic``, as in all entries."""


@dataclass(frozen=True)
class Ended:
    """A call has ended, as its caller sees it."""

    call: str
    status: str
    """``OK``, or gRPC's name of the code."""

    at: float
    reason: str = ""
    answer_id: str = ""
    """The id in the answer, and below what else is in it; empty unless ``OK``."""

    sha256: str = ""
    version: str = ""
    digest: str = ""
    """Of the model file."""

    scores: tuple[float, ...] = ()
    """Probabilities as they came, each a float32."""


@dataclass(frozen=True)
class Declared:
    """Somebody says that a version is good, and from when on it may answer."""

    version: str
    digest: str
    at: float
    is_rollback: bool = False
    """Answers of versions before may come again."""

    until: float = 0.0
    """Of a rollback: when it was known to be done. Nobody but the server knows when between the two it was."""


Entry = Sent | Ended | Declared


class History:
    """The entries in the order in which they came. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Writes one down."""
        with self._lock:
            self._entries.append(entry)

    def declare(self, version: str, digest: str) -> None:
        """Writes down that a version may answer from now on."""
        self.add(Declared(version, digest, time.monotonic()))

    def declare_rollback(self, version: str, digest: str, began: float) -> None:
        """Writes down that a version was brought back between ``began`` and now."""
        self.add(Declared(version, digest, began, is_rollback=True, until=time.monotonic()))

    def list_entries(self) -> list[Entry]:
        """All of them so far."""
        with self._lock:
            return list(self._entries)

    def save(self, path: Path) -> None:
        """Writes them as lines of JSON, for whoever wants to see what was refused."""
        with path.open("w", encoding="utf-8") as file:
            for entry in self.list_entries():
                file.write(json.dumps({"kind": type(entry).__name__, **asdict(entry)}) + "\n")


def load(lines: Iterable[str]) -> list[Entry]:
    """Reads what ``History.save`` has written."""
    kinds = {kind.__name__: kind for kind in (Sent, Ended, Declared)}
    entries: list[Entry] = []
    for line in lines:
        fields = json.loads(line)
        kind = kinds[fields.pop("kind")]
        if "scores" in fields:
            fields["scores"] = tuple(fields["scores"])
        entries.append(kind(**fields))
    return entries
