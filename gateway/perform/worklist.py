"""A worklist of Unified Procedure Steps by UPS-RS (PS3.18, chapter 11), as whoever performs them uses it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from pydicom.dataset import Dataset

from gateway.perform.datasets import Item, read_json, write_json
from gateway.perform.web import DicomWeb, WebError, make_status_error
from gateway.perform.workitem import State, Workitem, WorkitemError, read_workitem

PAGE = 100
"""Tasks that are asked for at once."""

MOST_FOUND = 1000
"""Tasks that one search looks at; those of other performers may stand before ours."""

LOOKED_AT = (
    "InputReadinessState",
    "ScheduledProcedureStepPriority",
    "ScheduledProcedureStepStartDateTime",
    "ScheduledStationNameCodeSequence",
    "ScheduledWorkitemCodeSequence",
    "WorklistLabel",
)
"""What a search is to tell of each task."""

GONE = (404, 410)
NOT_OURS = (400, 409, *GONE)
"""What is answered when a task is in another state, or somebody else has it (11.6.3, 11.7.3)."""


class NotOursError(Exception):
    """The worklist does not take this from us: the task is over, or is not ours."""


class Worklist:
    """A worklist.

    Args:
        web: the service that has it.
        title: own application entity.
        title_in_path: name it behind ``state``, as dcm4chee wants it.
    """

    def __init__(self, web: DicomWeb, title: str, *, title_in_path: bool = False) -> None:
        self.web, self.title = web, title
        self._state_end = f"/{quote(title, safe='')}" if title_in_path else ""

    def search(self, keys: Mapping[str, str]) -> list[Workitem]:
        """Tasks that nobody has claimed, the most urgent first. A server may pass over keys: look at each again.

        Raises:
            WebError: it cannot be asked, or answers something else than tasks.
        """
        found = dict[str, Workitem]()
        for offset in range(0, MOST_FOUND, PAGE):
            items, before = self._search_page(keys, offset), len(found)
            for item in items:
                try:
                    workitem = read_workitem(item)
                except WorkitemError:
                    continue  # what cannot be read cannot be claimed, and hides no other
                found[workitem.uid] = workitem
            if len(items) < PAGE or len(found) == before:  # the second where a server passes over the offset
                break
        return sorted(found.values(), key=lambda one: (one.rank, one.start))

    def _search_page(self, keys: Mapping[str, str], offset: int) -> list[Item]:
        query = {"ProcedureStepState": State.SCHEDULED.value, **keys, "includefield": ",".join(LOOKED_AT)}
        query["limit"] = str(PAGE)
        query |= {"offset": str(offset)} if offset else {}
        status, body = self.web.ask("GET", "workitems", query)
        if status in (204, 404):  # no match; the second is what some answer
            return []
        if status not in (200, 206):
            raise make_status_error(status, "the worklist cannot be searched")
        return _read_list(body)

    def get(self, uid: str) -> Workitem | None:
        """A task as it is now; None: there is none of this UID any more.

        Raises:
            WebError: it cannot be asked, or answers something else.
        """
        status, body = self.web.ask("GET", f"workitems/{uid}")
        if status in GONE:
            return None
        if status != 200:
            raise make_status_error(status, "the task cannot be read")
        items = _read_list(body)
        try:
            workitem = read_workitem(items[0]) if len(items) == 1 else None
        except WorkitemError as error:
            raise WebError(f"the task cannot be read: {error}", may_pass=False) from None
        if workitem is None or workitem.uid != uid:
            raise WebError("the worklist answered with another task", may_pass=False)
        return workitem

    def change_state(self, uid: str, state: State, transaction: str) -> None:
        """Claims a task (IN PROGRESS), or ends it (COMPLETED, CANCELED).

        Raises:
            NotOursError: somebody else has it, or it is over.
            WebError: it is not known whether it was done.
        """
        dataset = Dataset()
        dataset.ProcedureStepState, dataset.TransactionUID = state.value, transaction
        status, _ = self.web.ask("PUT", f"workitems/{uid}/state{self._state_end}", body=write_json(dataset))
        if status in (404, 405) and not self._state_end:
            raise NotOursError(f"HTTP status {status}; if it is dcm4chee, it wants --title-in-path")
        check_change(status)

    def update(self, uid: str, changes: Dataset, transaction: str) -> None:
        """Sets attributes of a task that was claimed. The Transaction UID is in the query, where PS3.18 (11.6) has it,
        and among the attributes, where PS3.4 (CC.2.6) and dcm4chee have it.

        Raises:
            NotOursError: somebody else has it, or it is over.
            WebError: it is not known whether it was done.
        """
        changes.TransactionUID = transaction
        query = {"transaction-uid": transaction}
        status, _ = self.web.ask("POST", f"workitems/{uid}", query, write_json(changes))
        check_change(status)


def check_change(status: int) -> None:
    """Looks whether a change was made.

    Raises:
        NotOursError, WebError: it was not.
    """
    if status in NOT_OURS:
        raise NotOursError(f"HTTP status {status}")
    if not 200 <= status < 300:
        raise make_status_error(status, "the worklist did not take a change")


def _read_list(body: bytes) -> list[Item]:
    """Data sets of an answer; one alone may stand without brackets."""
    try:
        found = read_json(body)
    except ValueError:
        raise WebError("the worklist's answer is no JSON", may_pass=True) from None
    items = found if isinstance(found, list) else [found]
    if not all(isinstance(one, dict) for one in items):
        raise WebError("the worklist's answer has no data sets", may_pass=False)
    return items
