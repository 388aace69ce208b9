"""What is written down beside the images of a study: what of it did not come, and what else its results have to say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.queue.files import read_record, write_record
from gateway.reasons import Doubt

NAME = "notes.json"
MOST_NAMED = 3
"""Missing instances that are named; of the others there is the number."""


@dataclass(frozen=True)
class Missing:
    """Instances of a series that somebody named, and that did not come."""

    series: str
    count: int
    announced: int
    named: tuple[str, ...]
    """UIDs of the first of them."""

    by: str
    """Who named them: ``scanner`` or ``archive``."""

    def describe(self) -> str:
        """As a sentence."""
        others = " and others" if self.count > len(self.named) else ""
        names = f" ({', '.join(self.named)}{others})" if self.named else ""
        return f"{self.count} of {self.announced} images that the {self.by} has named did not come{names}."


@dataclass(frozen=True)
class Notes:
    """How a study came."""

    missing: tuple[Missing, ...] = ()
    doubts: tuple[tuple[Doubt, str], ...] = ()
    """With a sentence for each."""

    is_wrong_entry: bool = False
    """Whether the scanner has taken it back, since the images were made in the name of somebody else."""


NOTHING = Notes()


def write_notes(folder: Path, notes: Notes) -> None:
    """Writes them whole; where there is nothing to say, what an earlier try has written goes.

    Raises:
        OSError: they cannot be written.
    """
    if notes == NOTHING:
        (folder / NAME).unlink(missing_ok=True)
    else:
        write_record(folder / NAME, asdict(notes))


def read_notes(folder: Path) -> Notes:
    """Reads them; those that another program has changed say nothing."""
    record = read_record(folder / NAME)
    if record is None:
        return NOTHING
    try:
        missing = [Missing(**one | {"named": tuple(one["named"])}) for one in record["missing"]]
        doubts = [(Doubt(doubt), str(text)) for doubt, text in record["doubts"]]
        return Notes(tuple(missing), tuple(doubts), bool(record["is_wrong_entry"]))
    except (TypeError, KeyError, ValueError):
        return NOTHING


def merge_missing(*lists: Iterable[Missing]) -> tuple[Missing, ...]:
    """Of each series what the first list with it says."""
    found: dict[str, Missing] = {}
    for one in (one for some in lists for one in some):
        found.setdefault(one.series, one)
    return tuple(found.values())
