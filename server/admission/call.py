"""A call, whatever its transport: who makes it, what it is called, and what has come of it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from server.admission.ids import new_id, printable_id
from server.admission.inbox import Held, Inbox
from server.core.detector import Detection
from server.core.outcomes import Caller
from server.core.study.answer import StudyAnswer

if TYPE_CHECKING:  # loaded by those who have a gate
    from server.security.gate import Gate, Permit

MESSAGE_SECONDS = 30.0
"""A call whose message has not come by then is ended."""

PREDICT, READ, ADMIN, WORKLIST = "predict", "read", "admin", "worklist"
"""Roles that methods need: to judge images, to read what models say of themselves, to change what is served, or to see
which studies there are, by their patients' identifiers."""

KNOWN, ANYBODY = "known", ""
"""What health checks need instead: to be let in at all, or nothing."""


@dataclass(frozen=True)
class Method:
    """What can be called."""

    name: str
    """As callers name it, such as ``Predict``; also in logs and metrics."""

    role: str = PREDICT
    """What its callers need where there is a gate."""

    images: int = 0
    """Images that each message holds, where that is known before it has come. With 1, a call's end is its image's."""

    @property
    def is_check(self) -> bool:
        """Whether it is a health check: those are neither logged nor counted, since anybody may make them."""
        return self.role in (KNOWN, ANYBODY)


class Call(ABC):
    """One call, from its arrival to its end.

    Attributes:
        method: what is called.
        peer: its connection.
        started: its arrival, in seconds of ``time.monotonic``.
        caller: who calls.
        permit: what the gate says of it; None where there is no gate.
        request_id: printable; what the caller calls it, otherwise one that was made here.
        detection: what came of its image, where it is a call of one image that was judged.
        image_sha256: of that image; empty where it was not looked at.
        study: what came of its slices, where it is a call of one study that was judged.
        is_wanted: False once the caller has gone: then no work is started for it.
    """

    def __init__(self, peer: str, method: Method, inbox: Inbox) -> None:
        self.method = method
        self.peer = peer
        self.caller = Caller(peer)
        self.permit: Permit | None = None
        self.started = time.monotonic()
        self.request_id = ""
        self.detection: Detection | None = None
        self.image_sha256 = ""
        self.study: StudyAnswer | None = None
        self.is_wanted = True
        self._inbox = inbox

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Of the caller's verified certificate: see ``server.security.identity``."""

    @property
    @abstractmethod
    def token(self) -> str | None:
        """See ``server.security.clients.read_token``."""

    @property
    @abstractmethod
    def seconds_left(self) -> float:
        """Until the caller's deadline; infinite without one. To be asked once, early."""

    @abstractmethod
    def find_trace(self) -> str:
        """See ``trace``."""

    @abstractmethod
    async def read(self, note_size: Callable[[int], None]) -> bytes | None:
        """See ``server.admission.inbox.Sender``."""

    @cached_property
    def trace(self) -> str:
        """The ``traceparent`` (W3C Trace Context) that it belongs to; empty without one."""
        return self.find_trace()

    @property
    def source(self) -> str:
        """Whom it counts for where callers share: the client, otherwise the connection."""
        return f"client {self.caller.name}" if self.caller.name else self.peer

    def enter(self, gate: Gate) -> None:
        """Passes the gate, before a byte of its message is read. It ends with ``permit.leave``.

        Raises:
            UnauthenticatedError, ForbiddenError, OverloadedError: see ``server.security.gate``.
        """
        client = gate.identify(self.names, self.token)
        self.caller = Caller(self.peer, client.name)
        if self.method.role != KNOWN:
            self.permit = gate.admit(client, self.method.role, self.method.images)

    def take_message(self, seconds: float = MESSAGE_SECONDS, *, tiny: int = 0) -> AbstractAsyncContextManager[Held]:
        """The only message of a call, held until the end of the block. See ``Inbox.take``; raises as that and
        ``Permit.take``."""
        return self._inbox.take(self, seconds, self.permit, tiny=tiny)

    async def receive(self) -> Held | None:
        """The next message of a stream, to be released; None at its end. It waits for its client's turn, where the
        client has limits. Raises as ``Inbox.take`` and ``Permit.take_in_turn``."""
        if self.permit is None:
            return await self._inbox.receive(self, None)
        await self.permit.wait_for_turn()
        held = await self._inbox.receive(self, None)
        if held is not None:
            try:
                held.share = await self.permit.take_in_turn(held.size)
            except BaseException:
                held.release()
                raise
        return held

    async def unfold(self, held: Held, most_bytes: int) -> bytes:
        """What a message of a stream holds. See ``Inbox.unfold``, and raises as that."""
        return await self._inbox.unfold(held, self.peer, most_bytes)

    def note_digest(self, image_sha256: str) -> None:
        """Learns the SHA-256 of its image, whatever comes of it."""
        self.image_sha256 = image_sha256

    def name_itself(self, request_id: str) -> str:
        """Takes the caller's id, or makes one, and returns it: answer and log have the same. The first one stays."""
        self.request_id = self.request_id or printable_id(request_id) or new_id()
        return self.request_id
