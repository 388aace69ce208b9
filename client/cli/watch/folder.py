"""``--watch DIR``: look, read, send, write down, move, and wait out what is in the way, until somebody ends it.

    Ctrl-C                   exit status 130, as for every run that is cut short
    SIGTERM                  exit status 0: how service managers end what has no end of its own
    no folder, a full disk   exit status 1
    wrong usage              exit status 2; so is a folder or file of results that another run works on

Whatever ends it, even ``kill -9``: started again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import chain
from typing import TYPE_CHECKING

from ..._config import RetryConfig
from ..._errors import (
    AuthenticationError,
    InvalidImageError,
    InvalidRequestError,
    ModelNotFoundError,
    StrokeClientError,
)
from ..._types import HealthStatus, Prediction
from ..classify import Batch
from ..connection import Connection
from ..excel import choose_table
from ..result_file import ResultFile
from ..results import (
    NOT_ANALYSED,
    JsonLinesFormat,
    Record,
    ResultFileError,
    ResultWriter,
    StreamWriter,
    open_output,
    record_to_json,
)
from ..signals import StopSignals
from ..terminal import escape
from .arrivals import Arrivals, ArrivedImage, lock_folder
from .log import WatchLog, format_duration
from .outcomes import KnownResult, Outcomes
from .strangers import Strangers

if TYPE_CHECKING:
    from ..._client import StrokeClient

POLL_SECONDS = 0.25
_POLL_SHARE = 0.02
"""Most of the time that looking at the folder may take; one that is slow to read is looked at less often."""

_ROUND = 64
"""Images that are judged before the folder is looked at again."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
"""Seconds until a server or folder that is away is tried again, doubling."""

_HEALTH_SECONDS = 2.0
"""Time that a server has to say whether it is well."""

_TRIES = 3
"""Times that an image is tried at which the server fails while it says that it is well; then the image is at fault."""

_MOST_TRIED = 1000
"""Images whose tries are counted at the same time."""

_AWAY = {"UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"}
"""Codes that say nothing about the image: it waits for as long as it takes."""

_REFUSALS = (AuthenticationError, InvalidRequestError, ModelNotFoundError)
"""Errors that are the same for all images: before the first answer the settings are wrong, later the server's are."""

_RETRY = RetryConfig(max_attempts=4)
"""A second or so: the watch itself waits for a server that is away, as long as it takes, says so, and looks at the
folder again, from which images may have been taken meanwhile."""


class WatchError(Exception):
    """The watch cannot go on; the text says why."""


def watch(arguments: argparse.Namespace, connection: Connection) -> int:
    """Watches a folder until a signal comes, and returns the exit status.

    Args:
        arguments: ``watch`` (the folder), ``settle`` (seconds), ``move``, ``beside``, ``csv``, ``output``, ``model``,
            ``model_version``, ``in_flight``, ``json`` and ``quiet`` of the command line. Without ``csv`` and
            ``output``, results go beside the images.
        connection: how the server is reached.
    """
    with StopSignals() as signals:
        return run_watch(arguments, connection, signals)


def run_watch(arguments: argparse.Namespace, connection: Connection, signals: StopSignals) -> int:
    """Watches a folder until ``signals`` says stop, in any thread; see ``watch``."""
    folder = arguments.watch
    beside = not (arguments.csv or arguments.output)
    if arguments.beside and not beside:
        # Two places cannot be written to in one step, so a crash could leave a result in one of them alone.
        print("error: --beside does not go with --csv and --output: choose one place for results", file=sys.stderr)
        return 2
    try:
        with lock_folder(folder), connection.open_client(_RETRY) as client:
            outcomes = Outcomes(folder, beside=beside, move=arguments.move)
            journal = _open_journal(arguments.csv, arguments.output, arguments.excel)
            try:
                return WatchRun(arguments, client, signals, outcomes, journal).run()
            finally:
                if journal is not None:
                    journal.close()
    except (ResultFileError, ValueError) as error:  # a setting that cannot be used
        print(escape(f"error: {error}"), file=sys.stderr)
        return 2
    except WatchError as error:
        print(escape(f"error: {error}"), file=sys.stderr)
    except OSError as error:
        if error.filename is None:  # of standard output
            raise
        print(escape(f"error: {error.filename} cannot be used: {error.strerror}"), file=sys.stderr)
    return 1


