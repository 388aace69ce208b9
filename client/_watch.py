"""``--watch DIR``: a hot folder. What arrives is judged as soon as it is complete, until somebody ends it.

    Ctrl-C                exit status 130, as for every run that is cut short
    SIGTERM               exit status 0: how service managers end what has no end of its own
    folder or disk fails  exit status 1

Whatever ends it, even ``kill -9``: started again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from client._connection import Connection
from client._errors import (
    AuthenticationError,
    ImageReadError,
    ImageTooLargeError,
    InvalidImageError,
    InvalidRequestError,
    ModelNotFoundError,
    StrokeClientError,
)
from client._folder_watch import ArrivedImage, FolderWatch
from client._report import escape, failure_to_json, prediction_to_json
from client._stop import StopSignals
from client._types import HealthStatus, Prediction
from client._watch_folders import KnownResult, WatchFolders

if TYPE_CHECKING:
    from client._client import StrokeClient

POLL_SECONDS = 0.25
_POLL_SHARE = 0.05
"""Most of the time that looking at the folder may take; a folder that is slow to read is looked at less often."""

_ROUND = 64
"""Images that are judged before the folder is looked at again."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
"""Seconds until a server or folder that was away is tried again, doubling."""

_TRIES = 3
"""Times that an image is tried at which the server fails while it says that it is well; then the image is at fault."""

_AWAY = {"UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"}
"""Codes that say nothing about the image: it waits for as long as it takes."""


def watch(arguments: argparse.Namespace, connection: Connection) -> int:
    """Watches a folder until a signal comes, and returns the exit status.

    Args:
        arguments: ``watch`` (the folder), ``settle`` (seconds), ``move``, ``beside``, ``csv``, ``output``, ``model``,
            ``model_version`` and ``json`` of the command line. Without ``csv`` and ``output``, results go beside the
            images.
        connection: how the server is reached.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with StopSignals() as signals:
        try:
            with connection.open_client() as client:
                return HotFolder(arguments, client, signals).run()
        except _WatchError as error:
            print(escape(f"error: {error}"), file=sys.stderr)
            return 1


class _WatchError(Exception):
    """The watch cannot go on; the text says why."""


class HotFolder:
    """One watch over one folder."""

    def __init__(self, arguments: argparse.Namespace, client: StrokeClient, signals: StopSignals) -> None:
        self._name = arguments.watch
        self._client = client
        self._signals = signals
        self._options = {"model": arguments.model, "version": arguments.model_version}
        self._as_json = arguments.json
        self._folder = FolderWatch(arguments.watch, settle=arguments.settle)
        beside = arguments.beside or not (arguments.csv or arguments.output)
        self._folders = WatchFolders(arguments.watch, beside=beside, move=arguments.move)
        self._known: dict[str, KnownResult] = {}
        self._labels: Counter[str] = Counter()
        self._failed = 0
        self._tries: Counter[str] = Counter()
        self._pause = _FIRST_PAUSE
        self._trouble = ""  # what was said last to be in the way; empty while nothing is
        self._started = time.monotonic()

    def run(self) -> int:
        """Judges until a signal comes; returns the exit status."""
        self._take_up()
        try:
            while not self._signals.stopping:
                began = time.monotonic()
                names = self._poll()
                for name in self._folder.oddities:
                    self._say(name, "left alone: a link, a folder or a device, not a file")
                if names:
                    self._judge(names[:_ROUND])
                if len(names) <= _ROUND:
                    # A poll's own time is not known apart from the judging's; that only makes the pause longer.
                    self._signals.wait(max(POLL_SECONDS, (time.monotonic() - began) / _POLL_SHARE if not names else 0))
        except KeyboardInterrupt:
            pass
        finally:
            self._summarise()
        return self._signals.exit_status

    def _take_up(self) -> None:
        """Finds what earlier runs have judged."""
        try:
            self._folder.poll()
            self._folders.prepare()
            for known in self._folders.find_results():
                self._adopt(known)
        except OSError as error:
            raise _WatchError(f"{error.filename or self._name} cannot be used: {error.strerror}") from None
        self._say("", f"watching {self._name}: {self._folder.waiting} images wait, {len(self._known)} have results")

    def _adopt(self, known: KnownResult) -> None:
        self._known[known.name] = known
        self._folder.adopt_result(known.name, known.sha256, known.written_ns, keep=not self._folders.moves)

    def _poll(self) -> list[str]:
        try:
            names = self._folder.poll()
        except OSError as error:
            self._wait_out(f"the folder {self._name} cannot be read: {error.strerror}")
            return []
        if self._trouble.startswith("the folder"):
            self._recover(f"the folder {self._name} can be read again")
        return names

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
                        self._take_prediction(image, result)
                    elif isinstance(result.error, InvalidImageError):
                        self._take_failure(image, result.error)
                    else:
                        self._handle_trouble(result.error, image)
        except StrokeClientError as error:  # for all that were sent
            self._handle_trouble(error, sent[0] if sent else None)

    def _load(self, names: list[str], sent: deque[ArrivedImage]) -> Iterator[bytes]:
        for name in names:
            if self._signals.stopping:
                return
            image = self._folder.read(name)
            if image is None:
                continue
            if image.fault:
                kind = ImageTooLargeError if image.is_too_large else ImageReadError
                reason = "IMAGE_TOO_LARGE" if image.is_too_large else "IMAGE_UNREADABLE"
                self._take_failure(image, kind(f"the image cannot be read: {image.fault}", reason))
            elif image.judged:
                self._finish(image)
            else:
                sent.append(image)
                yield image.data

    def _take_prediction(self, image: ArrivedImage, prediction: Prediction) -> None:
        if self._trouble:
            self._recover("the server answers again")
        self._labels[prediction.label] += 1
        path = os.path.join(self._name, image.name)
        self._store(image, prediction_to_json(path, prediction))
        if not self._as_json:
            self._print(escape(f"{path}: {prediction}"), sys.stdout)
            for warning in prediction.warnings:
                self._say(image.name, f"warning: {warning.message}")

    def _take_failure(self, image: ArrivedImage, error: StrokeClientError) -> None:
        self._failed += 1
        path = os.path.join(self._name, image.name)
        self._store(image, {**failure_to_json(path, error), "image_sha256": image.sha256})
        self._say(image.name, f"error: {error}")

    def _store(self, image: ArrivedImage, record: dict[str, Any]) -> None:
        record["time"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        try:
            self._folders.store(image, record)
        except FileNotFoundError:
            if not os.path.isdir(self._name):
                raise _WatchError(f"the folder {self._name} is gone") from None
            self._say(image.name, "was taken away before it could be moved")
        except OSError as error:
            raise _WatchError(f"the result cannot be written: {error.strerror} ({error.filename})") from None
        self._mark(image)
        if self._as_json:
            print(json.dumps(record), flush=True)
