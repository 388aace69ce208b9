"""What tests of the gateway share: a queue with a receiver, senders, and an archive that takes results."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pydicom
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import CTImageStorage, SecondaryCaptureImageStorage, Verification  # type: ignore[attr-defined]

from client import AnalysisStatus, StrokeClientError, StudyPrediction, StudySeries
from gateway.judge.writing import WrittenResults
from gateway.queue.arrivals import Arrivals
from gateway.queue.folder import QueueFolder
from gateway.queue.steps import Steps
from gateway.receive.procedure_step import StepHandler
from gateway.receive.receiver import Receiver, ReceiverSettings
from gateway.receive.store import StoreHandler
from tests.dicom_files import PATIENT
from tests.studies import STUDY, make_slice

TITLE = "STROKESERVE"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
SECONDARY_CAPTURE = str(SecondaryCaptureImageStorage)


@dataclass
class Box:
    """A receiver in this process, and the queue behind it."""

    folder: QueueFolder
    arrivals: Arrivals
    steps: Steps
    receiver: Receiver

    @property
    def port(self) -> int:
        return self.receiver.port

    def list_files(self) -> list[Path]:
        """Every file of the queue but its lock."""
        return sorted(path for path in self.folder.root.rglob("*") if path.is_file() and path.name != "lock")


@contextmanager
def open_box(
    root: Path, *, quiet: float = 0.0, least_free: int = 0, asks_archive: bool = False, **settings: Any
) -> Iterator[Box]:
    """A receiver on a free port of this machine."""
    folder = QueueFolder(root)
    steps = Steps(folder, least_free)
    arrivals = Arrivals(folder, steps, quiet, least_free, asks_archive=asks_archive)
    usual: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 0,
        "title": TITLE,
        "allowed": (),
        "most_senders": 8,
        "most_instance_bytes": 1_000_000,
    }
    receiver = Receiver(ReceiverSettings(**usual | settings), StoreHandler(arrivals), StepHandler(steps))
    try:
        yield Box(folder, arrivals, steps, receiver)
    finally:
        receiver.close()
        folder.close()


def make_files(count: int = 3, study: str = STUDY, **tags: Any) -> list[bytes]:
    """Slices of a study whose patient has a name."""
    described = {"StudyInstanceUID": study, **PATIENT} | tags
    return [make_slice(number, **described) for number in range(count)]


@contextmanager
def associate(
    port: int, *, calling: str = "CT1", called: str = TITLE, syntaxes: Sequence[str] = (EXPLICIT,), **options: Any
) -> Iterator[Association]:
    """An association for CT images, perhaps one that was not accepted."""
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    for sop_class in (Verification, CTImageStorage, SECONDARY_CAPTURE):
        entity.add_requested_context(sop_class, list(syntaxes))
    association = entity.associate("127.0.0.1", port, ae_title=called, **options)
    try:
        yield association
    finally:
        association.release() if association.is_established else association.abort()


def send(port: int, files: Iterable[bytes], **options: Any) -> list[int]:
    """Sends files on one association; returns their statuses, -1 for one without an answer."""
    with associate(port, **options) as association:
        assert association.is_established
        statuses = []
        for number, file in enumerate(files, start=1):
            answer = association.send_c_store(pydicom.dcmread(io.BytesIO(file)), msg_id=number)
            statuses.append(int(answer.get("Status", -1)))
        return statuses


@dataclass
class Archive:
    """Takes objects by C-STORE, and remembers what came."""

    port: int = 0
    status: int = 0x0000
    """What it answers with."""

    received: list[str] = field(default_factory=list)
    """UIDs of the instances in the order in which they came."""

    datasets: dict[str, pydicom.Dataset] = field(default_factory=dict)
    came: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        return f"ARCHIVE@127.0.0.1:{self.port}"

    def take(self, event: evt.Event) -> int:
        dataset = event.dataset
        self.received.append(str(dataset.SOPInstanceUID))
        if not self.status:
            self.datasets[str(dataset.SOPInstanceUID)] = dataset
        self.came.set()
        return self.status


@contextmanager
def open_archive(port: int = 0, **options: Any) -> Iterator[Archive]:
    """An archive on a port of this machine."""
    archive = Archive()
    entity = AE(ae_title="ARCHIVE")
    for context in (SECONDARY_CAPTURE, "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.22"):
        entity.add_supported_context(context)
    handlers = [(evt.EVT_C_STORE, archive.take)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, **options)  # type: ignore[arg-type]
    archive.port = server.server_address[1]  # type: ignore[union-attr]
    try:
        yield archive
    finally:
        entity.shutdown()


def make_object(study: str, uid: str) -> bytes:
    """A small object that stands for a result."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.StudyInstanceUID = SECONDARY_CAPTURE, uid, study
    dataset.SeriesInstanceUID, dataset.Modality = f"{uid}.1", "OT"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def make_answer(**changes: Any) -> StudyPrediction:
    """An answer of a server that judged a series."""
    usual = StudyPrediction(
        label="stroke",
        score=0.9,
        threshold=0.5,
        top_k=3,
        positive_label="stroke",
        status=AnalysisStatus.ANALYSED,
        reasons=(),
        first_look=None,
        slices=(),
        series=StudySeries("1.2.3", 3),
        left_out=(),
        failures=(),
        warnings=(),
        model="tiny",
        version="1",
        digest="0" * 64,
        request_id="id",
        study_instance_uid=STUDY,
    )
    return replace(usual, **changes)


@dataclass
class FakeClient:
    """Answers studies, or raises."""

    outcome: StudyPrediction | StrokeClientError = field(default_factory=make_answer)
    asked: list[list[Path]] = field(default_factory=list)

    def predict_study(self, images: list[Path]) -> StudyPrediction:
        self.asked.append(images)
        if isinstance(self.outcome, StrokeClientError):
            raise self.outcome
        return self.outcome


def send_all(paths: Sequence[Path]) -> tuple[list[Path], list[StudySeries]]:
    """Has all files judged."""
    return list(paths), []


def make_written(
    answer: StudyPrediction | StrokeClientError,
    paths: Sequence[Path],
    left_out: Sequence[StudySeries],
    now: object,
) -> WrittenResults:
    """Results that are the same for the same slices and the same model: one object, and a text."""
    study = str(pydicom.dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID)
    digest = answer.reason if isinstance(answer, StrokeClientError) else answer.digest
    names = ",".join(path.name for path in paths)
    uid = f"2.25.{uuid5(NAMESPACE_OID, f'{names} {digest}').int}"
    text = str([answer, *left_out]).encode()
    return WrittenResults({"sc.dcm": make_object(study, uid), "answer.txt": text}, (uid,), {"study": study})
