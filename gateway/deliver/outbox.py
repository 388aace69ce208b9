"""Results that wait for their destinations: each is tried again, less and less often, and in the end given up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.deliver.destination import DeliveryError, Destination, ResultFile
from gateway.queue.endings import Endings
from gateway.queue.files import remove_folder
from gateway.queue.folder import QueueFolder, show
from gateway.queue.journal import Journal, State, read_journal, reopen, write_journal

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
FIRST_PAUSE, MOST_PAUSE = 1.0, 60.0
MOST_REFUSALS = 5
"""Tries of what a destination has looked at and refused: one that is being set up refuses at first."""


@dataclass
class Trouble:
    """A job that a destination does not have yet."""

    tries: int
    refusals: int
    due: float
    """When to try again (monotonic)."""


class Outbox:
    """Sends what is in ``sending``. Each destination has a thread that calls ``run``, so that none holds up another.

    Args:
        folder: the queue.
        endings: where jobs end.
        give_up_seconds: how long a destination is tried that may yet take the results.
    """

    def __init__(self, folder: QueueFolder, endings: Endings, give_up_seconds: float) -> None:
        self._folder, self._endings, self._give_up_seconds = folder, endings, give_up_seconds
        self._changing = threading.Lock()

    def run(self, destination: Destination, stop: threading.Event) -> None:
        """Delivers to one destination until told to stop."""
        troubles: dict[str, Trouble] = {}
        while not stop.wait(POLL_SECONDS):
            try:
                self.deliver(destination, troubles, stop)
            except Exception as error:  # a full disk, a file that somebody has removed: the next round may do better
                logger.error("deliveries to %s stand still: %s", destination.name, type(error).__name__)
                logger.debug("why", exc_info=True)
                stop.wait(FIRST_PAUSE)

    def deliver(self, destination: Destination, troubles: dict[str, Trouble], stop: threading.Event) -> None:
        """Goes once through all results that a destination does not have.

        Raises:
            OSError: what was done cannot be written down.
        """
        jobs = self._folder.list_jobs(self._folder.sending)
        for gone in troubles.keys() - set(jobs):
            del troubles[gone]
        for job in jobs:
            if stop.is_set():
                return
            trouble = troubles.get(job)
            if trouble is not None and time.monotonic() < trouble.due:
                continue
            journal = read_journal(self._folder.sending / job)
            if journal is None:
                self._give_up_unreadable(job)
            elif self._is_pending(journal, destination) and not self._try(job, journal, destination, troubles):
                return  # nobody is there: what comes after would not fare better
            else:
                self._end(job)

    @staticmethod
    def _is_pending(journal: Journal, destination: Destination) -> bool:
        delivery = journal.deliveries.get(destination.name)
        return delivery is not None and delivery.state is State.PENDING

    def _try(self, job: str, journal: Journal, destination: Destination, troubles: dict[str, Trouble]) -> bool:
        """Sends the results of a job. Returns False when the destination could not be reached and is not given up."""
        results = read_results(self._folder.sending / job, journal.files)
        try:
            destination.send(results)
        except DeliveryError as error:
            return self._note_trouble(job, journal, destination, error, troubles)
        except Exception as error:  # of a library, at an answer that nobody has thought of
            logger.debug("why", exc_info=True)
            failure = DeliveryError(f"sending failed ({type(error).__name__})")
            return self._note_trouble(job, journal, destination, failure, troubles)
        troubles.pop(job, None)
        self._note(job, destination.name, State.SENT)
        logger.info("study %s: results are at %s", show(job), destination.name)
        return True

    def _note_trouble(
        self,
        job: str,
        journal: Journal,
        destination: Destination,
        error: DeliveryError,
        troubles: dict[str, Trouble],
    ) -> bool:
        trouble = troubles.setdefault(job, Trouble(0, 0, 0.0))
        trouble.tries += 1
        trouble.refusals += error.is_refusal
        trouble.due = time.monotonic() + min(FIRST_PAUSE * 2 ** (trouble.tries - 1), MOST_PAUSE)
        if trouble.refusals >= MOST_REFUSALS or time.time() - journal.made > self._give_up_seconds:
            self._note(job, destination.name, State.GIVEN_UP, str(error))
            logger.error("study %s: %s does not get its results: %s", show(job), destination.name, error)
            return True
        if trouble.tries == 1 or trouble.tries % 10 == 0:
            logger.warning("study %s: %s has no results yet: %s", show(job), destination.name, error)
        return error.is_refusal

    def _note(self, job: str, destination: str, state: State, why: str = "") -> None:
        with self._changing:
            folder = self._folder.sending / job
            journal = read_journal(folder)
            if journal is not None:
                write_journal(folder, journal.note(destination, state, why))

    def drop_strangers(self, destinations: Sequence[Destination]) -> None:
        """Gives up what was meant for destinations that are none any more."""
        names = {one.name for one in destinations}
        for job in self._folder.list_jobs(self._folder.sending):
            journal = read_journal(self._folder.sending / job)
            for name in () if journal is None else journal.deliveries.keys() - names:
                self._note(job, name, State.GIVEN_UP, "it is no destination any more")

    def _end(self, job: str) -> None:
        """Ends a job with which nothing is left to be done."""
        with self._changing:
            folder = self._folder.sending / job
            journal = read_journal(folder)
            if journal is None or not journal.is_finished:
                return
            if journal.given_up:
                message = "; ".join(f"{name}: {why}" for name, why in journal.given_up.items())
                write_journal(folder, reopen(journal, time.time()))  # whoever moves it back wants it tried again
                self._endings.fail(folder, "NOT_DELIVERED", message)
            else:
                self._endings.remember(job, journal.identity)
                remove_folder(folder)

    def _give_up_unreadable(self, job: str) -> None:
        with self._changing:
            folder = self._folder.sending / job
            if folder.is_dir() and read_journal(folder) is None:
                logger.error("study %s: its journal cannot be read", show(job))
                self._endings.fail(folder, "JOURNAL_UNREADABLE", "journal.json is not as it was written")


def read_results(folder: Path, names: Sequence[str]) -> list[ResultFile]:
    """The results of a job.

    Raises:
        OSError: one cannot be read.
    """
    return [ResultFile(name, (folder / name).read_bytes()) for name in names]
