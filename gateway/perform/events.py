"""What a worklist tells of itself (PS3.18, 11.10 and 8.10): new tasks, and that somebody wants one canceled.

Requests to cancel a task that is in progress reach its performer in this way alone (PS3.4, CC.2.4).
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from gateway.deliver.exchange import CONNECT_SECONDS
from gateway.perform.claim import Claims
from gateway.perform.datasets import read_codes, read_json, read_text
from gateway.perform.statements import UNSPECIFIED
from gateway.perform.web import DicomWeb, WebError, find_origin, make_status_error
from gateway.perform.workitem import UID
from gateway.queue.folder import make_key, show
from gateway.results.identity import to_ascii

logger = logging.getLogger(__name__)

ALL_TASKS = "1.2.840.10008.5.1.4.34.5"
"""The well-known UID of a subscription to the whole worklist."""

STATE_REPORT, CANCEL_REQUESTED = "1", "2"
"""Event types (PS3.4, table CC.2.4-1)."""

MOST_EVENT_BYTES = 1 << 20
LOOK_SECONDS = 0.5
FIRST_PAUSE, MOST_PAUSE = 1.0, 60.0


class EventChannel:
    """Listens to a worklist.

    Args:
        web: the service that has it.
        title: own application entity, which is subscribed.
        claims: tasks that may be canceled.
        wake: called when there may be something new.
        hurry: called with the UID of a task that somebody wants canceled.
    """

    def __init__(
        self,
        web: DicomWeb,
        title: str,
        claims: Claims,
        wake: Callable[[], None],
        hurry: Callable[[str], None],
    ) -> None:
        self._web, self._title, self._claims, self._wake, self._hurry = web, title, claims, wake, hurry
        self._trouble = ""
        self._path = f"workitems/{ALL_TASKS}/subscribers/{quote(title, safe='')}"

    def run(self, stop: threading.Event) -> None:
        """Listens until told to stop; where it cannot, it tries again, less and less often."""
        pause = FIRST_PAUSE
        while not stop.is_set():
            try:
                self._listen(stop)
                pause = FIRST_PAUSE
            except Exception as error:  # of the library, at whatever a server may send
                why = str(error) if isinstance(error, WebError) else type(error).__name__
                if why != self._trouble:
                    logger.warning("the worklist is not listened to, so requests to cancel do not arrive: %s", why)
                self._trouble = why
                pause = min(pause * 2, MOST_PAUSE)
            stop.wait(pause)
        self._unsubscribe()

    def _subscribe(self) -> str:
        """Subscribes; returns the URL at which events are told."""
        headers = {"Accept": "application/dicom+json"}
        url = self._web.name(self._path) + "?deletionlock=false"
        with self._web.open("POST", url, headers, b"", CONNECT_SECONDS) as answer:
            if answer.status not in (200, 201):
                raise make_status_error(answer.status, "the worklist does not subscribe this title")
            told = answer.read_header("Content-Location") or answer.read_header("Location")
        return choose_channel(self._web.url, told, self._title)

    def _unsubscribe(self) -> None:
        """So that who wants a task canceled is told at once that nobody listens."""
        try:
            self._web.ask("DELETE", self._path)
        except WebError as error:
            logger.debug("not unsubscribed: %s", error)

    def _listen(self, stop: threading.Event) -> None:
        from websockets.exceptions import ConnectionClosed
        from websockets.sync.client import connect

        url = self._subscribe()
        headers = {}
        if self._web.token is not None:
            headers["Authorization"] = f"Bearer {self._web.token.read_text('ascii').strip()}"
        tls = ssl.create_default_context(cafile=self._web.ca) if url.startswith("wss:") else None
        with connect(
            url,
            ssl=tls,
            additional_headers=headers,
            proxy=None,
            open_timeout=CONNECT_SECONDS,
            close_timeout=1,
            max_size=MOST_EVENT_BYTES,
            compression=None,
        ) as channel:
            logger.info("the worklist is listened to")
            self._trouble = ""
            self._wake()  # what came before
            while not stop.is_set():
                try:
                    self.take(channel.recv(timeout=LOOK_SECONDS))
                except TimeoutError:
                    continue
                except ConnectionClosed:
                    raise WebError("the worklist has closed the channel", may_pass=True) from None

    def take(self, message: str | bytes) -> None:
        """Does what an event asks for; what is none is passed over."""
        try:
            event: Any = read_json(message if isinstance(message, bytes) else message.encode())
        except ValueError:
            return
        if not isinstance(event, dict):
            return
        kind, uid = read_text(event, "EventTypeID"), read_text(event, "AffectedSOPInstanceUID")
        if kind == STATE_REPORT:
            self._wake()
        if kind != CANCEL_REQUESTED or UID.fullmatch(uid) is None:
            return
        code = next(iter(read_codes(event, "ProcedureStepDiscontinuationReasonCodeSequence")), UNSPECIFIED)
        text = to_ascii(read_text(event, "ReasonForCancellation"), 1024) or "somebody has asked for it"
        if self._claims.ask_to_cancel(uid, code, text):
            logger.info("task %s: somebody wants it canceled", show(make_key(uid)))
            self._hurry(uid)


def choose_channel(service: str, told: str, title: str) -> str:
    """The URL of the channel: what the service has told, where it is of the same host and no less secret; without that
    the standard's.

    Raises:
        WebError: it is of another host.
    """
    scheme, host, _ = find_origin(service)
    ws = "wss" if scheme == "https" else "ws"
    if not told:
        return f"{ws}:{service.rstrip('/').partition(':')[2]}/ws/subscribers/{quote(title, safe='')}"
    try:
        parts = urlsplit(told)
    except ValueError:
        raise WebError("the worklist names a channel that is no URL", may_pass=False) from None
    if (parts.scheme, parts.hostname) != (ws, host) or "@" in parts.netloc:
        raise WebError(
            "the worklist names a channel at another host than its own, or a less secret one", may_pass=False
        )
    return told
