"""Answers to N-CREATE and N-SET of procedure steps (MPPS; PS3.4, annex F): what a scanner tells is on disk before it
hears of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import N_CREATE, N_SET
from pynetdicom.events import Event

from gateway.queue.folder import make_key, show
from gateway.queue.steps import (
    Step,
    StepEndedError,
    StepExistsError,
    Steps,
    StepsFullError,
    StepState,
    StepUnknownError,
)
from gateway.receive.contexts import KEPT
from gateway.receive.instance import UID

logger = logging.getLogger(__name__)

SUCCESS = 0x0000
INVALID_VALUE = 0x0106
PROCESSING_FAILURE = 0x0110
DUPLICATE = 0x0111
UNKNOWN_INSTANCE = 0x0112
INVALID_INSTANCE = 0x0117
MISSING_ATTRIBUTE = 0x0120
NO_ROOM = 0x0213
"""Statuses of PS3.7, annex C."""

ENDED = 0xA710
"""Error id of a step that may not be updated any more (PS3.4, table F.7.2-2)."""

MOST_STEP_BYTES = 2_000_000
"""Of a message: it names 15,000 images."""

MOST_IMAGES, MOST_SERIES, MOST_STUDIES = 20_000, 500, 16
ITEM, MOST_ITEMS = b"\xfe\xff\x00\xe0", MOST_IMAGES + 2 * MOST_SERIES
"""How items of sequences begin, counted before they are parsed: of two megabytes of empty ones pydicom makes 250,000
datasets, which takes six seconds."""

WRONG_ENTRY = "110514"
"""Incorrect worklist entry selected (PS3.16, CID 9300)."""

Answer = tuple[int | Dataset, None]


class StepRefusedError(Exception):
    """What was told cannot be used.

    Attributes:
        status: for who told it.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status:04X}")
        self.status = status


@dataclass(frozen=True)
class Told:
    """What a message says of a step; None: nothing."""

    studies: tuple[str, ...]
    """StudyInstanceUIDs."""

    state: StepState | None
    series: dict[str, tuple[str, ...]] | None
    """UIDs of CT images by their series."""

    is_wrong_entry: bool


class StepHandler:
    """Takes procedure steps down.

    Args:
        steps: where.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def create(self, event: Event) -> Answer:
        """Answers N-CREATE; it never raises."""
        request = event.request
        assert isinstance(request, N_CREATE)
        try:
            uid, told = (
                check_uid(request.AffectedSOPInstanceUID, INVALID_INSTANCE),
                read_told(event, request.AttributeList),
            )
            if not told.studies or told.state is None:
                raise StepRefusedError(MISSING_ATTRIBUTE)
            keys = tuple(map(make_key, told.studies))
            self._steps.begin(uid, Step(keys, told.state, told.series or {}, told.is_wrong_entry))
        except StepRefusedError as error:
            return refuse(error.status)
        except StepExistsError:
            return refuse(DUPLICATE)
        except (StepsFullError, OSError):
            return refuse(NO_ROOM)
        note(keys, told.state)
        return SUCCESS, None

    def change(self, event: Event) -> Answer:
        """Answers N-SET; it never raises."""
        request = event.request
        assert isinstance(request, N_SET)
        try:
            uid, told = (
                check_uid(request.RequestedSOPInstanceUID, INVALID_INSTANCE),
                read_told(event, request.ModificationList),
            )
            step = self._steps.change(uid, told.state, told.series, is_wrong_entry=told.is_wrong_entry)
        except StepRefusedError as error:
            return refuse(error.status)
        except StepUnknownError:
            return refuse(UNKNOWN_INSTANCE)
        except StepEndedError:
            status = Dataset()
            status.Status, status.ErrorID = PROCESSING_FAILURE, ENDED
            status.ErrorComment = "The step has ended and may not be updated"
            return status, None
        except (StepsFullError, OSError):
            return refuse(NO_ROOM)
        note(step.studies, step.state)
        return SUCCESS, None


def note(studies: tuple[str, ...], state: StepState) -> None:
    """Logs what became of a step."""
    for study in studies:
        logger.info("study %s: its scanner says: %s", show(study), state.lower())


def refuse(status: int) -> Answer:
    """Logs a refusal, without what was told."""
    logger.warning("what a scanner told of a procedure step was refused: status %04X", status)
    return status, None


def check_uid(value: object, status: int = INVALID_VALUE) -> str:
    """Returns a UID.

    Raises:
        StepRefusedError: it is none; ``status`` is what its sender hears.
    """
    if value is None or not UID.fullmatch(str(value)):
        raise StepRefusedError(status)
    return str(value)


def read_told(event: Event, message: object) -> Told:
    """Reads a message.

    Raises:
        StepRefusedError: it is too long, or a value in it is none of its kind.
    """
    data = message.getvalue() if isinstance(message, BytesIO) else b""
    if len(data) > MOST_STEP_BYTES or data.count(ITEM) > MOST_ITEMS:
        raise StepRefusedError(NO_ROOM)
    try:
        dataset = event.attribute_list if isinstance(event.request, N_CREATE) else event.modification_list
        return read_dataset(dataset)
    except StepRefusedError:
        raise
    except Exception:  # whatever a hostile message makes pydicom raise: its text may repeat what is in there
        raise StepRefusedError(PROCESSING_FAILURE) from None


def read_dataset(dataset: Dataset) -> Told:
    """Reads attributes of a step.

    Raises:
        StepRefusedError: there is too much, or a value is none of its kind.
    """
    state = dataset.get("PerformedProcedureStepStatus")
    if state and state not in list(StepState):
        raise StepRefusedError(INVALID_VALUE)
    scheduled = [item.get("StudyInstanceUID") for item in list_items(dataset, "ScheduledStepAttributesSequence")]
    studies = tuple(dict.fromkeys(check_uid(uid) for uid in scheduled if uid))
    if len(studies) > MOST_STUDIES:
        raise StepRefusedError(NO_ROOM)
    has_series = "PerformedSeriesSequence" in dataset
    return Told(
        studies,
        StepState(state) if state else None,
        read_series(dataset) if has_series else None,
        any(
            code.get("CodeValue") == WRONG_ENTRY
            for code in list_items(dataset, "PerformedProcedureStepDiscontinuationReasonCodeSequence")
        ),
    )


def read_series(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """UIDs of CT images by their series.

    Raises:
        StepRefusedError: there are too many, or one is none.
    """
    found: dict[str, dict[str, None]] = {}
    for item in list_items(dataset, "PerformedSeriesSequence"):
        images = list_items(item, "ReferencedImageSequence")
        uids = [one.get("ReferencedSOPInstanceUID") for one in images if one.get("ReferencedSOPClassUID") in KEPT]
        if uids:
            series = check_uid(item.get("SeriesInstanceUID"))
            found.setdefault(series, {}).update(dict.fromkeys(map(check_uid, uids)))
    if len(found) > MOST_SERIES or sum(map(len, found.values())) > MOST_IMAGES:
        raise StepRefusedError(NO_ROOM)
    return {series: tuple(uids) for series, uids in found.items()}


def list_items(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    """Items of a sequence; none where there is none."""
    yield from dataset.get(keyword) or ()
