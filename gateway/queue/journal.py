"""What is written down beside the results of a study: which destination has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from gateway.queue.files import read_record, write_record

NAME = "journal.json"


class State(StrEnum):
    """How far a delivery has come."""

    PENDING = "pending"
    SENT = "sent"
    GIVEN_UP = "given up"


@dataclass(frozen=True)
class Delivery:
    """The results of a study, and one destination."""

    state: State = State.PENDING
    why: str = ""
    """Why it was given up."""


@dataclass(frozen=True)
class Journal:
    """The results of one job."""

    made: float
    """When they were made, in seconds since 1970: it has to hold across restarts."""

    identity: tuple[str, ...]
    """UIDs of the objects: the same study, judged again by the same model, has the same."""

    files: tuple[str, ...]
    """Names of the results."""

    deliveries: dict[str, Delivery] = field(default_factory=dict)
    """By the names of the destinations."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to be done."""
        return all(one.state is not State.PENDING for one in self.deliveries.values())

    @property
    def given_up(self) -> dict[str, str]:
        """Destinations that do not have the results, and why."""
        return {name: one.why for name, one in self.deliveries.items() if one.state is State.GIVEN_UP}

    def note(self, destination: str, state: State, why: str = "") -> Journal:
        """The journal after a delivery has ended."""
        return replace(self, deliveries={**self.deliveries, destination: Delivery(state, why)})


def reopen(journal: Journal, made: float) -> Journal:
    """A journal in which what was given up is to be tried again, as from ``made`` on."""
    deliveries = {name: Delivery() if one.state is State.GIVEN_UP else one for name, one in journal.deliveries.items()}
    return replace(journal, made=made, deliveries=deliveries)


def begin_journal(made: float, identity: Sequence[str], files: Sequence[str], destinations: Sequence[str]) -> Journal:
    """A journal of results that nobody has yet."""
    return Journal(made, tuple(identity), tuple(files), dict.fromkeys(destinations, Delivery()))


def write_journal(folder: Path, journal: Journal) -> None:
    """Writes it whole.

    Raises:
        OSError: it cannot be written; the one before is as it was.
    """
    write_record(folder / NAME, asdict(journal))


def read_journal(folder: Path) -> Journal | None:
    """Reads it; None: there is none that this program has written."""
    record = read_record(folder / NAME)
    try:
        deliveries = {name: Delivery(State(one["state"]), one["why"]) for name, one in record["deliveries"].items()}
        return Journal(float(record["made"]), tuple(record["identity"]), tuple(record["files"]), deliveries)
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
