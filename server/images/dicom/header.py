"""What a DICOM file says of its slices, typed, without a pixel and without a word about the patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Vector: TypeAlias = tuple[float, float, float]
Orientation: TypeAlias = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class SliceHeader:
    """One slice: a file with one frame, or one frame of several. Fields that the file leaves out are empty or None."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    modality: str
    """(0008,0060), such as ``CT``."""

    image_type: tuple[str, ...]
    """(0008,0008), or (0008,9007) of an enhanced file's frame, such as ``ORIGINAL``, ``PRIMARY``, ``AXIAL``."""

    frame: int
    """From 1; 0 for a file with one frame."""

    rows: int
    columns: int
    body_part: str
    """(0018,0015), such as ``HEAD``; of an enhanced file the meaning of its anatomic region, such as ``Head``."""

    series_description: str
    """(0008,103E). Free text, which may name people: rules look at it, nothing shows it."""

    kernel: tuple[str, ...]
    """(0018,1210), the convolution kernel, such as ``H31s``."""

    contrast_agent: str
    """(0018,0010), or the meaning in (0018,0012); anything but an empty text or NONE: contrast was given."""

    slice_thickness: float | None
    """(0018,0050), in millimetres."""

    position: Vector | None
    """(0020,0032), of the first pixel, in millimetres, patient coordinates."""

    orientation: Orientation | None
    """(0020,0037), direction of rows and columns."""

    gantry_tilt: float | None
    """(0018,1120), in degrees."""

    is_lossy: bool = False
    """Its compression lost detail."""


@dataclass(frozen=True)
class FrameShape:
    """How one frame is stored: what a decoder has to deliver."""

    rows: int
    columns: int
    bits_stored: int
    """12 to 16, the lower ones of 16."""

    is_signed: bool
    """Two's complement in ``bits_stored`` bits."""