class WatchRun:
    """One watch over one folder.

    Args:
        arguments: of the command line, see ``watch``.
        client: who judges.
        signals: what ends it.
        outcomes: what is left in the folder.
        journal: takes the results, too, when there is one.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        client: StrokeClient,
        signals: StopSignals,
        outcomes: Outcomes,
        journal: ResultWriter | None,
    ) -> None:
        self._name: str = arguments.watch
        self._options = {
            "model": arguments.model,
            "version": arguments.model_version,
            "in_flight": arguments.in_flight,
        }
        self._log = WatchLog(
            arguments.watch,
            Batch(arguments, client).describe_model,
            as_json=arguments.json,
            as_text=not arguments.json and arguments.csv != "-",
            is_quiet=arguments.quiet,
        )
        self._client = client
        self._signals = signals
        self._outcomes = outcomes
        self._journal = journal
        journals = [path for path in (arguments.csv, arguments.output) if path]
        self._arrivals = Arrivals(arguments.watch, settle=arguments.settle, own=[*outcomes.list_targets(), *journals])
        self._strangers = Strangers(self._arrivals.left_out, self._log)
        self._known: dict[str, KnownResult] = {}  # of images that are still to be moved
        self._labels: Counter[str] = Counter()
        self._failed = 0
        self._tries: Counter[str] = Counter()
        self._trouble = ""  # what is in the way and was said; empty while nothing is
        self._pause = _FIRST_PAUSE
        self._started = time.monotonic()

    def run(self) -> int:
        """Judges until a signal comes; returns the exit status.

        Raises:
            WatchError: it cannot go on.
            OSError: the folder cannot be used.
        """
        self._take_up()
        try:
            while not self._signals.stopping:
                names, pause = self._poll()
                if names:
                    self._judge(names[:_ROUND])
                if len(names) <= _ROUND:
                    self._signals.wait(pause)
        except KeyboardInterrupt:
            pass
        finally:
            self._log.note("", self._summary())
        return self._signals.exit_status

    def _take_up(self) -> None:
        """Finds what earlier runs have judged."""
        self._outcomes.prepare()
        self._arrivals.poll()
        self._name_oddities()
        records = self._journal.records() if isinstance(self._journal, ResultFile) else iter(())
        for known in chain(self._outcomes.find_results(), map(KnownResult.from_fields, records)):
            kept = not self._outcomes.moves
            if self._arrivals.adopt_result(known.name, known.sha256, known.stamp, finished=kept) and not kept:
                self._known[known.name] = known
        judged, waiting = self._arrivals.judged, self._arrivals.waiting
        others = self._strangers.take_up()
        self._log.note("", f"watching {self._name}: {judged} images have results, {waiting} wait{others}; Ctrl-C ends")

    def _poll(self) -> tuple[list[str], float]:
        """Returns the files to read, and the seconds until the folder is to be looked at again."""
        began = time.monotonic()
        try:
            names = self._arrivals.poll()
        except OSError as error:
            return [], self._grow_pause(f"the folder cannot be read: {error.strerror}: waiting for it")
        self._name_oddities()
        self._strangers.look()
        if self._trouble.startswith("the folder"):
            self._recover("the folder is back")
        return names, max(POLL_SECONDS, (time.monotonic() - began) / _POLL_SHARE)

    def _name_oddities(self) -> None:
        for name in self._arrivals.oddities:
            self._log.note(name, "left alone: a link, a folder or a device, not a file")

    def _judge(self, names: list[str]) -> None:
        """Sends the files that are complete and deals with what comes back."""
        sent: deque[ArrivedImage] = deque()
        try:
            with closing(self._client.predict_many(self._load(names, sent), **self._options)) as results:
                while True:
                    with self._signals.interruptible():
                        result = next(results, None)
                    if result is None:
                        return
                    image = sent.popleft()
                    if isinstance(result, Prediction):
                        self._settle(image, result)
                    elif isinstance(result.error, InvalidImageError):
                        self._settle(image, result.error)
                    elif self._handle_trouble(result.error, image):
                        return  # what was sent is found again
        except StrokeClientError as error:  # of all that were sent
            self._handle_trouble(error, sent[0] if sent else None)

    def _load(self, names: list[str], sent: deque[ArrivedImage]) -> Iterator[bytes]:
        for name in names:
            if self._signals.stopping:
                return
            image = self._arrivals.read(name)
            if image is None:
                continue
            if image.judged:
                self._finish(image)
            elif image.fault is not None:
                self._settle(image, image.fault)
            else:
                sent.append(image)
                yield image.data

    def _settle(self, image: ArrivedImage, outcome: Prediction | StrokeClientError) -> None:
        """Writes down what came of an image, moves it, and says so."""
        path = os.path.join(self._name, image.name)
        record = Record(path, outcome, image.stamp.to_file_stamp())
        fields = record_to_json(record)
        fault = ""
        try:
            if self._journal is not None:
                self._journal.write(record)
                if self._outcomes.moves and isinstance(self._journal, ResultFile):
                    self._journal.sync()
        except BrokenPipeError:
            raise
        except OSError as error:
            where = error.filename or "the file of results"
            raise WatchError(f"the result cannot be written: {where}: {error.strerror}") from None
        try:
            self._outcomes.store(image, fields)
        except OSError as error:
            if not os.path.isdir(self._name):  # the next look at it says so
                return
            if isinstance(error, FileNotFoundError) and not os.path.lexists(path):
                self._log.say(image.name, "was taken away before it could be moved")
            else:
                fault = self._blame(error, "the result cannot be written")
        if fault:
            self._arrivals.mark_judged(image)  # left alone from here on, unless it changes
            if self._journal is not None:
                self._log.say(image.name, f"error: {fault}")
            else:
                outcome = StrokeClientError(f"{fault} ({outcome})", "RESULT_UNWRITABLE", request_id=outcome.request_id)
                fields = record_to_json(Record(path, outcome, record.stamp))
        else:
            self._let_go(image)
        self._log.show_record(fields)
        if self._trouble and (isinstance(record.outcome, Prediction) or record.outcome.code is not None):
            self._recover("the server answers again")
        if isinstance(outcome, Prediction):
            self._labels[outcome.label or NOT_ANALYSED] += 1
            self._log.show_prediction(record, outcome)
        else:
            self._failed += 1
            self._log.say(image.name, f"error: {outcome}")

    def _finish(self, image: ArrivedImage) -> None:
        """Does what an earlier run had left to do for an image that it has judged."""
        known = self._known.pop(image.name, None)
        if known is not None:
            try:
                self._outcomes.finish(image, known)
            except OSError as error:
                self._log.say(image.name, f"error: {self._blame(error, 'it cannot be moved')}")
                self._failed += 1
                self._arrivals.mark_judged(image)
                return
        self._let_go(image)

    def _blame(self, error: OSError, what: str) -> str:
        """Returns what an image alone is to blame for.

        Raises:
            WatchError: no other image would fare better.
        """
        where = error.filename2 or error.filename
        text = f"{what}: {where}: {error.strerror}" if where else f"{what}: {error.strerror}"
        if self._outcomes.is_at_fault(error):
            raise WatchError(text) from None
        return text

    def _let_go(self, image: ArrivedImage) -> None:
        self._tries.pop(image.name, None)
        if self._outcomes.moves:
            self._arrivals.forget(image.name)
        else:
            self._arrivals.mark_judged(image)

    def _handle_trouble(self, error: StrokeClientError, image: ArrivedImage | None) -> bool:
        """Deals with a failure that is not known to be the image's, and returns True when it was waited out."""
        if isinstance(error, _REFUSALS) and not self._labels and not self._failed:
            raise WatchError(str(error))
        if image is None or error.code in _AWAY or isinstance(error, _REFUSALS) or not self._is_server_well():
            self._signals.wait(self._grow_pause(f"{error}; images wait until it answers"))
            return True
        if len(self._tries) > _MOST_TRIED:  # of files that are long gone
            self._tries.clear()
        self._tries[image.name] += 1
        if self._tries[image.name] >= _TRIES:
            self._settle(image, error)
        return False

    def _is_server_well(self) -> bool:
        with suppress(StrokeClientError), self._signals.interruptible():
            return self._client.check_health(timeout=_HEALTH_SECONDS) is HealthStatus.SERVING
        return False

    def _grow_pause(self, trouble: str) -> float:
        """Says what is in the way, once, and returns how long to wait for it, in seconds."""
        if not self._trouble:
            self._trouble, self._pause = trouble, _FIRST_PAUSE
            self._log.say("", trouble)
        else:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return self._pause

    def _recover(self, text: str) -> None:
        self._trouble = ""
        self._log.say("", text)

    def _summary(self) -> str:
        answered = self._labels.total()
        labels = ", ".join(f"{label} {count}" for label, count in sorted(self._labels.items()))
        parts = [f"{answered} answered" + (f" ({labels})" if labels else ""), f"{self._failed} failed"]
        if self._arrivals.waiting:
            parts.append(f"{self._arrivals.waiting} left for the next run")
        if self._arrivals.left_out.files:
            parts.append(self._arrivals.left_out.describe())
        count = answered + self._failed
        duration = format_duration(time.monotonic() - self._started)
        return f"{count} image{'' if count == 1 else 's'} in {duration}: {', '.join(parts)}"


def _open_journal(csv: str | None, output: str | None, excel: str | None) -> ResultWriter | None:
    if csv == "-":
        return StreamWriter(open_output(), choose_table(excel))
    if csv:
        return ResultFile(csv, choose_table(excel, csv))
    return ResultFile(output, JsonLinesFormat()) if output else None
