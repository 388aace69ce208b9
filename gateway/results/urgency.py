"""How urgent a study is; of a module of its own, so that settings are read without DICOM."""

from __future__ import annotations

from enum import StrEnum


class Urgency(StrEnum):
    """Where a study belongs in a worklist, the most urgent first. Compares equal to its name."""

    POSITIVE = "positive"
    NOT_ANALYSED = "not-analysed"
    REST = "rest"
