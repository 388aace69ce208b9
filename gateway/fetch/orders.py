"""What somebody wants from the archive, told by a file to the gateway of the queue; another file says how far it is.

fetching/NAME.order.json   what is wanted; whoever wants it no more removes it
fetching/NAME.state.json   how far it is; written by the gateway alone
"""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.queue.files import read_record, write_record
from gateway.queue.folder import make_key

ORDER, STATE = ".order.json", ".state.json"
MOST_ORDERS = 100
"""That are looked at; of more the others wait."""

KEEP_SECONDS = 86_400.0
"""For what nobody has come back for."""

_STUDY_UID = re.compile(r"[0-9]+(\.[0-9]+){3,}")
_ACCESSION = re.compile(r"[^\\*?\x00-\x1f\x7f]{1,16}")


@dataclass(frozen=True)
class Order:
    """A study that somebody wants, or those of an accession number."""

    study: str = ""
    accession: str = ""


@dataclass(frozen=True)
class Progress:
    """How far an order is."""

    state: str
    """``asked``, ``fetching``, ``done`` or ``failed``."""

    studies: int = 0
    announced: int = 0
    """CT images that the archive says it has."""

    completed: int = 0
    failed: int = 0
    failed_instances: tuple[str, ...] = ()
    """UIDs of the first ones."""

    reason: str = ""
    message: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in ("done", "failed")


def read_wish(text: str) -> Order:
    """Reads a StudyInstanceUID, or an accession number. Numbers with three dots or more are UIDs.

    Raises:
        ValueError: it is neither.
    """
    text = text.strip()
    if _STUDY_UID.fullmatch(text) and len(text) <= 64:
        return Order(study=text)
    if _ACCESSION.fullmatch(text):
        return Order(accession=text)
    raise ValueError(
        "must be a StudyInstanceUID, or an accession number of at most 16 characters without * ? and backslash"
    )


def find_order(folder: Path, order: Order) -> Path:
    """Where an order lies."""
    return folder / f"{make_key(f'{order.study} {order.accession}')}{ORDER}"


def find_state(path: Path) -> Path:
    """Where it is told how far an order is."""
    return path.with_name(path.name.removesuffix(ORDER) + STATE)


def write_order(path: Path, order: Order) -> None:
    """Writes an order.

    Raises:
        OSError: it cannot be written.
    """
    write_record(path, asdict(order))


def read_order(path: Path) -> Order | None:
    """Reads an order; None: there is none that can be read."""
    record = read_record(path)
    try:
        return read_wish(record["study"] or record["accession"])
    except (TypeError, KeyError, ValueError, AttributeError):
        return None


def write_progress(path: Path, progress: Progress) -> None:
    """Tells how far an order is.

    Raises:
        OSError: it cannot be written.
    """
    write_record(find_state(path), asdict(progress))


def read_progress(path: Path) -> Progress | None:
    """How far an order is; None: nobody has begun with it."""
    record: Any = read_record(find_state(path))
    try:
        return Progress(**record | {"failed_instances": tuple(record["failed_instances"])})
    except (TypeError, KeyError):
        return None


def list_orders(folder: Path) -> list[Path]:
    """Orders, in the order of their names."""
    return sorted(folder.glob(f"*{ORDER}"))[:MOST_ORDERS]


def expire_orders(folder: Path) -> None:
    """Removes what nobody has come back for."""
    for path in folder.iterdir():
        try:
            if path.stat().st_mtime < time.time() - KEEP_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue  # somebody has just done it
