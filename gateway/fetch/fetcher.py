"""Asks the archive for what is missing of studies that have become quiet, and for what somebody wants."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from gateway.fetch.archive import MOST_FAILED, Archive, FoundSeries, Moved
from gateway.fetch.contents import read_contents
from gateway.fetch.limit import FetchError, Limit, Trouble
from gateway.fetch.orders import Order, Progress, find_state, list_orders, read_order, read_progress, write_progress
from gateway.queue.arrivals import Arrivals
from gateway.queue.folder import QueueFolder, make_key, show
from gateway.queue.notes import MOST_NAMED, NOTHING, Missing, Notes
from gateway.reasons import Doubt

logger = logging.getLogger(__name__)

POLL_SECONDS, FAILED_SECONDS = 0.5, 5.0
TELL_SECONDS = 0.5
"""Between two words on how far an order is."""

MOST_STUDIES = 10
"""Of an accession number."""


class Fetcher:
    """Fetches. Several threads may call ``run``; a slow study keeps one of them busy, and none waits for too long.

    Args:
        folder: the queue.
        arrivals: where studies arrive.
        archive: who is asked; None: nobody, which those hear who want something.
        seconds: how long a study waits for the archive, its turn included.
        stop: ends everything.
    """

    def __init__(
        self, folder: QueueFolder, arrivals: Arrivals, archive: Archive | None, seconds: float, stop: threading.Event
    ) -> None:
        self._folder, self._arrivals, self._archive = folder, arrivals, archive
        self._seconds, self._stop = seconds, stop
        # Not a SimpleQueue: where several threads wait for it with a timeout, Python's can wait for ever.
        self._tasks: queue.Queue[Callable[[], None]] = queue.Queue()
        self._lock = threading.Lock()
        self._taken: set[Path] = set()

    def ask(self, key: str) -> None:
        """Has a study that is held completed, and released."""
        self._tasks.put(partial(self._complete, key, Limit(self._seconds, self._is_running)))

    def look(self) -> None:
        """Takes new orders.

        Raises:
            OSError: they cannot be looked at.
        """
        for path in list_orders(self._folder.fetching):
            with self._lock:
                progress = read_progress(path)
                if path in self._taken or (progress is not None and progress.is_over):
                    continue
                self._taken.add(path)
            self._tasks.put(partial(self._fill, path, Limit(self._seconds, partial(self._is_wanted, path))))

    def run(self, stop: threading.Event) -> None:
        """Fetches until told to stop."""
        while not stop.is_set():
            try:
                task = self._tasks.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            try:
                task()
            except Exception as error:  # a full disk: a study that was held is released, an order is taken again
                logger.error("a fetch has failed: %s", type(error).__name__)
                logger.debug("why", exc_info=True)
                stop.wait(FAILED_SECONDS)

    def _is_running(self) -> bool:
        return not self._stop.is_set()

    def _is_wanted(self, order: Path) -> bool:
        return self._is_running() and order.exists()

    def _complete(self, key: str, limit: Limit) -> None:
        """Fetches what a study lacks that has become quiet."""
        notes, is_fetched = NOTHING, False
        try:
            here = read_contents(self._folder.receiving / key)
            if here.study:
                found = self._ask_archive().find_series(here.study, limit)
                notes = self._fetch(key, here.study, found, limit)
            is_fetched = True
        except FetchError as error:
            logger.warning("study %s: the archive does not complete it: %s", show(key), error)
            notes = doubt(error)
        finally:
            self._arrivals.release(key, notes, is_fetched=is_fetched)

    def _fill(self, path: Path, limit: Limit) -> None:
        """Fetches what somebody wants."""
        try:
            order = read_order(path)
            progress = Progress("fetching")
            write_progress(path, progress)
            try:
                if order is None:
                    raise FetchError(Trouble.NOT_FOUND, "the order cannot be read")
                progress = self._fetch_order(path, order, limit)
            except FetchError as error:
                if not self._is_running():
                    return  # at the next start it is taken again
                progress = Progress("failed", reason=error.trouble, message=f"{error}")
            if path.exists():
                write_progress(path, progress)
            else:  # who has cancelled it does not come back
                find_state(path).unlink(missing_ok=True)
            logger.info("an order was %s: %d images, %d failed", progress.state, progress.completed, progress.failed)
        finally:
            with self._lock:
                self._taken.discard(path)

    def _fetch_order(self, path: Path, order: Order, limit: Limit) -> Progress:
        archive = self._ask_archive()
        studies = [order.study] if order.study else archive.find_studies(order.accession, limit)
        if len(studies) > MOST_STUDIES:
            raise FetchError(Trouble.ARCHIVE_REFUSED, f"the archive has more than {MOST_STUDIES} studies of it")
        series = {study: archive.find_series(study, limit) for study in studies}
        if not any(series.values()):
            raise FetchError(Trouble.NOT_FOUND, "the archive has no CT series of it")
        announced = sum(one.count for some in series.values() for one in some)
        teller = Teller(path, Progress("fetching", sum(map(bool, series.values())), announced))
        lacking = sum(self._fetch_held(study, found, limit, teller) for study, found in series.items() if found)
        if lacking:
            message = f"{lacking} images did not come"
            return replace(teller.progress, state="failed", reason=Trouble.INCOMPLETE, message=message)
        return replace(teller.progress, state="done")

    def _fetch_held(self, study: str, found: list[FoundSeries], limit: Limit, teller: Teller) -> int:
        """Fetches a study that may be arriving at the same time, and is complete when this is; returns how many images
        did not come."""
        notes, is_fetched = NOTHING, False
        key = self._arrivals.hold(make_key(study))
        try:
            notes = self._fetch(key, study, found, limit, teller)
            is_fetched = True
        except FetchError as error:
            notes = doubt(error)
            raise
        finally:
            self._arrivals.release(key, notes, is_fetched=is_fetched)
        return sum(one.count for one in notes.missing)

    def _fetch(
        self, key: str, study: str, series: list[FoundSeries], limit: Limit, teller: Teller | None = None
    ) -> Notes:
        """Fetches series that are not whole here, and says what of them did not come.

        Raises:
            FetchError: the archive does not send, or is not waited for any more.
        """
        archive, teller = self._ask_archive(), teller or Teller(None, Progress("fetching"))
        folder = self._folder.receiving / key
        here, ends = read_contents(folder).counts, dict[str, Moved]()
        for one in series:
            if 0 < one.count <= here.get(one.uid, 0):
                teller.add(Moved(one.count, 0))
            else:
                ends[one.uid] = teller.add(archive.move(study, one.uid, limit, teller.note))
        if not ends:
            return NOTHING
        here, missing = read_contents(folder).counts, []
        for one in series:
            moved = ends.get(one.uid, Moved(0, 0))
            announced = one.count or here.get(one.uid, 0) + moved.failed
            if (count := announced - here.get(one.uid, 0)) > 0:  # what failed may have come from the scanner
                missing.append(Missing(one.uid, count, announced, moved.failed_uids[:MOST_NAMED], "archive"))
        logger.info("study %s: %d series fetched, %d of them not whole", show(key), len(ends), len(missing))
        return Notes(tuple(missing))

    def _ask_archive(self) -> Archive:
        if self._archive is None:
            raise FetchError(Trouble.NO_ARCHIVE, "this gateway runs without --fetch-from")
        return self._archive


class Teller:
    """Tells how far an order is, now and then.

    Args:
        path: of the order; None: nobody wants to hear it.
        progress: what is known of it; of images that have come or failed, those of series that are through.
    """

    def __init__(self, path: Path | None, progress: Progress) -> None:
        self._path, self.progress, self._due = path, progress, 0.0

    def note(self, moved: Moved) -> None:
        """Tells of a series that is under way."""
        if self._path is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + TELL_SECONDS
            write_progress(self._path, self._count(moved))

    def add(self, moved: Moved) -> Moved:
        """Counts a series that is through; returns it."""
        self.progress = self._count(moved)
        return moved

    def _count(self, moved: Moved) -> Progress:
        before = self.progress
        return replace(
            before,
            completed=before.completed + moved.completed,
            failed=before.failed + moved.failed,
            failed_instances=(before.failed_instances + moved.failed_uids)[:MOST_FAILED],
        )


def doubt(error: FetchError) -> Notes:
    """What results say of a study of which the archive was asked for the rest."""
    return Notes(doubts=((Doubt.FETCH_FAILED, f"The archive was asked for the rest of the study; {error}."),))
