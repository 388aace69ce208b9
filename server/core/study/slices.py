"""What is known of one slice of a study, once it has been looked at."""

from __future__ import annotations

import re
from dataclasses import dataclass

from server.core.study.facts import SliceFacts
from server.images.checks import Reason


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a slice was not judged: as a caller learns of an image that was refused."""

    code: str
    """gRPC's name of it."""

    reason: str
    message: str
    retry_after_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySlice:
    """One slice: no pixel of it, and no word of its header."""

    id: str
    """As its caller calls it, otherwise its number as text."""

    number: int
    """Of its file, in the order in which files came, from 1."""

    frame: int = 0
    facts: SliceFacts | None = None
    """None: the file has no header, or none that can be read."""

    image_sha256: str = ""
    """Empty where it was not looked at."""

    probability: float = 0.0
    """Of the positive labels, in [0, 1]."""

    positive_probabilities: tuple[float, ...] = ()
    """Of each of them, in the order of the spec; empty where it was not judged."""

    other_label: int = 0
    """Index of the most probable of the other labels."""

    reasons: tuple[Reason, ...] = ()
    """Why it was not analysed though it was judged."""

    refusal: Refusal | None = None
    """Why it was not judged; None: it was, or it is left out with its series."""

    is_lossy: bool = False

    @property
    def is_analysed(self) -> bool:
        """Whether its probability counts."""
        return bool(self.image_sha256) and not self.reasons and self.refusal is None


def order_by_id(one: StudySlice) -> tuple[list[tuple[int, int, str]], str, int]:
    """A key by which ids are in natural order: numbers in them by their value, so that ``slice-9`` comes before
    ``slice-10``; the same ids as they came."""
    parts = re.split(r"([0-9]+)", one.id)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts], one.id, one.number
