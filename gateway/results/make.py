"""All results of an answer, as bytes that can be written, sent, and sent again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset

from client import StudyPrediction, Window
from gateway.results.answer import make_answer
from gateway.results.capture import make_capture
from gateway.results.fhir import make_bundle
from gateway.results.headers import StudyHeaders
from gateway.results.hl7 import make_message
from gateway.results.identity import write_file
from gateway.results.record import make_record
from gateway.results.report import make_report
from gateway.results.settings import ResultSettings


@dataclass(frozen=True)
class ResultObject:
    """A DICOM object."""

    name: str
    """``sr.dcm`` or ``sc.dcm``."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    data: bytes
    """The whole file (PS3.10)."""


@dataclass(frozen=True)
class Results:
    """What was made of an answer."""

    objects: tuple[ResultObject, ...]
    texts: dict[str, bytes]
    """By the name of the file: ``fhir.json``, ``oru.hl7``."""

    record: dict[str, Any]
    """A line of the worklist."""


def make_results(
    prediction: StudyPrediction,
    headers: StudyHeaders,
    settings: ResultSettings,
    now: datetime,
    find_window: Callable[[StudyPrediction], Window | None],
) -> Results:
    """Makes what the settings ask for. Of the same arguments come the same bytes, and at another time the same UIDs.

    Args:
        prediction: the client's answer, or what ``make_unjudged`` gives.
        headers: of the files of the study.
        settings: which results, and how.
        now: when the study was judged, with a time zone.
        find_window: the window of a model by its answer, in which the slice to look at first is drawn; None: it is not
            known, and nothing is drawn.
    """
    answer = make_answer(prediction, headers)
    objects = []
    if "sr" in settings.results:
        objects.append(_pack("sr.dcm", make_report(answer, now)))
    if "sc" in settings.results:
        window = find_window(prediction) if answer.first_look is not None else None
        objects.append(_pack("sc.dcm", make_capture(answer, window, now)))
    texts = {}
    if "fhir" in settings.results:
        texts["fhir.json"] = make_bundle(answer, settings, now)
    if "hl7" in settings.results:
        texts["oru.hl7"] = make_message(answer, settings, now)
    return Results(tuple(objects), texts, make_record(answer, now))


def _pack(name: str, dataset: Dataset) -> ResultObject:
    return ResultObject(
        name, dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID, write_file(dataset)
    )
