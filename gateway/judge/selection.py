"""Which series of a study go to the server: what their headers say, against what a site has set.

What a file says in text is compared and never repeated, for it may name people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from client import StudySeries
from gateway.judge.settings import SelectionSettings
from gateway.reasons import LeftOut
from gateway.results.headers import BROKEN

LOCALIZERS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SCANOGRAM", "SURVIEW"})
DERIVED = frozenset({"DERIVED", "SECONDARY"})
LOSSY = "01"
ROUNDING_MM = 0.001
MOST_TEXT = 256
"""Characters of a value that patterns are tried on; DICOM allows 64."""

MOST_FRAMES = 100_000
_KEYWORDS = (
    *("SeriesInstanceUID", "SeriesDescription", "ImageType", "LossyImageCompression"),
    *("BodyPartExamined", "ConvolutionKernel", "SliceThickness", "NumberOfFrames"),
)


@dataclass(frozen=True)
class Slice:
    """What a file says of itself. Texts are in upper case; enhanced files say some of it elsewhere, so not here."""

    series: str
    description: str
    image_type: tuple[str, ...]
    is_lossy: bool
    body_part: str
    kernels: tuple[str, ...]
    thickness: float
    """In mm; 0: not stated."""

    frames: int


Check = Callable[[Slice, SelectionSettings], str]
"""Returns what a setting wants and a slice has not, as a sentence; empty: nothing."""


def select(paths: Sequence[Path], settings: SelectionSettings) -> tuple[list[Path], list[StudySeries]]:
    """The files that go to the server, and the series that do not.

    A series is left out when none of its slices is what the settings want; of a series of which some are, all go, since
    the server looks at each slice. Files that cannot be read go: it says what is wrong with them.

    Raises:
        OSError: a file cannot be opened.
    """
    if settings == SelectionSettings():
        return list(paths), []
    slices = {path: read_slice(path) for path in paths}
    series: dict[str, list[Slice]] = {}
    for one in slices.values():
        if one is not None:
            series.setdefault(one.series, []).append(one)
    left_out = {uid: found for uid, members in series.items() if (found := judge_series(uid, members, settings))}
    chosen = [path for path, one in slices.items() if one is None or one.series not in left_out]
    return chosen, list(left_out.values())


def judge_series(uid: str, slices: Sequence[Slice], settings: SelectionSettings) -> StudySeries | None:
    """Why a series is left out; None: it is not."""
    count = sum(one.frames for one in slices)
    reasons = [find_reason(one, settings) for one in slices]
    if None not in reasons:
        (reason, message), _ = Counter(reasons).most_common(1)[0]  # type: ignore[misc]  # None is not among them
    elif count < settings.series_least_slices:
        reason = LeftOut.TOO_FEW_SLICES
        message = f"--series-least-slices wants {settings.series_least_slices}; this has {count}."
    else:
        return None
    return StudySeries(uid, count, reason, message)


def find_reason(one: Slice, settings: SelectionSettings) -> tuple[LeftOut, str] | None:
    """The first setting that a slice does not fit; None: it fits all."""
    for reason, check in CHECKS:
        if message := check(one, settings):
            return reason, message
    return None


def check_excluded(one: Slice, settings: SelectionSettings) -> str:
    is_excluded = fits([one.description], settings.series_not_description)
    return "Its description fits a pattern of --series-not-description." if is_excluded else ""


def check_description(one: Slice, settings: SelectionSettings) -> str:
    is_wanted = not settings.series_description or fits([one.description], settings.series_description)
    return "" if is_wanted else "Its description fits no pattern of --series-description."


def check_localizer(one: Slice, settings: SelectionSettings) -> str:
    found = LOCALIZERS & set(one.image_type)
    return (
        f"--series-original wants slices; this is a localizer ({min(found)})."
        if settings.series_original and found
        else ""
    )


def check_derived(one: Slice, settings: SelectionSettings) -> str:
    # Whoever compresses with loss must call the image derived (PS3.3 C.7.6.1.1.2).
    found = (DERIVED - {"DERIVED"} if one.is_lossy else DERIVED) & set(one.image_type)
    return (
        f"--series-original wants original images; these are {min(found)}."
        if settings.series_original and found
        else ""
    )


def check_body_part(one: Slice, settings: SelectionSettings) -> str:
    is_wanted = not settings.series_body_part or not one.body_part or fits([one.body_part], settings.series_body_part)
    return "" if is_wanted else "It states a part of the body that --series-body-part does not name."


def check_kernel(one: Slice, settings: SelectionSettings) -> str:
    is_wanted = not settings.series_kernel or not one.kernels or fits(one.kernels, settings.series_kernel)
    return "" if is_wanted else "Its kernel fits no pattern of --series-kernel."


def check_thickness(one: Slice, settings: SelectionSettings) -> str:
    least, most = settings.series_least_mm, settings.series_most_mm
    if not one.thickness or least - ROUNDING_MM <= one.thickness <= most + ROUNDING_MM:
        return ""
    return f"Slices of {least:g} to {most:g} mm are wanted; these have {one.thickness:.4g}."


CHECKS: tuple[tuple[LeftOut, Check], ...] = (
    (LeftOut.EXCLUDED_DESCRIPTION, check_excluded),
    (LeftOut.OTHER_DESCRIPTION, check_description),
    (LeftOut.LOCALIZER, check_localizer),
    (LeftOut.DERIVED, check_derived),
    (LeftOut.OTHER_BODY_PART, check_body_part),
    (LeftOut.OTHER_KERNEL, check_kernel),
    (LeftOut.SLICE_THICKNESS, check_thickness),
)


def fits(texts: Iterable[str], patterns: Iterable[str]) -> bool:
    """Whether one of the texts, which are in upper case, fits one of the patterns."""
    return any(fnmatchcase(text, pattern.upper()) for pattern in patterns for text in texts)


def read_slice(path: Path) -> Slice | None:
    """Reads a header; None: it cannot be read.

    Raises:
        OSError: the file cannot be opened.
    """
    tags = [tag for keyword in _KEYWORDS if (tag := tag_for_keyword(keyword)) is not None]
    try:
        file = dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except (InvalidDicomError, EOFError, *BROKEN):
        return None
    texts = {keyword: read_texts(file, keyword) for keyword in _KEYWORDS}
    first = {keyword: values[0] if values else "" for keyword, values in texts.items()}
    frames, thickness = read_figure(first["NumberOfFrames"]), read_figure(first["SliceThickness"])
    return Slice(
        series=first["SeriesInstanceUID"],
        description=first["SeriesDescription"],
        image_type=texts["ImageType"],
        is_lossy=first["LossyImageCompression"] == LOSSY,
        body_part=first["BodyPartExamined"],
        kernels=texts["ConvolutionKernel"],
        thickness=thickness,
        frames=int(min(max(frames, 1), MOST_FRAMES)),
    )


def read_texts(file: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of an element, in upper case; none where it cannot be read."""
    try:
        value = file.get(keyword)
    except BROKEN:
        return ()
    values = [] if value is None else [value] if isinstance(value, str) or not isinstance(value, Iterable) else value
    return tuple(str(one)[:MOST_TEXT].strip().upper() for one in values)


def read_figure(text: str) -> float:
    """A positive number; 0 where it is none."""
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if 0 < number < float("inf") else 0.0
