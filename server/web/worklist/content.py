"""What the gateway's file says, checked field by field before any of it is shown.

    {"format": "strokeserve-worklist", "version": 1, "written_at": "2026-11-30T04:05:06+00:00", "hours": 24,
     "waiting": 0, "left_out": 0, "studies": [{"urgency": "positive", ...}, ...]}

Studies stand in the order in which to look at them. Each has the fields of ``COLUMNS``; what is not known is null.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

FORMAT, VERSION = "strokeserve-worklist", 1
MOST_STUDIES = 2000
MOST_TEXT = 1000
"""Characters of a field."""

URGENCIES = ("positive", "not-analysed", "rest")
NUMBERS = ("probability", "threshold")
"""Fields that are numbers from 0 to 1; the others are texts."""

COLUMNS = (
    "urgency",
    "label",
    *NUMBERS,
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

Study = Mapping[str, Any]


@dataclass(frozen=True)
class Worklist:
    """Studies in the order in which to look at them."""

    written_at: datetime
    """With a time zone."""

    hours: float
    """How far back it goes."""

    waiting: int
    """Studies that have come to the gateway and are not judged yet."""

    left_out: int
    """Less urgent studies that found no room in it."""

    studies: tuple[Study, ...]

    def find_age(self, now: datetime) -> float:
        """Seconds since it was written; below 0 where the clocks of its writer and this machine differ."""
        return (now - self.written_at).total_seconds()

    def count(self) -> dict[str, int]:
        """Studies of each urgency."""
        counted = Counter(study["urgency"] for study in self.studies)
        return {urgency: counted[urgency] for urgency in URGENCIES}


def parse_worklist(data: bytes) -> Worklist:
    """Reads the file's content.

    Raises:
        ValueError: it is not what the gateway writes.
    """
    try:
        found = json.loads(data)
        head = (found["format"], found["version"])
        written_at = datetime.fromisoformat(found["written_at"])
        hours, counts, studies = found["hours"], (found["waiting"], found["left_out"]), found["studies"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("it is no worklist of the gateway") from None
    if not 2000 <= written_at.year < 3000:
        raise ValueError("it does not say when it was written")
    if head != (FORMAT, VERSION) or not isinstance(studies, list) or len(studies) > MOST_STUDIES:
        raise ValueError(f"it is no worklist of version {VERSION} with at most {MOST_STUDIES:,} studies")
    if not (
        is_number(hours) and 0 < hours <= 1e6 and all(type(count) is int and 0 <= count < 10**9 for count in counts)
    ):
        raise ValueError("it does not say how far back it goes, or how much is not on it")
    zoned = written_at if written_at.tzinfo else written_at.replace(tzinfo=UTC)
    return Worklist(zoned, float(hours), *counts, tuple(map(check_study, studies)))


def check_study(found: Any) -> Study:
    """The fields of a study.

    Raises:
        ValueError: they are not those of a study.
    """
    if not isinstance(found, dict) or found.get("urgency") not in URGENCIES:
        raise ValueError("one of its studies has no urgency")
    for name in COLUMNS:
        value = found.get(name)
        if name in NUMBERS:
            is_fit = value is None or (is_number(value) and 0 <= value <= 1)
        else:
            is_fit = value is None or (isinstance(value, str) and len(value) <= MOST_TEXT)
        if not is_fit:
            raise ValueError(f"{name} of one of its studies is not as it should be")
    return {name: found.get(name) for name in COLUMNS}


def is_number(value: Any) -> bool:
    """Whether it is one, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
