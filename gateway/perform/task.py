"""One task, from its claim to its end. Each step is written down before the next, and may be done again: so that it
goes on after whatever ended the process, and results are the same objects however often they are sent."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydicom.sr.coding import Code

from client import (
    IntegrityError,
    InvalidImageError,
    InvalidRequestError,
    StrokeClient,
    StrokeClientError,
    StudyPrediction,
)
from gateway.deliver.destination import DeliveryError, ResultFile
from gateway.deliver.stow import StowDestination
from gateway.judge.asking import ask, describe_not_kept
from gateway.judge.judge import Maker, describe
from gateway.judge.writing import WrittenResults
from gateway.perform import statements
from gateway.perform.claim import INPUT, RESULTS, Claim, Claims, Ending, Step, write_reason
from gateway.perform.retrieve import Bounds, IncompleteError, Retriever
from gateway.perform.web import DicomWeb, WebError
from gateway.perform.workitem import State, Workitem
from gateway.perform.worklist import NotOursError, Worklist
from gateway.queue.endings import Endings
from gateway.queue.files import PART, make_folder, move_folder, remove_folder, write_record, write_whole
from gateway.queue.folder import QueueFolder, make_job, make_key, show

logger = logging.getLogger(__name__)

MOST_REFUSALS = 5
"""Tries of results that the archive has looked at and refused."""

FORGET_FACTOR = 2
"""A task whose end the worklist cannot be told of is forgotten after so many times what a task waits at most."""


class LaterError(Exception):
    """The task cannot go on for now; the message says why, and names nobody."""


class DiscontinueError(Exception):
    """The task is not performed; the message is for the log, and names nobody.

    Attributes:
        ending: what the worklist is told.
    """

    def __init__(self, ending: Ending, shown: str) -> None:
        super().__init__(shown)
        self.ending = ending


def discontinue(code: Code, text: str, shown: str = "") -> DiscontinueError:
    """What is raised to end a task.

    Args:
        code: the reason.
        text: the same in a sentence.
        shown: for the log; ``text`` unless given.
    """
    return DiscontinueError(Ending(State.CANCELED, write_reason(code), text), shown or text)


@dataclass(frozen=True)
class Means:
    """What tasks are performed with."""

    folder: QueueFolder
    claims: Claims
    endings: Endings
    worklist: Worklist
    archive: DicomWeb
    origins: frozenset[tuple[str, str, int]]
    """Others that images may be fetched from: scheme, host and port."""

    client: StrokeClient
    make: Maker
    station: Code
    bounds: Bounds
    least_free_bytes: int
    give_up_seconds: float
    storing: threading.Lock = field(default_factory=threading.Lock)
    """Held while results are stored, so that those of one study are once."""


class Task:
    """Performs one task.

    Args:
        means: with what.
        claim: what is on disk of it.
        stop: told when the process is to stop.
    """

    def __init__(self, means: Means, claim: Claim, stop: threading.Event) -> None:
        self._means, self._claims, self._stop = means, means.claims, stop
        self.claim = claim
        self._folder = means.claims.find(claim)
        self._refusals = 0

    def perform(self) -> State | None:
        """Goes on until the task has ended. Returns its final state; None where it is, or has become, somebody else's.

        Raises:
            LaterError: it cannot go on for now.
            OSError: something cannot be written down.
        """
        try:
            state = self._perform()
        except NotOursError as error:
            logger.info("task %s: left alone: %s", show(self.claim.key), error)
            state = None
        except WebError as error:
            if self.claim.age <= FORGET_FACTOR * self._means.give_up_seconds:
                raise LaterError(str(error)) from None
            logger.error("task %s: forgotten, as the worklist cannot be told: %s", show(self.claim.key), error)
            state = None
        self._claims.remove(self.claim)
        if state is not None:
            logger.info("task %s: %s", show(self.claim.key), state)
        return state

    def _perform(self) -> State:
        workitem = self._means.worklist.get(self.claim.workitem)
        ending = self.claim.ending
        if workitem is not None and ending is not None and workitem.state == ending.state:
            return ending.state  # and the answer to that was lost
        self._check_state(workitem)
        assert workitem is not None
        if self.claim.step == Step.CLAIMING:
            self._make_ours(workitem)
        if self.claim.ending is None:
            self._decide(workitem)
        if self.claim.step == Step.JUDGED:
            self._store()
        return self._end(workitem)

    def _check_state(self, workitem: Workitem | None) -> None:
        """Looks whether the task can still be ours.

        Raises:
            NotOursError: it cannot.
        """
        if workitem is None:
            raise NotOursError("it is gone")
        if workitem.state != State.IN_PROGRESS and self.claim.step != Step.CLAIMING:
            raise NotOursError(f"it is {workitem.state}, by somebody else")
        if workitem.state in (State.COMPLETED, State.CANCELED):
            raise NotOursError(f"it is {workitem.state}")

    def _make_ours(self, workitem: Workitem) -> None:
        """Claims the task, or finds out whether it was: the answer may have been lost.

        Raises:
            NotOursError: somebody else was first.
            WebError: it is not known yet.
        """
        uid, transaction = self.claim.workitem, self.claim.transaction
        if workitem.state == State.SCHEDULED:
            self._means.worklist.change_state(uid, State.IN_PROGRESS, transaction)
        else:  # nobody is told whose it is, but it opens to its own Transaction UID alone
            self._means.worklist.update(uid, statements.state_progress(0, "claimed"), transaction)
        self.claim = self._claims.write(self.claim, step=Step.CLAIMED)
        logger.info("task %s: claimed", show(self.claim.key))

    def _decide(self, workitem: Workitem) -> None:
        """Has the images judged, or decides that they are not.

        Raises:
            LaterError, WebError: neither for now.
        """
        try:
            try:
                self._check()
                if not self.claim.job:
                    self._fetch(workitem)
                self._ask()
            except IncompleteError as error:
                raise discontinue(statements.INCOMPLETE, str(error)) from None
            except (WebError, LaterError, OSError) as error:
                text = describe(error) if isinstance(error, OSError) else str(error)
                if isinstance(error, WebError) and not error.may_pass:
                    raise discontinue(statements.MALFORMED, text) from None
                if self.claim.age > self._means.give_up_seconds:
                    raise discontinue(statements.INADEQUATE, text) from None
                raise
        except DiscontinueError as why:
            logger.warning("task %s: it is not performed: %s", show(self.claim.key), why)
            self.claim = self._claims.write(self.claim, ending=why.ending)
        remove_folder(self._folder / INPUT)

    def _check_cancel(self) -> None:
        """Looks whether somebody wants the task canceled.

        Raises:
            DiscontinueError: somebody does.
        """
        if (ending := self._claims.find_cancel(self.claim)) is not None:
            raise DiscontinueError(ending, "somebody wants it canceled")

    def _check(self, count: int = 0) -> None:
        """Looks whether to go on, with as many bytes more.

        Raises:
            DiscontinueError: somebody wants the task canceled.
            LaterError: the process is to stop, or the disk is full.
        """
        self._check_cancel()
        if self._stop.is_set():
            raise LaterError("the process is told to stop")
        if self._means.folder.find_free_bytes() - count < self._means.least_free_bytes:
            raise LaterError("the disk has no room")

    def _fetch(self, workitem: Workitem) -> None:
        """Gets the images."""
        studies = {source.study for source in workitem.sources}
        if len(studies) != 1:
            raise discontinue(
                statements.MALFORMED if studies else statements.INCOMPLETE,
                f"the task names images of {len(studies)} studies, not of one",
            )
        self._report(10, "fetching images")
        remove_folder(self._folder / INPUT)
        make_folder(self._folder / INPUT)
        retriever = Retriever(self._means.archive, self._means.origins, self._means.bounds, self._check)
        not_kept = retriever.fetch(workitem.sources, self._folder / INPUT)
        if not any((self._folder / INPUT).iterdir()):
            raise discontinue(statements.NOT_SUPPORTED, "there is no CT image among the images of the task")
        self.claim = self._claims.write(self.claim, job=make_job(make_key(studies.pop())), not_kept=not_kept)

    def _ask(self) -> None:
        """Gets the answer, and writes the results down."""
        self._report(50, "judging")
        paths = sorted((self._folder / INPUT).glob("*.dcm"))
        answer = self._ask_server(paths)
        results = self._make_results(answer, paths)
        self._check_cancel()
        ending = Ending(State.COMPLETED)
        if isinstance(answer, StrokeClientError):
            is_refusal = isinstance(answer, InvalidImageError | InvalidRequestError)
            code = statements.MALFORMED if is_refusal else statements.INADEQUATE
            ending = discontinue(code, describe(answer)).ending
            logger.warning("task %s: not judged [%s]; results say so", show(self.claim.key), answer.reason)
        else:
            logger.info(
                "task %s: study %s: %s, %d files, model %s %s, request %s",
                *(show(self.claim.key), show(self.claim.job), answer.status, len(paths)),
                *(answer.model, answer.version, answer.request_id),
            )
        self._write_results(results)
        self.claim = self._claims.write(self.claim, step=Step.JUDGED, ending=ending, identity=tuple(results.identity))

    def _ask_server(self, paths: Sequence[Path]) -> StudyPrediction | StrokeClientError:
        """The answer, or an error that stays, as each does when the task has waited for long enough.

        Raises:
            LaterError: there may yet be an answer.
        """
        try:
            return ask(self._means.client, paths)
        except StrokeClientError as error:
            if self.claim.age > self._means.give_up_seconds and not isinstance(error, IntegrityError):
                return error
            raise LaterError(describe(error)) from None

    def _make_results(self, answer: StudyPrediction | StrokeClientError, paths: Sequence[Path]) -> WrittenResults:
        try:
            return self._means.make(answer, paths, describe_not_kept(self.claim.not_kept), datetime.now(UTC))
        except OSError:
            raise
        except Exception as error:  # of a library, at headers that nobody has thought of: so it would be the next time
            logger.debug("why", exc_info=True)
            text = f"results cannot be made of these images ({type(error).__name__})"
            raise discontinue(statements.MALFORMED, text) from None

    def _write_results(self, results: WrittenResults) -> None:
        target = self._folder / RESULTS
        part = target.with_name(f"{RESULTS}{PART}")
        remove_folder(target)
        remove_folder(part)
        make_folder(part)
        for name, data in results.files.items():
            write_whole(part / name, data)
        move_folder(part, target)
        write_record(self._means.folder.results / f"{self.claim.job}.json", dict(results.record))

    def _store(self) -> None:
        """Gives the results to the archive, or decides that it does not get them.

        Raises:
            LaterError: it may yet take them.
        """
        try:
            if self.claim.ending is not None and self.claim.ending.state == State.COMPLETED:
                self._check_cancel()
            with self._means.storing:  # another task may be about the same images
                if self.claim.identity not in self._means.endings.recall(self.claim.job):
                    self._report(80, "storing results")
                    self._send()
                    self._means.endings.remember(self.claim.job, self.claim.identity)
            self.claim = self._claims.write(self.claim, step=Step.STORED)
        except DiscontinueError as why:
            logger.warning("task %s: its results are not stored: %s", show(self.claim.key), why)
            self.claim = self._claims.write(self.claim, ending=why.ending, step=Step.STORED, identity=())
            remove_folder(self._folder / RESULTS)

    def _send(self) -> None:
        paths = sorted((self._folder / RESULTS).iterdir())
        archive = self._means.archive
        try:
            StowDestination(archive.url, archive.ca, archive.token).send(
                [ResultFile(path.name, path.read_bytes()) for path in paths]
            )
        except DeliveryError as error:
            self._refusals += error.is_refusal
            if self._refusals >= MOST_REFUSALS or self.claim.age > self._means.give_up_seconds:
                raise discontinue(statements.INADEQUATE, f"the archive did not take the results: {error}") from None
            raise LaterError(f"the archive has no results yet: {error}") from None

    def _end(self, workitem: Workitem) -> State:
        """Tells the worklist how the task ended.

        Raises:
            NotOursError: it has ended meanwhile, by somebody else.
            WebError: it is not told yet.
        """
        ending = self.claim.ending
        assert ending is not None
        outputs = statements.read_outputs(self._folder / RESULTS)
        changes = statements.state_end(
            ending,
            self.claim.made,
            next(iter(workitem.codes), statements.DETECTION),
            self._means.station,
            [one for one in outputs if one.sop in self.claim.identity],
            self._means.archive.url,
        )
        try:
            self._means.worklist.update(self.claim.workitem, changes, self.claim.transaction)
            self._means.worklist.change_state(self.claim.workitem, ending.state, self.claim.transaction)
        except NotOursError as error:
            self._check_state(self._means.worklist.get(self.claim.workitem))
            raise WebError(f"the worklist does not let it end yet: {error}", may_pass=True) from None
        return ending.state

    def _report(self, percent: int, text: str) -> None:
        """Tells the worklist how far the task has come. That it is not told ends nothing; that it is over does.

        Raises:
            NotOursError: it is over.
        """
        changes = statements.state_progress(percent, text)
        try:
            self._means.worklist.update(self.claim.workitem, changes, self.claim.transaction)
        except NotOursError:
            self._check_state(self._means.worklist.get(self.claim.workitem))
        except WebError as error:
            logger.debug("task %s: progress is not told: %s", show(self.claim.key), error)
