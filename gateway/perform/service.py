"""The life of a performer: go on with what was claimed, look for tasks, claim as many as can be performed, stop."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from client import HealthStatus, StrokeClient
from gateway.judge.judge import Maker, describe
from gateway.perform.claim import Claims
from gateway.perform.events import EventChannel
from gateway.perform.retrieve import Bounds
from gateway.perform.settings import PerformConfig
from gateway.perform.task import LaterError, Means, Task
from gateway.perform.web import DicomWeb, WebError, find_origin
from gateway.perform.workitem import State, Workitem
from gateway.perform.worklist import Worklist
from gateway.queue.endings import Endings
from gateway.queue.folder import QueueFolder, show
from server.process.console import say

logger = logging.getLogger(__name__)

MEGABYTE = 1_000_000
HOUR = 3600.0
LOOK_SECONDS = 0.1
"""Between two looks of a worker for what is due."""

LEAST_SECONDS = 0.2
"""Between two searches, whatever the worklist tells."""

FIRST_PAUSE, MOST_PAUSE = 2.0, 60.0
EXPIRE_SECONDS = 60.0
STOP_SECONDS = 30.0
"""For what is being performed when the process is told to stop; it goes on at the next start."""

LAST_SECONDS = 2.0
"""For a look for tasks, and to end a subscription: a worklist that hangs holds no stop up."""


class Performer:
    """One performer.

    Args:
        config: its settings.
        client: asks the server.
        make: makes results.

    Raises:
        QueueError: the queue cannot be used.
    """

    def __init__(self, config: PerformConfig, client: StrokeClient, make: Maker) -> None:
        self._config, self._client = config, client
        self._folder = QueueFolder(config.queue)
        self._claims = Claims(self._folder)
        self._endings = Endings(self._folder, config.keep_days, 0)
        web = DicomWeb(config.worklist, config.web_ca, config.web_token)
        self._worklist = Worklist(web, config.title, title_in_path=config.title_in_path)
        self._means = Means(
            folder=self._folder,
            claims=self._claims,
            endings=self._endings,
            worklist=self._worklist,
            archive=DicomWeb(config.archive_url, config.web_ca, config.web_token),
            origins=frozenset(map(find_origin, (config.worklist, *config.retrieve_from))),
            client=client,
            make=make,
            station=config.station_code,
            bounds=Bounds(config.most_images, config.instance_mb * MEGABYTE, config.study_mb * MEGABYTE),
            least_free_bytes=config.least_free_mb * MEGABYTE,
            give_up_seconds=config.give_up_hours * HOUR,
        )
        self._stop, self._wake = threading.Event(), threading.Event()
        self._events = (
            EventChannel(web, config.title, self._claims, self._wake.set, self._hurry) if config.events else None
        )
        self._changing = threading.Lock()
        self._tasks: dict[str, Task] = {}
        self._busy: set[str] = set()
        self._pauses: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._left_alone: dict[str, float] = {}
        self._trouble = ""
        self._has_failed = False
        self.ended: Counter[State] = Counter()
        """Tasks by their final states."""

    def stop(self) -> None:
        """Ends ``run``; what is being performed gets a little time."""
        self._stop.set()
        self._wake.set()

    def run(self, *, handle_signals: bool = False) -> int:
        """Works until ``stop``, or with --once until there is nothing to do. Returns the exit code.

        Args:
            handle_signals: SIGTERM and SIGINT stop it; only in the main thread.
        """
        for number in (signal.SIGTERM, signal.SIGINT) if handle_signals else ():
            signal.signal(number, lambda *_: self.stop())
        for claim in self._claims.list():
            if claim.worklist == self._config.worklist:
                self._tasks[claim.workitem] = Task(self._means, claim, self._stop)
            else:
                logger.warning("task %s: it is of another worklist than --worklist, and waits", show(claim.key))
        say(
            f"gateway perform: {self._config.title} performs tasks of {self._config.worklist}; results go to "
            f"{self._config.archive_url}; {len(self._tasks)} claimed earlier"
        )
        workers = [self._start(self._work) for _ in range(self._config.tasks)]
        others = [self._start(self._look_until_stopped)]
        if self._events is not None:
            others.append(self._start(partial(self._events.run, self._stop)))
        self._stop.wait()
        end = time.monotonic() + STOP_SECONDS
        for worker in workers:
            worker.join(max(0.0, end - time.monotonic()))
        for other in others:
            other.join(LAST_SECONDS)
        left = len(self._tasks)
        say(
            f"gateway perform: {self.ended[State.COMPLETED]} completed, {self.ended[State.CANCELED]} canceled, "
            f"{left} not done yet"
        )
        self._folder.close()
        return 1 if self._config.once and (left or self._has_failed) else 0

    @staticmethod
    def _start(run: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _look_until_stopped(self) -> None:
        expire_at = 0.0
        while not self._stop.is_set():
            self._wake.clear()
            was_idle = self._is_idle()  # before the look, as what ends after it may leave room for more
            if not self._look() and was_idle and self._config.once:
                self.stop()
            if time.monotonic() >= expire_at:
                expire_at = time.monotonic() + EXPIRE_SECONDS
                with suppress(OSError):
                    self._endings.expire()
            self._wake.wait(self._config.poll_seconds)
            self._stop.wait(LEAST_SECONDS)

    def _is_idle(self) -> bool:
        with self._changing:
            return not self._tasks.keys() - self._due.keys()

    def _look(self) -> int:
        """Looks for tasks, and begins with as many as there is room for. Returns how many."""
        try:
            room = self._config.tasks - len(self._tasks)
            found = self._worklist.search(list_keys(self._config)) if room > 0 else []
            now = datetime.now(UTC)
            wanted = [one for one in found if is_wanted(one, self._config, now) and self._is_free(one.uid)]
            if wanted and self._client.check_health() != HealthStatus.SERVING:
                raise WebError("the server that judges is not ready", may_pass=True)
            begun = 0
            for workitem in wanted[: max(0, room)]:
                claim = self._claims.begin(self._config.worklist, workitem.uid)
                with self._changing:
                    self._tasks[workitem.uid] = Task(self._means, claim, self._stop)
                begun += 1
        except Exception as error:  # also a full disk, or an answer that nobody has thought of: it looks again
            self._note_trouble(str(error) if isinstance(error, WebError) else describe(error))
            logger.debug("why", exc_info=True)
            self._has_failed = True
            return 0
        self._note_trouble("")
        return begun

    def _is_free(self, uid: str) -> bool:
        """Whether a task is not in hand, and was not found to be somebody else's just now."""
        return uid not in self._tasks and self._left_alone.get(uid, 0.0) <= time.monotonic()

    def _note_trouble(self, why: str) -> None:
        """Logs it once, not at each look."""
        if why and why != self._trouble:
            logger.warning("no task is claimed: %s", why)
        elif self._trouble and not why:
            logger.info("tasks are claimed again")
        self._trouble = why

    def _hurry(self, uid: str) -> None:
        """Has a task that waits go on at once."""
        with self._changing:
            self._due.pop(uid, None)

    def _work(self) -> None:
        while not self._stop.is_set():
            task = self._take()
            if task is None:
                self._stop.wait(LOOK_SECONDS)
                continue
            self._perform(task)
            with self._changing:
                self._busy.discard(task.claim.workitem)
            self._wake.set()

    def _take(self) -> Task | None:
        """The next task that is due."""
        with self._changing:
            now = time.monotonic()
            for uid, task in self._tasks.items():
                if uid not in self._busy and self._due.get(uid, 0.0) <= now:
                    self._busy.add(uid)
                    return task
        return None

    def _perform(self, task: Task) -> None:
        uid = task.claim.workitem
        try:
            state = task.perform()
        except LaterError as why:
            self._postpone(task, str(why))
        except Exception as error:  # a full disk, an answer that nobody has thought of: what is on disk goes on later
            self._postpone(task, describe(error))
            logger.debug("why", exc_info=True)
        else:
            with self._changing:
                for known in (self._tasks, self._due, self._pauses):
                    known.pop(uid, None)
                if state is None:
                    now = time.monotonic()
                    self._left_alone = {one: until for one, until in self._left_alone.items() if until > now}
                    self._left_alone[uid] = now + MOST_PAUSE
                else:
                    self.ended[state] += 1

    def _postpone(self, task: Task, why: str) -> None:
        uid = task.claim.workitem
        if uid not in self._pauses:
            logger.warning("task %s: it waits: %s", show(task.claim.key), why)
        with self._changing:
            pause = math.inf if self._config.once else min(self._pauses.get(uid, FIRST_PAUSE / 2) * 2, MOST_PAUSE)
            self._pauses[uid], self._due[uid] = pause, time.monotonic() + pause


def list_keys(config: PerformConfig) -> dict[str, str]:
    """What the worklist is asked for; of several codes none, since it can match but one."""
    keys = {"InputReadinessState": "READY"}
    if len(config.codes) == 1:
        keys["ScheduledWorkitemCodeSequence.CodeValue"] = config.codes[0].value
    if config.label:
        keys["WorklistLabel"] = config.label
    if not config.takes_unassigned:
        keys["ScheduledStationNameCodeSequence.CodeValue"] = config.station_code.value
    return keys


def is_wanted(workitem: Workitem, config: PerformConfig, now: datetime) -> bool:
    """Whether a task is for this performer; what a server has found may be more than it was asked for."""
    wanted = {(code.value, code.scheme_designator) for code in config.codes}
    codes = {(code.value, code.scheme_designator) for code in workitem.codes}
    stations = {(code.value, code.scheme_designator) for code in workitem.stations}
    own = (config.station_code.value, config.station_code.scheme_designator)
    return (
        workitem.state == State.SCHEDULED
        and workitem.is_ready
        and workitem.is_due(now)
        and (not wanted or bool(codes & wanted))
        and (own in stations or (not stations and config.takes_unassigned))
        and config.label in ("", workitem.label)
    )
