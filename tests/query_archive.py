"""An archive that answers C-FIND and C-MOVE as it is told to, and a gateway's part that asks it, for tests."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

from gateway.addresses import Address
from gateway.fetch.archive import FIND, MOVE, Archive
from gateway.fetch.fetcher import Fetcher
from tests.gateway_box import EXPLICIT, TITLE, Box, open_box

Answers = Iterator[Any]
UIDS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
"""What identifies answers of a level."""


@dataclass
class QueryArchive:
    """Has studies, and sends them to the gateway."""

    files: list[bytes] = field(default_factory=list)
    gateway_port: int = 0
    port: int = 0
    counts: bool = True
    """Whether it says how many instances a series has."""

    ignores_keys: bool = False
    """Whether it names all that it has, whatever was asked for."""

    find: Callable[[evt.Event], Answers] | None = None
    move: Callable[[evt.Event], Answers] | None = None
    """What it answers instead."""

    moved: list[str] = field(default_factory=list)
    """UIDs of the series that it was asked to send."""

    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        return f"PACS@127.0.0.1:{self.port}"

    def answer_find(self, event: evt.Event) -> Answers:
        if self.find is not None:
            yield from self.find(event)
            return
        keys, found = event.identifier, {}
        for one in map(read, self.files):
            is_wanted = all(
                not keys.get(name) or one.get(name) == keys.get(name)
                for name in ("StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber", "Modality")
            )
            if is_wanted or self.ignores_keys:
                uid = one[UIDS[keys.QueryRetrieveLevel]].value
                found.setdefault(uid, []).append(one)
        for some in found.values():
            answer = Dataset()
            answer.QueryRetrieveLevel = keys.QueryRetrieveLevel
            for name in (*UIDS.values(), "Modality", "AccessionNumber"):
                setattr(answer, name, some[0].get(name))
            if self.counts:
                answer.NumberOfSeriesRelatedInstances = len(some)
            yield 0xFF00, answer

    def answer_move(self, event: evt.Event) -> Answers:
        self.moved.append(event.identifier.SeriesInstanceUID)
        if self.move is not None:
            yield from self.move(event)
            return
        yield ("127.0.0.1", self.gateway_port)
        wanted = [one for one in map(read, self.files) if one.SeriesInstanceUID == event.identifier.SeriesInstanceUID]
        yield len(wanted)
        for one in wanted:
            if event.is_cancelled:
                self.cancelled.set()
                yield 0xFE00, None
                return
            yield 0xFF00, one

    def go_on_for_ever(self, event: evt.Event) -> Answers:
        """Answers to C-MOVE that it is about to send, until it is told to stop."""
        yield ("127.0.0.1", self.gateway_port)
        yield 60_000
        while not event.is_cancelled:
            yield 0xFF00, read(self.files[0])
        self.cancelled.set()
        yield 0xFE00, None


def read(file: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(file))


@contextmanager
def open_query_archive(files: list[bytes], *, gateway_port: int = 0, **options: Any) -> Iterator[QueryArchive]:
    """An archive on a free port of this machine."""
    archive = QueryArchive(files, gateway_port)
    entity = AE(ae_title="PACS")
    entity.require_called_aet = True
    for model in (FIND, MOVE):
        entity.add_supported_context(model)
    entity.add_requested_context(CTImageStorage, EXPLICIT)
    handlers = [(evt.EVT_C_FIND, archive.answer_find), (evt.EVT_C_MOVE, archive.answer_move)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, **options)  # type: ignore[arg-type]
    archive.port = server.server_address[1]  # type: ignore[union-attr]
    try:
        yield archive
    finally:
        entity.shutdown()


@dataclass
class FetchBox:
    """A receiver, the queue behind it, an archive, and what asks it."""

    box: Box
    archive: QueryArchive
    fetcher: Fetcher

    def look(self) -> list[str]:
        """What the gateway does again and again; returns jobs that are complete."""
        jobs = self.box.arrivals.complete()
        for key in self.box.arrivals.hold_quiet():
            self.fetcher.ask(key)
        self.fetcher.look()
        return jobs

    def look_until_complete(self, count: int = 1) -> list[Path]:
        """Folders of the jobs."""
        jobs: list[str] = []
        pause = threading.Event()
        for _ in range(1200):
            jobs += self.look()
            if len(jobs) >= count:
                return [self.box.folder.waiting / job for job in jobs]
            pause.wait(0.05)
        raise AssertionError("it did not happen in time")


@contextmanager
def open_fetch_box(
    root: Path,
    files: list[bytes],
    *,
    seconds: float = 30.0,
    threads: int = 2,
    has_archive: bool = True,
    **settings: Any,
) -> Iterator[FetchBox]:
    """Studies are quiet at once."""
    stop = threading.Event()
    with (
        open_box(root, asks_archive=has_archive, **settings) as box,
        open_query_archive(files, gateway_port=box.port) as pacs,
    ):
        archive = Archive(Address("PACS", "127.0.0.1", pacs.port), TITLE) if has_archive else None
        fetcher = Fetcher(box.folder, box.arrivals, archive, seconds, stop)
        workers = [threading.Thread(target=fetcher.run, args=(stop,)) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            yield FetchBox(box, pacs, fetcher)
        finally:
            stop.set()
            for worker in workers:
                worker.join()
