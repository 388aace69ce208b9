"""What is kept of a slice's header while the rest of its study comes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from server.core.study.exclusion import Exclusion, find_exclusion, find_pattern
from server.core.study.geometry import Vector, find_normal, find_place
from server.core.study.rules import SeriesRules
from server.images.dicom.header import SliceHeader
from server.images.dicom.optional import read_header
from server.images.dicom.signature import is_dicom
from server.images.image_file import ImageLimits
from server.images.preprocess import check_size

UID = re.compile(r"[0-9.]{1,64}")
"""PS3.5, 9.1. What is none is not shown: it might be anything."""


@dataclass(frozen=True, slots=True)
class SliceFacts:
    """What is kept of a header: nothing in words but UIDs."""

    series: str
    """SeriesInstanceUID; empty where it is none."""

    study: str
    sop: str
    frame: int
    exclusion: Exclusion | None
    place: Vector | None
    """Of the first pixel, in millimetres."""

    normal: Vector | None
    thickness: float
    """In millimetres; 0: not stated."""

    has_brain_kernel: bool
    gantry_tilt: float
    """As the file states it, in degrees."""

    is_lossy: bool


def keep_facts(header: SliceHeader, rules: SeriesRules) -> SliceFacts:
    """Takes from a header what is needed later."""
    thickness, tilt = header.slice_thickness or 0.0, header.gantry_tilt or 0.0
    return SliceFacts(
        series=find_uid(header.series_instance_uid),
        study=find_uid(header.study_instance_uid),
        sop=find_uid(header.sop_instance_uid),
        frame=header.frame,
        exclusion=find_exclusion(header, rules),
        place=find_place(header.position),
        normal=find_normal(header.orientation),
        thickness=thickness if thickness > 0 and math.isfinite(thickness) else 0.0,
        has_brain_kernel=bool(find_pattern(header.kernel, rules.brain_kernels)),
        gantry_tilt=tilt if abs(tilt) <= 90 else 0.0,
        is_lossy=header.is_lossy,
    )


def read_facts(image: bytes, limits: ImageLimits, rules: SeriesRules) -> tuple[SliceFacts, ...] | None:
    """Reads the header of a file: facts of each of its frames, at least one; None: it is no DICOM file.

    Raises:
        ImageError: it is one, and cannot be read.
    """
    if not is_dicom(image):
        return None
    check_size(image, limits)
    return tuple(keep_facts(header, rules) for header in read_header(image, limits))


def find_uid(text: str) -> str:
    """A UID as it may be shown; empty where it is none."""
    return text if UID.fullmatch(text) else ""
