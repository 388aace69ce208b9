"""Why a series, or a part of one, has no part in the answer, and what else results say of how a study came."""

from __future__ import annotations

from enum import StrEnum


class LeftOut(StrEnum):
    """Why the server did not get a series, or a part of it. What is a rule of the server's, too, has its name there."""

    NOT_CT = "NOT_CT"
    NOT_RECEIVED = "NOT_RECEIVED"
    EXCLUDED_DESCRIPTION = "EXCLUDED_DESCRIPTION"
    OTHER_DESCRIPTION = "OTHER_DESCRIPTION"
    LOCALIZER = "LOCALIZER"
    DERIVED = "DERIVED"
    OTHER_BODY_PART = "OTHER_BODY_PART"
    OTHER_KERNEL = "OTHER_KERNEL"
    SLICE_THICKNESS = "SLICE_THICKNESS"
    TOO_FEW_SLICES = "TOO_FEW_SLICES"


class Doubt(StrEnum):
    """Why a study may not be all that it should be; a warning of its results."""

    STEP_DISCONTINUED = "STEP_DISCONTINUED"
    FETCH_FAILED = "FETCH_FAILED"


class Unasked(StrEnum):
    """Why the server was not asked at all; the reason of a study that was not analysed."""

    NO_SERIES = "NO_SERIES"
    WRONG_WORKLIST_ENTRY = "WRONG_WORKLIST_ENTRY"
