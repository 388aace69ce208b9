"""What hostile or broken scanners cannot do by telling of procedure steps."""

from __future__ import annotations

import io
import random
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_CREATE, N_SET
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]

from gateway.receive import procedure_step
from gateway.receive.procedure_step import MOST_IMAGES, MOST_ITEMS, MOST_STEP_BYTES
from tests.fakes import wait_until
from tests.gateway_box import EXPLICIT, TITLE, Box, make_files, open_box, send
from tests.procedure_steps import STEP, list_uids, make_begin, make_end, tell
from tests.studies import SERIES

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # of pynetdicom as the other side
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of pydicom, of values that break rules
]

SEQUENCE, END = struct.pack("<HH2sHL", 0x0040, 0x0340, b"SQ", 0, 2**32 - 1), struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
EMPTY_ITEM, OPEN_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0), struct.pack("<HHL", 0xFFFE, 0xE000, 2**32 - 1)
STATUSES = {0x0000, 0x0106, 0x0110, 0x0111, 0x0112, 0x0120, 0x0213}


@pytest.fixture
def box(tmp_path: Path):
    with open_box(tmp_path / "queue", quiet=3600.0, most_instance_bytes=8_000_000) as opened:
        yield opened


def write(dataset: Dataset) -> bytes:
    encoded = encode(dataset, False, True)
    assert encoded is not None
    return encoded


def tell_bytes(port: int, *messages: bytes, create: bool = False) -> list[int]:
    """Sends what need be no dataset; returns the statuses, -1 where there was no answer."""
    entity = AE(ae_title="CT1")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
    entity.add_requested_context(ModalityPerformedProcedureStep, EXPLICIT)
    association = entity.associate("127.0.0.1", port, ae_title=TITLE)
    statuses = []
    for message in messages:
        if association.is_established:
            statuses.append(ask(association, message, create=create))
    association.release() if association.is_established else association.abort()
    return statuses


def ask(association: Association, message: bytes, *, create: bool) -> int:
    request: Any = N_CREATE() if create else N_SET()
    request.MessageID = 1
    if create:
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = ModalityPerformedProcedureStep, STEP
        request.AttributeList = io.BytesIO(message)
    else:
        request.RequestedSOPClassUID, request.RequestedSOPInstanceUID = ModalityPerformedProcedureStep, STEP
        request.ModificationList = io.BytesIO(message)
    answers: list[Any] = []
    # Its own thread takes what comes. To pause that, as pynetdicom does, is a race: it can be past its look at the
    # pause, and take an answer that nobody then hears of.
    association._serve_request = lambda message, _: answers.append(message)  # type: ignore[method-assign]
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    wait_until(lambda: bool(answers) or not association.is_established)
    return int(answers[0].Status) if answers else -1


@pytest.mark.parametrize("create", [True, False])
def test_bytes_of_any_kind_are_answered(box: Box, create: bool) -> None:
    """Each with a status that there is; then the scanner that behaves is served."""
    if not create:
        tell(box.port, ("create", make_begin()))
    whole = write(make_begin() if create else make_end({SERIES: list_uids(3)}))
    chance = random.Random(7)
    messages = []
    for _ in range(50):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        start = chance.randrange(len(data))
        messages.append(bytes(data[: start or 1]) if chance.random() < 0.3 else bytes(data))

    assert set(tell_bytes(box.port, *messages, create=create)) <= STATUSES
    assert tell(box.port, ("create", make_begin("1.2.9")), step="1.2.9.7") == [0]
    assert send(box.port, make_files(1)) == [0]


@pytest.mark.parametrize(
    ("message", "status"),
    [
        pytest.param(b"x" * (MOST_STEP_BYTES + 1), 0x0213, id="long"),
        pytest.param(SEQUENCE + EMPTY_ITEM * (MOST_ITEMS + 1) + END, 0x0213, id="many items"),
        pytest.param((SEQUENCE + OPEN_ITEM) * 20_000, 0x0110, id="deep"),
        pytest.param(SEQUENCE, 0x0110, id="cut"),
    ],
)
def test_sequences_without_end_are_not_parsed(box: Box, message: bytes, status: int) -> None:
    """Long ones, many items, items in items; what is cut off is no step."""
    tell(box.port, ("create", make_begin()))

    assert tell_bytes(box.port, message) == [status]
    assert len(list(box.folder.steps.iterdir())) == 1


def test_more_images_than_a_study_has_are_refused(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all series together; and more series, or studies, than there are."""
    assert MOST_IMAGES > 10_000
    monkeypatch.setattr(procedure_step, "MOST_IMAGES", 5)
    monkeypatch.setattr(procedure_step, "MOST_SERIES", 2)
    monkeypatch.setattr(procedure_step, "MOST_STUDIES", 1)
    two = make_begin()
    two.ScheduledStepAttributesSequence.append(make_begin("1.9").ScheduledStepAttributesSequence[0])
    assert tell(box.port, ("create", two), ("create", make_begin())) == [0x0213, 0]

    for series in ({"1.1": list_uids(3), "1.2": list_uids(3)}, {f"1.{number}": ["1.9"] for number in range(3)}):
        assert tell(box.port, ("set", make_end(series))) == [0x0213]


def test_steps_told_at_the_same_time_are_all_there(box: Box) -> None:
    """Eight scanners, each with its own."""
    results: list[list[int]] = []

    def run(number: int) -> None:
        step, series = f"{STEP}.{number}", {SERIES: list_uids(3)}
        results.append(tell(box.port, ("create", make_begin(f"1.9.{number}")), ("set", make_end(series)), step=step))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[0, 0]] * 8
    assert len(list(box.folder.steps.iterdir())) == 8
    wait_until(lambda: box.receiver.connections == 0)
