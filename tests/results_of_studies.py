"""Answers of studies, for tests of what is made of them: files as an archive has them, and a client's words on them."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from client import AnalysisStatus, ImageWarning, Reason, StudyPrediction, StudySeries, StudySlice, Window
from gateway.results.headers import StudyHeaders, read_headers
from gateway.results.make import Results, make_results
from gateway.results.settings import RESULTS, ResultSettings
from tests.studies import SERIES, STUDY, make_slice

NOW = datetime(2026, 11, 30, 4, 5, 6, tzinfo=UTC)
DIGEST = "ab" * 32
ALL = ResultSettings(results=RESULTS)

ARCHIVE = {
    "SpecificCharacterSet": "ISO_IR 100",
    "PatientName": "Doe^Jané",
    "PatientSex": "F",
    "AccessionNumber": "ACC1",
    "StudyTime": "101500",
    "StudyID": "7",
    "ReferringPhysicianName": "",
    "SeriesNumber": 2,
}
"""What every file of an archive says."""


def write_study(folder: Path, count: int = 6, **tags: Any) -> list[Path]:
    """Writes the slices of a study as files; tags by keyword, None leaves one out."""
    paths = []
    for number in range(count):
        path = folder / f"{number}.dcm"
        path.write_bytes(make_slice(number, **(ARCHIVE | {"InstanceNumber": number + 1} | tags)))
        paths.append(path)
    return paths


def find_window(prediction: StudyPrediction) -> Window:
    """What the server says of its model."""
    return Window(40, 80)


def judge(headers: StudyHeaders, *, frames: Sequence[int] = (), **fields: Any) -> StudyPrediction:
    """What the client says of these files, positive unless ``fields`` say otherwise; ``frames`` of the first file."""
    uids = [next(iter(headers.instances))] * len(frames) if frames else list(headers.instances)
    slices = tuple(
        StudySlice(
            source=f"{index}.dcm",
            index=index,
            id=str(index),
            frame=frames[index] if frames else 0,
            positive_probability=index / 10,
            sop_instance_uid=uid,
        )
        for index, uid in enumerate(uids)
    )
    usual: dict[str, Any] = {
        "label": "stroke",
        "score": 0.8312345,
        "threshold": 0.5,
        "top_k": 3,
        "positive_label": "stroke",
        "status": AnalysisStatus.ANALYSED,
        "reasons": (),
        "first_look": slices[-1],
        "slices": slices,
        "series": StudySeries(SERIES, len(slices)),
        "left_out": (StudySeries("1.2.9", 12, "BONE_KERNEL", "the kernel is for bones"),),
        "failures": (),
        "warnings": (ImageWarning("SLICE_GAP", "15 mm lie between two slices"),),
        "model": "stroke-cnn",
        "version": "3",
        "digest": DIGEST,
        "request_id": "r1",
        "study_instance_uid": STUDY,
        "positive_labels": ("stroke",),
    }
    return StudyPrediction(**usual | fields)


NEGATIVE: dict[str, Any] = {"label": "normal", "score": 0.1}
NOT_ANALYSED: dict[str, Any] = {
    "label": "",
    "score": 0.0,
    "status": AnalysisStatus.NOT_ANALYSED,
    "reasons": (Reason("INSUFFICIENT_QUALITY", "there are too few slices"),),
    "first_look": None,
}


def make(folder: Path, settings: ResultSettings = ALL, tags: dict[str, Any] | None = None, **fields: Any) -> Results:
    """The results of a study, from its files."""
    headers = read_headers(write_study(folder, **(tags or {})))
    return make_results(judge(headers, **fields), headers, settings, NOW, find_window)


def read_object(results: Results, name: str) -> Dataset:
    """A DICOM object of the results, as its reader has it."""
    (data,) = (one.data for one in results.objects if one.name == name)
    return dcmread(io.BytesIO(data))


def find_errors(file: bytes, tool: str, *flags: str) -> list[str]:
    """What a checker of Debian's says against a DICOM file; skips the test where it is not installed."""
    if shutil.which(tool) is None:
        pytest.skip(f"there is no {tool} here: the DICOM objects are checked by reading them alone")
    with tempfile.NamedTemporaryFile(suffix=".dcm") as copy:
        copy.write(file)
        copy.flush()
        run = subprocess.run([tool, *flags, copy.name], capture_output=True, timeout=60)
    lines = (run.stdout + run.stderr).decode("utf-8", "replace").splitlines()
    return [line for line in lines if line.startswith(("Error", "E:", "F:"))] + ["failed"] * bool(run.returncode)
