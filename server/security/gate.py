"""The gate in front of every call: who calls, whether they may, and how much. No transport here. For one event loop.

A certificate and a token say two things: from where, and who. So where both are asked for both must be good, and the
token names the caller, for roles and limits hang on it. With an allow-list alone the name is that of the certificate.

    UnauthenticatedError   TOKEN_MISSING, TOKEN_WRONG, TOKEN_EXPIRED, TOKEN_REVOKED, CERTIFICATE_MISSING
    ForbiddenError         CLIENT_NOT_ALLOWED, ROLE_MISSING
    OverloadedError        LIMIT_REQUESTS, LIMIT_IMAGES, LIMIT_BYTES (``server.security.usage``)

Everything is in memory: no call waits for a file. A thread looks each second whether a file has changed, and then what
is open is looked at again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from server.errors import ForbiddenError, StrokeError, UnauthenticatedError
from server.security.clients import find_allowed, parse_allowed
from server.security.files import WatchedFile
from server.security.tokens import NO_LIMITS, PREDICT, READ, WORKLIST, Entry, Limits, digest_token, parse_tokens
from server.security.usage import Account, Share, too_many_bytes

CHECK_SECONDS = 1.0
"""How often files and open streams are looked at."""

EXPIRY_WARN_SECONDS = 30 * 86_400
"""How long before its end a token is worth a word."""

BY_CERTIFICATE = frozenset({PREDICT, READ, WORKLIST})
"""What those may who have no token to say it."""

ASK = "Ask the operator of the server."


@dataclass(frozen=True, slots=True)
class Client:
    """Who calls, as far as the gate believes it."""

    name: str
    roles: frozenset[str]
    limits: Limits
    digest: str
    """Of its token; empty without one."""

    names: tuple[str, ...]
    """Of its certificate."""


class Permit:
    """A call that was let in.

    Attributes:
        client: who makes it.
        on_end: ends the call, if it is a stream, when its client is let in no longer.
    """

    def __init__(self, gate: Gate, client: Client, account: Account, images: int) -> None:
        self.client = client
        self.on_end: Callable[[StrokeError], None] | None = None
        self._gate, self._account, self._images = gate, account, images
        account.images += images

    def take(self, size: int) -> Share:
        """Counts the message of a single call.

        Raises:
            OverloadedError: reason LIMIT_BYTES.
        """
        if not self._account.has_room(self.client.limits, size):
            raise too_many_bytes(self.client.limits)
        return Share(self._account, self.client.limits, size)

    async def wait_for_turn(self) -> None:
        """Waits until a stream may take its next message: streams are slowed down, and not refused."""
        while not self._account.has_turn(self.client.limits):
            await self._account.wait(self.client.limits)

    async def take_in_turn(self, size: int) -> Share:
        """Counts a message of a stream, as soon as it is within the limit of bytes.

        Raises:
            UnauthenticatedError, ForbiddenError: the client is let in no longer.
        """
        self.check()
        while not self._account.has_room(self.client.limits, size):
            await self._account.wait(NO_LIMITS)
        return Share(self._account, self.client.limits, size)

    def check(self) -> None:
        """Looks again whether the client is still let in, by the files of now.

        Raises:
            UnauthenticatedError, ForbiddenError: it is not.
        """
        self.client = self._gate.renew(self.client)

    def leave(self) -> None:
        """The call has ended."""
        images, self._images = self._images, 0
        self._gate.forget(self)
        if images:
            self._account.give_back(images, 0)


class Gate:
    """Lets calls in.

    Attributes:
        files: those that say who may call.
    """

    def __init__(
        self,
        tokens: Path | None = None,
        allowed: Path | None = None,
        *,
        clock: Callable[[], float] = time.time,
        steady_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads the files.

        Args:
            tokens: see ``server.security.tokens``; None: no token is asked for.
            allowed: names of certificates that may call; None: all whose certificate the transport has accepted.
            clock: seconds since 1970.
            steady_clock: seconds, for limits.

        Raises:
            AccessFileError: a file cannot be used.
        """
        self._tokens = WatchedFile(tokens, parse_tokens, is_confidential=True) if tokens else None
        self._allowed = WatchedFile(allowed, parse_allowed) if allowed else None
        self.files: tuple[WatchedFile[Mapping[str, Entry]] | WatchedFile[frozenset[str]], ...] = tuple(
            file for file in (self._tokens, self._allowed) if file is not None
        )
        self._clock, self._steady_clock = clock, steady_clock
        self._accounts: dict[str, Account] = {}
        self._permits: set[Permit] = set()
        self._run_soon: Callable[[Callable[[], None]], object] = lambda work: work()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All tokens there are, for whoever watches when they expire."""
        return tuple(self._tokens.content.values()) if self._tokens else ()

    def needs_person(self) -> bool:
        """Whether a file lies there that cannot be used, so that what was read before holds on."""
        return not all(file.is_current for file in self.files)

    def identify(self, names: tuple[str, ...], token: str | None) -> Client:
        """Who calls.

        Args:
            names: of the client's verified certificate, with their kinds; empty without one.
            token: None without one.

        Raises:
            UnauthenticatedError, ForbiddenError: nobody who is let in.
        """
        name = self._check_allowed(names)
        if self._tokens is None:
            return Client(name, BY_CERTIFICATE, NO_LIMITS, "", names)
        if token is None:
            raise UnauthenticatedError("TOKEN_MISSING", f"This server wants a token with each call. {ASK}")
        # The digest is looked up, not the token. How long that takes tells at most something of digests, which nobody
        # can choose: no guess at a token gets better by it. That is why constant-time comparisons hash first, too.
        digest = digest_token(token)
        entry = self._tokens.content.get(digest)
        if entry is None:
            raise UnauthenticatedError("TOKEN_WRONG", f"The server does not know this token. {ASK}")
        return self._accept(entry, names)

    def admit(self, client: Client, role: str, images: int = 0) -> Permit:
        """Lets a call in, which ends with ``Permit.leave``.

        Args:
            client: who calls.
            role: what the call needs.
            images: that it brings, where that is known before its messages.

        Raises:
            ForbiddenError: reason ROLE_MISSING.
            OverloadedError: the client is at a limit.
        """
        check_role(client, role)
        account = self._accounts.get(client.name)
        if account is None:
            account = self._accounts[client.name] = Account(self._steady_clock)
        account.check(client.limits, images)
        account.charge(client.limits.requests)
        permit = Permit(self, client, account, images)
        self._permits.add(permit)
        return permit

    def renew(self, client: Client) -> Client:
        """The same client by the files of now. Raises as ``identify``, reason TOKEN_REVOKED among others."""
        self._check_allowed(client.names)
        if self._tokens is None:
            return client
        entry = self._tokens.content.get(client.digest)
        if entry is None:
            raise UnauthenticatedError("TOKEN_REVOKED", f"The token is good no longer. {ASK}")
        return self._accept(entry, client.names)

    def forget(self, permit: Permit) -> None:
        """See ``Permit.leave``."""
        self._permits.discard(permit)

    def watch(self, run_soon: Callable[[Callable[[], None]], object]) -> None:
        """Looks after files and open streams from now on, until ``run_soon`` raises RuntimeError.

        Args:
            run_soon: runs a function in the event loop; called from a thread.
        """
        self._run_soon = run_soon
        threading.Thread(target=self._watch, name="gate", daemon=True).start()

    def reload(self) -> None:
        """Reads the files again, changed or not. Never raises. Not for the event loop."""
        self._check_files(anyway=True)

    def recheck(self) -> None:
        """Ends the streams whose clients are let in no longer, and forgets clients that have gone."""
        for permit in list(self._permits):
            if permit.on_end is not None:
                try:
                    permit.check()
                    check_role(permit.client, PREDICT)
                except StrokeError as error:
                    permit.on_end(error)
        busy = {permit.client.name for permit in self._permits}
        for name in [name for name, account in self._accounts.items() if account.is_idle and name not in busy]:
            del self._accounts[name]

    def _watch(self) -> None:
        while True:
            time.sleep(CHECK_SECONDS)
            if not self._check_files():
                return

    def _check_files(self, *, anyway: bool = False) -> bool:
        """Returns False when the event loop has ended."""
        for file in self.files:
            file.check(anyway=anyway)
        try:
            self._run_soon(self.recheck)
        except RuntimeError:
            return False
        return True

    def _check_allowed(self, names: tuple[str, ...]) -> str:
        """The name of the certificate by which the client is let in; empty where it has none and needs none."""
        if self._allowed is None:
            return names[0] if names else ""
        if name := find_allowed(names, self._allowed.content):
            return name
        if not names:
            raise UnauthenticatedError("CERTIFICATE_MISSING", f"This server wants a client's certificate. {ASK}")
        raise ForbiddenError("CLIENT_NOT_ALLOWED", f"The client of this certificate is not on the server's list. {ASK}")

    def _accept(self, entry: Entry, names: tuple[str, ...]) -> Client:
        if entry.expires_at <= self._clock():
            raise UnauthenticatedError("TOKEN_EXPIRED", f"The token was good until {entry.expires} (UTC). {ASK}")
        return Client(entry.name, entry.roles, entry.limits, entry.digest, names)


def check_role(client: Client, role: str) -> None:
    """Whether a client may do what needs ``role``; those who judge may read.

    Raises:
        ForbiddenError: reason ROLE_MISSING.
    """
    if role not in client.roles and not (role == READ and PREDICT in client.roles):
        raise ForbiddenError("ROLE_MISSING", f"Your token is not for that: it lacks the role {role!r}. {ASK}")
