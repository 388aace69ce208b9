"""A scanner that tells of its procedure steps (MPPS), for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, ModalityPerformedProcedureStep  # type: ignore[attr-defined]

from tests.dicom_files import PATIENT
from tests.gateway_box import EXPLICIT, TITLE
from tests.studies import SERIES, STUDY

STEP = "1.2.826.0.1.3680043.8.498.77"


def list_uids(count: int, series: str = SERIES) -> list[str]:
    """What ``make_slice`` calls its slices."""
    return [f"{series}.{number + 1}" for number in range(count)]


def make_series_item(series: str, uids: Sequence[str], sop_class: str = str(CTImageStorage)) -> Dataset:
    """An item of the Performed Series Sequence."""
    item = Dataset()
    item.SeriesInstanceUID, item.SeriesDescription, item.ProtocolName = series, "Doe", "Head"
    item.ReferencedImageSequence = []
    for uid in uids:
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = sop_class, uid
        item.ReferencedImageSequence.append(image)
    return item


def make_begin(study: str = STUDY, **tags: Any) -> Dataset:
    """What a scanner says when it begins."""
    dataset, scheduled = Dataset(), Dataset()
    scheduled.StudyInstanceUID, scheduled.AccessionNumber = study, "A4711"
    dataset.ScheduledStepAttributesSequence = [scheduled]
    dataset.PatientName, dataset.PatientID = PATIENT["PatientName"], PATIENT["PatientID"]
    dataset.PerformedProcedureStepStatus, dataset.Modality = "IN PROGRESS", "CT"
    dataset.PerformedSeriesSequence = []
    dataset.update(tags_of(tags))
    return dataset


def make_end(
    series: Mapping[str, Sequence[str]] | None = None, state: str = "COMPLETED", reason: str = "", **tags: Any
) -> Dataset:
    """What it says when it has ended.

    Args:
        series: UIDs of the images of each series.
        state: how it has ended.
        reason: code of why it was discontinued.
        tags: others.
    """
    dataset = Dataset()
    dataset.PerformedProcedureStepStatus = state
    dataset.PerformedSeriesSequence = [make_series_item(uid, uids) for uid, uids in (series or {}).items()]
    if reason:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator = reason, "DCM"
        dataset.PerformedProcedureStepDiscontinuationReasonCodeSequence = [code]
    dataset.update(tags_of(tags))
    return dataset


def tags_of(tags: Mapping[str, Any]) -> Dataset:
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def tell(port: int, *messages: tuple[str, Dataset], step: str | None = STEP, seconds: float = 20.0) -> list[int]:
    """Sends messages, ``create`` or ``set`` each, on one association; returns their statuses, the last one -1 where
    there was no answer."""
    entity = AE(ae_title="CT1")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = seconds
    entity.add_requested_context(ModalityPerformedProcedureStep, EXPLICIT)
    association = entity.associate("127.0.0.1", port, ae_title=TITLE)
    assert association.is_established
    statuses = []
    try:
        for kind, dataset in messages:
            send = association.send_n_create if kind == "create" else association.send_n_set
            answer: pydicom.Dataset = send(dataset, ModalityPerformedProcedureStep, step)[0]  # type: ignore[operator]
            statuses.append(int(answer.get("Status", -1)))
            if statuses[-1] == -1:
                break
    finally:
        association.release() if association.is_established else association.abort()
    return statuses
