"""Studies for tests: a model that judges them, and slices of series that differ in what a rule looks at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom.uid import ExplicitVRLittleEndian

from proto import stroke_pb2 as pb
from server.images.dicom.header import SliceHeader
from server.images.dicom.window import BRAIN
from tests.dicom_files import ROOT as UID_ROOT
from tests.dicom_files import make_dicom
from tests.fakes import SPEC

STUDY_SPEC = replace(
    SPEC, colour="grey", threshold=0.5, windows=(BRAIN,), study_top_k=3, study_threshold=0.5, indeterminate_margin=0.0
)
"""The tiny model, which takes the mean of three slices."""

SERIES, STUDY = f"{UID_ROOT}2", f"{UID_ROOT}1"
TIMEOUT = 60

HEADER = SliceHeader(
    sop_instance_uid=f"{UID_ROOT}3.1",
    series_instance_uid=SERIES,
    study_instance_uid=STUDY,
    modality="CT",
    image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    frame=0,
    rows=64,
    columns=64,
    body_part="HEAD",
    series_description="Head 5.0 H31s",
    kernel=("H31s",),
    contrast_agent="",
    slice_thickness=5.0,
    position=(0.0, 0.0, 0.0),
    orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    gantry_tilt=0.0,
)
"""A slice that every rule likes."""


def make_scan(level: float = 30.0, side: int = 64) -> np.ndarray:
    """CT values of one level, int16 [side, side]: the higher, the more the tiny model takes it for a stroke."""
    return np.full((side, side), level, np.int16)


def make_slice(number: int, level: float = 30.0, *, series: str = SERIES, spacing: float = 5.0, **tags: Any) -> bytes:
    """The ``number``-th slice of a series from the feet, a DICOM file."""
    usual: dict[str, Any] = {
        "SOPInstanceUID": f"{series}.{number + 1}",
        "SeriesInstanceUID": series,
        "ImagePositionPatient": [0, 0, spacing * number],
    }
    return make_dicom(make_scan(level), syntax=ExplicitVRLittleEndian, **usual | tags)


def make_series(count: int = 8, levels: Sequence[float] = (), **tags: Any) -> list[bytes]:
    """The slices of a series, those that have a level of their own first."""
    return [make_slice(number, (*levels, *[10.0] * count)[number], **tags) for number in range(count)]


def make_requests(files: Iterable[bytes], **first: Any) -> list[pb.PredictStudyRequest]:
    """Messages of a study; fields of the first one by name."""
    requests = [pb.PredictStudyRequest(image=file) for file in files]
    for name, value in first.items():
        setattr(requests[0], name, value)
    return requests


@dataclass(frozen=True)
class Named:
    """A file with an id."""

    id: str
    image: bytes
    image_sha256: str = ""

    def to_request(self) -> pb.PredictStudyRequest:
        return pb.PredictStudyRequest(image=self.image, id=self.id, image_sha256=self.image_sha256)
