"""docs/dicom.md says what the code does."""

from __future__ import annotations

import re

from server.images.dicom import budget
from server.images.image_file import DEFAULT_LIMITS
from tests.fakes import ROOT

PAGE = (ROOT / "docs" / "dicom.md").read_text("utf-8")
FOLDER = ROOT / "server" / "images" / "dicom"


def test_every_refusal_is_explained() -> None:
    """One row for each reason, and none for what is never said."""
    said = {
        reason
        for module in FOLDER.rglob("*.py")
        for reason in re.findall(r'Error\(\s*"(DICOM_[A-Z0-9_]+)"', module.read_text("utf-8"))
    }

    explained = re.findall(r"^\| `(DICOM_[A-Z0-9_]+)` \|", PAGE, re.MULTILINE)

    assert len(explained) == len(set(explained)) > 15
    assert set(explained) == said


def test_limits_are_those_of_the_code() -> None:
    """Frames, bytes, reads."""
    frames, mebibytes, reads = DEFAULT_LIMITS.max_frames, DEFAULT_LIMITS.max_frame_bytes >> 20, budget.MOST_READS

    assert f"more than {frames:,} frames, {mebibytes} MiB unpacked, or {reads:,} reads" in PAGE
