"""The worklist: what a queue's answers say, the most urgent first."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.results.urgency import Urgency
from server.process import cells

FOLDER = "results"
"""Where a queue keeps its answers, one file each."""

COLUMNS = (
    "urgency",
    "label",
    "probability",
    "threshold",
    "accession_number",
    "patient_id",
    "study_date",
    "study_time",
    "look_first_at",
    "reasons",
    "model",
    "judged_at",
    "study_instance_uid",
)
_RANK = {urgency: rank for rank, urgency in enumerate(Urgency)}


class WorklistError(Exception):
    """There is no queue; the message says so."""


@dataclass(frozen=True)
class Entry:
    """A line of the worklist."""

    urgency: Urgency
    probability: float | None
    judged_at: datetime
    fields: dict[str, Any]
    """As ``gateway.results.record`` makes them."""

    cells: dict[str, str]
    """By ``COLUMNS``, as text; empty where there is nothing."""


@dataclass(frozen=True)
class Worklist:
    """Studies, the most urgent first."""

    entries: tuple[Entry, ...]
    unreadable: tuple[str, ...] = field(default=())
    """Names of files that are no answers."""


def read_worklist(queue: Path, since: float = 0.0) -> Worklist:
    """Reads the answers of a queue, of a study that was judged several times the last one.

    Args:
        queue: its folder.
        since: when the first of them was written, in seconds since 1970.

    Raises:
        WorklistError: there is no queue, or it cannot be read.
    """
    latest, unreadable = dict[str, Entry](), []
    try:
        paths = sorted((queue / FOLDER).glob("*.json"))
        if not (queue / FOLDER).is_dir():
            raise WorklistError(f"{queue}: there is no queue of the gateway here: no folder {FOLDER} in it")
        for path in paths:
            try:
                if path.stat().st_mtime < since:
                    continue
                entry = read_entry(path.read_bytes())
            except FileNotFoundError:
                continue  # its time has come meanwhile
            except (ValueError, KeyError, TypeError):
                unreadable.append(path.name)
                continue
            study = entry.cells["study_instance_uid"]
            if study not in latest or entry.judged_at >= latest[study].judged_at:
                latest[study] = entry
    except OSError as error:
        raise WorklistError(f"{queue}: {error.strerror}") from None
    return Worklist(tuple(sort_entries(latest.values())), tuple(unreadable))


def read_entry(text: bytes) -> Entry:
    """Reads an answer.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    fields = json.loads(text)
    judged_at, probability = datetime.fromisoformat(fields["judged_at"]), fields["probability"]
    return Entry(
        Urgency(fields["urgency"]),
        None if probability is None else float(probability),
        judged_at if judged_at.tzinfo else judged_at.replace(tzinfo=UTC),
        fields,
        make_cells(fields),
    )


def make_cells(fields: dict[str, Any]) -> dict[str, str]:
    """An answer as text, by ``COLUMNS``."""
    first = fields["first_look"]
    texts = fields | {
        "look_first_at": first["text"] if first else "",
        "reasons": "; ".join(f"[{one['reason']}] {one['message']}" for one in fields["reasons"]),
        "model": f"{fields['model']} {fields['version']}".strip(),
    }
    return {name: "" if texts[name] is None else str(texts[name]) for name in COLUMNS}


def sort_entries(entries: Iterable[Entry]) -> list[Entry]:
    """Positive studies first, then those that were not analysed, then the rest; among them the most probable, then the
    one that has waited longest."""
    return sorted(entries, key=lambda one: (_RANK[one.urgency], -(one.probability or 0.0), one.judged_at))


def write_csv(worklist: Worklist) -> str:
    """The worklist as CSV with a header, safe to open in a spreadsheet."""
    return cells.write_csv(COLUMNS, (entry.cells.values() for entry in worklist.entries))


def write_json(worklist: Worklist) -> str:
    """The worklist as a list of objects, with all that was kept of each answer."""
    return json.dumps([entry.fields for entry in worklist.entries], ensure_ascii=False, indent=1) + "\n"
