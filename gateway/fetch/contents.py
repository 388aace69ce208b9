"""What of a study is here already, by its series."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.tag import Tag

from gateway.queue.arrivals import read_not_kept

_STUDY, _SERIES = Tag(0x0020, 0x000D), Tag(0x0020, 0x000E)


@dataclass(frozen=True)
class Contents:
    """Instances of a study."""

    study: str
    """StudyInstanceUID; empty: none of its images is here."""

    counts: dict[str, int]
    """Of each series, those included that were taken and not kept."""


def read_contents(folder: Path) -> Contents:
    """Reads the headers of a study's folder, which may grow meanwhile.

    Raises:
        OSError: a file cannot be opened.
    """
    study, counts = "", Counter(read_not_kept(folder))
    for path in folder.glob("*.dcm"):
        try:
            file = dcmread(path, stop_before_pixels=True, specific_tags=[_STUDY, _SERIES])
            study, series = str(file.StudyInstanceUID), str(file.SeriesInstanceUID)
        except OSError:
            raise
        except Exception:  # whatever pydicom raises at a file of which it read the UIDs when it came
            continue
        counts[series] += 1
    return Contents(study, dict(counts))
