"""An archive that is asked which CT series a study has (C-FIND), and that sends them (C-MOVE; PS3.4, annex C)."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from gateway.addresses import Address
from gateway.fetch.limit import MESSAGE_ID, FetchError, Limit, Trouble, watch
from gateway.receive.bounded import bound_association
from gateway.receive.contexts import UNCOMPRESSED
from gateway.receive.instance import UID

FIND, MOVE = str(StudyRootQueryRetrieveInformationModelFind), str(StudyRootQueryRetrieveInformationModelMove)
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0
MOST_WAITING = {FIND: (65_536, 2000), MOVE: (2_000_000, 50)}
"""Bytes of an answer, and answers that may wait: archives name faster than we read, and what failed is a long list."""

MOST_MATCHES, MOST_IMAGES = 500, 10_000
"""Studies or series, and images of one, that are read of an answer."""

MOST_CHARACTERS = 128
"""Of a value; UIDs have 64."""

MOST_FAILED = 100
"""Instances that failed whose UIDs are read."""

SUCCESS, SOME_FAILED, ALL_FAILED = 0x0000, 0xB000, 0xA702
PENDING = (0xFF00, 0xFF01)
UNKNOWN_DESTINATION = 0xA801
"""Statuses of PS3.4, table C.4-2."""

CT = "CT"


@dataclass(frozen=True)
class FoundSeries:
    """A CT series that the archive has."""

    uid: str
    count: int
    """Instances; 0: the archive does not say."""


@dataclass(frozen=True)
class Moved:
    """How far the archive has come with sending a series."""

    completed: int
    failed: int
    failed_uids: tuple[str, ...] = ()
    """Of the first ones; archives need not name them."""


@dataclass(frozen=True)
class Archive:
    """An archive that is called by its title."""

    address: Address
    calling: str
    """Our own title, to which it sends: it has to know it, with our host and port."""

    tls: ssl.SSLContext | None = None

    def find_studies(self, accession: str, limit: Limit) -> list[str]:
        """UIDs of the studies of an accession number.

        Raises:
            FetchError: there is no answer.
        """
        keys = {"QueryRetrieveLevel": "STUDY", "AccessionNumber": accession, "StudyInstanceUID": ""}
        # An archive need not look at every key: then it names more than was asked for.
        found = [one["StudyInstanceUID"] for one in self._find(keys, limit) if one["AccessionNumber"] == accession]
        return [uid for uid in dict.fromkeys(found) if UID.fullmatch(uid)]

    def find_series(self, study: str, limit: Limit) -> list[FoundSeries]:
        """The CT series of a study.

        Raises:
            FetchError: there is no answer.
        """
        keys = {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": study, "Modality": CT}
        keys |= {"SeriesInstanceUID": "", "NumberOfSeriesRelatedInstances": ""}
        found: dict[str, FoundSeries] = {}
        for one in self._find(keys, limit):
            uid, count = one["SeriesInstanceUID"], one["NumberOfSeriesRelatedInstances"]
            if UID.fullmatch(uid) and one["Modality"] == CT:
                is_number = count.isascii() and count.isdigit() and len(count) < 8
                found[uid] = FoundSeries(uid, int(count) if is_number else self._count(study, uid, limit))
        return list(found.values())

    def _count(self, study: str, series: str, limit: Limit) -> int:
        """Instances of a series, one by one: saying their number is optional.

        Raises:
            FetchError: there is no answer.
        """
        keys = {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": study, "SeriesInstanceUID": series}
        images = self._find(keys | {"SOPInstanceUID": ""}, limit, MOST_IMAGES)
        return len({one["SOPInstanceUID"] for one in images if one["SeriesInstanceUID"] == series} - {""})

    def move(self, study: str, series: str, limit: Limit, note: Callable[[Moved], None]) -> Moved:
        """Has a series sent to us. Returns when the archive says that it has.

        Args:
            study: StudyInstanceUID.
            series: SeriesInstanceUID.
            limit: for how long.
            note: is told how far it is.

        Raises:
            FetchError: the archive does not send, or is not waited for any more.
        """
        keys = {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": study, "SeriesInstanceUID": series}
        with self._associate(limit, MOVE) as association:
            association.dimse_timeout = limit.rest  # many archives say nothing before they are done
            with watch(association, MOVE, limit):
                for status, identifier in association.send_c_move(
                    make_identifier(keys), self.calling, MOVE, MESSAGE_ID
                ):
                    code = read_status(status, limit)
                    moved = read_moved(status, identifier)
                    if code not in PENDING:
                        break
                    note(moved)
        is_end = code in (SUCCESS, SOME_FAILED) or (code == ALL_FAILED and moved.failed)
        if not is_end:
            limit.check()  # of what was cancelled the reason is ours
            raise FetchError(Trouble.ARCHIVE_REFUSED, describe_refusal(code, self.calling))
        return moved

    def _find(self, keys: dict[str, str], limit: Limit, most: int = MOST_MATCHES) -> list[dict[str, str]]:
        """What the archive names, each with the keys that were asked for."""
        found: list[dict[str, str]] = []
        with self._associate(limit, FIND) as association, watch(association, FIND, limit):
            for status, identifier in association.send_c_find(make_identifier(keys), FIND, MESSAGE_ID):
                code = read_status(status, limit)
                if code not in PENDING:
                    break
                if identifier is not None:
                    found.append({keyword: read_text(identifier, keyword) for keyword in keys})
                if len(found) > most:
                    raise FetchError(Trouble.ARCHIVE_REFUSED, f"it names more than {most} of what was asked for")
        if code != SUCCESS:
            limit.check()
            raise FetchError(Trouble.ARCHIVE_REFUSED, describe_refusal(code, self.calling))
        return found

    @contextmanager
    def _associate(self, limit: Limit, model: str) -> Iterator[Association]:
        """An association for one question; what ends in an error is aborted.

        Raises:
            FetchError: there is none.
        """
        limit.check()
        entity = AE(ae_title=self.calling)
        entity.connection_timeout = entity.acse_timeout = min(CONNECT_SECONDS, limit.rest)
        entity.dimse_timeout = entity.network_timeout = min(ANSWER_SECONDS, limit.rest)
        entity.add_requested_context(model, list(UNCOMPRESSED))
        tls: Any = (self.tls, self.address.host) if self.tls is not None else None
        title, host, port = self.address
        try:
            association = entity.associate(host, port, ae_title=title, tls_args=tls)
        except OSError:  # a name that is none
            raise FetchError(Trouble.ARCHIVE_AWAY, "it cannot be reached") from None
        is_done = False
        try:
            if not association.is_established:
                why = "it rejected the association" if association.is_rejected else "it cannot be reached"
                raise FetchError(Trouble.ARCHIVE_AWAY, why)
            if not association.accepted_contexts:
                raise FetchError(Trouble.ARCHIVE_REFUSED, "it does not offer this (study root C-FIND and C-MOVE)")
            bound_association(association, *MOST_WAITING[model])
            yield association
            is_done = True
        finally:
            if association.is_established and is_done:
                association.release()
            else:
                association.abort()


def make_identifier(keys: dict[str, str]) -> Dataset:
    """A query of these keys."""
    dataset = Dataset()
    for keyword, value in keys.items():
        setattr(dataset, keyword, value or None)
    return dataset


def read_status(status: Dataset, limit: Limit) -> int:
    """The status of an answer.

    Raises:
        FetchError: there was none.
    """
    if "Status" not in status:
        limit.check()
        raise FetchError(Trouble.ARCHIVE_AWAY, "it stopped answering")
    return int(status.Status)


def read_moved(status: Dataset, identifier: Dataset | None) -> Moved:
    """How far an answer to C-MOVE says that it is."""
    numbers = [int(status.get(f"NumberOf{kind}Suboperations") or 0) for kind in ("Completed", "Warning", "Failed")]
    try:
        names = [] if identifier is None else identifier.get("FailedSOPInstanceUIDList") or []
        texts = [names] if isinstance(names, str) else list(names)[:MOST_FAILED]
    except Exception:  # whatever pydicom raises at a value that is none
        texts = []
    return Moved(numbers[0] + numbers[1], numbers[2], tuple(text for text in map(str, texts) if UID.fullmatch(text)))


def describe_refusal(code: int, calling: str) -> str:
    """What a status of failure means for whoever has to mend it."""
    if code == UNKNOWN_DESTINATION:
        return f"it does not know {calling}: enter this gateway's title, host and port there (status {code:04X})"
    return f"it answered with status {code:04X}"


def read_text(dataset: Dataset, keyword: str) -> str:
    """A value as text; empty where it cannot be read."""
    try:
        value = dataset.get(keyword)
    except Exception:  # whatever pydicom raises at a value that is none
        return ""
    return "" if value is None else str(value)[:MOST_CHARACTERS].strip()
