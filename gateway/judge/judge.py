"""Judges complete studies, and writes their results down: once for each study, series and model."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from client import (
    ImageWarning,
    StrokeClient,
    StrokeClientError,
    StudyPrediction,
    StudySeries,
)
from gateway.judge.asking import ask, describe_not_kept
from gateway.judge.writing import WrittenResults, write_results
from gateway.queue.arrivals import read_not_kept
from gateway.queue.endings import Endings
from gateway.queue.files import remove_folder
from gateway.queue.folder import QueueFolder, find_study, show
from gateway.queue.journal import read_journal
from gateway.queue.notes import read_notes
from gateway.reasons import LeftOut, Unasked
from gateway.results.answer import make_unjudged

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
FIRST_PAUSE, MOST_PAUSE = 2.0, 60.0

Maker = Callable[[StudyPrediction | StrokeClientError, Sequence[Path], Sequence[StudySeries], datetime], WrittenResults]
"""Makes the results of an answer, or of the error that came in its place."""

Selector = Callable[[Sequence[Path]], tuple[list[Path], list[StudySeries]]]
"""Chooses the files that go to the server, and tells the series that do not."""


class Judge:
    """Judges what is in ``waiting``. Several threads may call ``run``; each study is with one of them.

    Args:
        folder: the queue.
        endings: where jobs end.
        client: asks the server.
        select: chooses what is judged.
        make: makes results.
        destinations: names of those that get them.
        give_up_seconds: how long a server is asked that may yet answer.
    """

    def __init__(
        self,
        folder: QueueFolder,
        endings: Endings,
        client: StrokeClient,
        select: Selector,
        make: Maker,
        destinations: Sequence[str],
        give_up_seconds: float,
    ) -> None:
        self._folder, self._endings, self._client = folder, endings, client
        self._select, self._make = select, make
        self._destinations, self._give_up_seconds = tuple(destinations), give_up_seconds
        self._choosing = threading.Lock()
        self._taken: set[str] = set()
        self._pauses: dict[str, float] = {}
        self._due: dict[str, float] = {}

    def run(self, stop: threading.Event) -> None:
        """Judges until told to stop."""
        while not stop.is_set():
            job = self._take()
            if job is None:
                stop.wait(POLL_SECONDS)
                continue
            try:
                self.judge(job)
                self._pauses.pop(job, None)
                self._due.pop(job, None)
            except Exception as error:  # a full disk, a result that cannot be made: the study stays where it is
                logger.error("study %s: not judged, tried again later: %s", show(job), describe(error))
                logger.debug("why", exc_info=True)
                self._postpone(job)
            finally:
                with self._choosing:
                    self._taken.discard(job)

    def _take(self) -> str | None:
        """The next job that is due, and of whose study none is being judged: so none is answered twice."""
        with self._choosing:
            now = time.monotonic()
            busy = set(map(find_study, self._taken))
            for job in self._folder.list_jobs(self._folder.waiting):
                if find_study(job) not in busy and self._due.get(job, now) <= now:
                    self._taken.add(job)
                    return job
        return None

    def _postpone(self, job: str) -> None:
        pause = min(self._pauses.get(job, FIRST_PAUSE / 2) * 2, MOST_PAUSE)
        self._pauses[job], self._due[job] = pause, time.monotonic() + pause

    def judge(self, job: str) -> None:
        """Judges a study and puts its results to those that are to be sent.

        Raises:
            OSError: a file cannot be read or written; then the study is where it was.
            StrokeClientError: there is no answer yet.
        """
        folder = self._folder.waiting / job
        paths = sorted(folder.glob("*.dcm"))
        if not paths:
            logger.info("study %s: it had no CT image, so there is nothing to judge", show(job))
            remove_folder(folder)
            return
        began = time.monotonic()
        chosen, left_out = self._select(paths)
        waited = time.time() - find_seconds(job)
        answer = refuse_unasked(folder, chosen) or ask(self._client, chosen, is_last_try=waited > self._give_up_seconds)
        left_out += describe_not_received(folder) + describe_not_kept(read_not_kept(folder))
        results = self._make(add_warnings(answer, folder), paths, left_out, datetime.now(UTC))
        if why := self._find_needless(job, answer, results.identity):
            logger.info("study %s: nothing is sent: %s", show(job), why)
            remove_folder(folder)
            return
        write_results(self._folder, job, results, self._destinations)
        if isinstance(answer, StrokeClientError):
            logger.error("study %s: not judged [%s]; results that say so are on their way", show(job), answer.reason)
            self._endings.fail(folder, answer.reason, "its results say why; the images are here")
        else:
            logger.info(
                "study %s: %s, %d files in %.1f s, model %s %s, request %s",
                *(show(job), answer.status, len(paths), time.monotonic() - began),
                *(answer.model, answer.version, answer.request_id),
            )
            remove_folder(folder)

    def _find_needless(self, job: str, answer: StudyPrediction | StrokeClientError, identity: Sequence[str]) -> str:
        """Why results are not to be sent; empty: they are."""
        made = self._list_made(job)
        if tuple(identity) in made:
            return "these results were made before"
        if made and (isinstance(answer, StrokeClientError) or answer.series is None):
            return "what came later had nothing to judge, and the study has results"
        return ""

    def _list_made(self, job: str) -> set[tuple[str, ...]]:
        """Results of the study that are at their destinations, or on the way there."""
        made = self._endings.recall(job)
        for other in self._folder.list_jobs(self._folder.sending):
            if other != job and find_study(other) == find_study(job):
                journal = read_journal(self._folder.sending / other)
                made |= {journal.identity} if journal is not None else set()
        return made


def refuse_unasked(folder: Path, chosen: Sequence[Path]) -> StudyPrediction | None:
    """The answer of a study of which there is nothing to ask; None: the server is asked."""
    if read_notes(folder).is_wrong_entry:
        message = "The scanner has taken the study back: the wrong entry of its worklist had been selected."
        return make_unjudged(StrokeClientError(message, Unasked.WRONG_WORKLIST_ENTRY))
    if not chosen:
        message = "The gateway's settings leave out every series that came."
        return make_unjudged(StrokeClientError(message, Unasked.NO_SERIES))
    return None


def describe_not_received(folder: Path) -> list[StudySeries]:
    """Images that scanner or archive have named and that did not come, by their series."""
    missing = read_notes(folder).missing
    return [StudySeries(one.series, one.count, LeftOut.NOT_RECEIVED, one.describe()) for one in missing]


def add_warnings(answer: StudyPrediction | StrokeClientError, folder: Path) -> StudyPrediction | StrokeClientError:
    """An answer, or an error that came in its place, with what is to be said of how the study came."""
    warnings = tuple(ImageWarning(doubt, text) for doubt, text in read_notes(folder).doubts)
    if not warnings:
        return answer
    prediction = make_unjudged(answer) if isinstance(answer, StrokeClientError) else answer
    return replace(prediction, warnings=(*prediction.warnings, *warnings))


def find_seconds(job: str) -> float:
    """When a study was complete, in seconds since 1970."""
    return int(job.rpartition("-")[2]) / 1e9


def describe(error: Exception) -> str:
    """An error for the log, without what a file may have said."""
    if isinstance(error, StrokeClientError):
        return f"[{error.reason}] {error}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__
