"""Messages, which are taken into memory within a bound, and inflated within one.

Transports bound neither how many bytes of messages are there nor for how long: gRPC takes as many as are sent for a
call that is being read.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from server.errors import BudgetExceededError, OverloadedError, RequestError, malformed_request, short_of_memory
from server.machine.memory import LARGE_BYTES, count_small_blocks

if TYPE_CHECKING:  # loaded by those who have a gate
    from server.security.gate import Permit
    from server.security.usage import Share

EXPECTED_BYTES = 256 * 1024
"""What a connection's first message is taken to need: more than a usual slice."""

SPARING_SECONDS = 1.0
"""How long room for a large message is kept before it has arrived."""

SMALL_SECONDS = 0.25
"""How long room for a usual one is."""

UNFOLD_SECONDS = 30.0
"""How long a compressed message of a stream waits for room for what it may unfold to."""

KNOWN_CONNECTIONS = 1024
"""Connections of which the usual size of a message is remembered."""

WATCH_SECONDS = (0.03, 0.01)
"""How often memory is looked at while messages arrive, and while many bytes of them are there: a network of 10 Gbit/s
brings 12 MB in 0.01 s."""

TOO_LARGE = "MESSAGE_TOO_LARGE"


class Held:
    """A message in memory.

    Attributes:
        data: its bytes, until they are somebody else's.
        size: how many there were; 0 once it is released.
        share: what of its client's limits it takes; None where there is no gate.
    """

    def __init__(self, data: bytes, on_release: Callable[[int], None]) -> None:
        self.data = data
        self.size = len(data)
        self.share: Share | None = None
        self._on_release = on_release

    def release(self) -> None:
        """Lets go of the message. May be called twice."""
        self.data = b""
        size, self.size = self.size, 0
        if size:
            self._on_release(size)
        if self.share is not None:
            self.share.release()


class Sender(Protocol):
    """A call from which messages come."""

    peer: str
    """Its connection."""

    async def read(self, note_size: Callable[[int], None]) -> bytes | None:
        """The next message; None at their end.

        Args:
            note_size: is told how many bytes have arrived so far, by a sender that puts them together itself.
        """
        ...


@dataclass(eq=False)
class Arrival:
    """A message that is on its way into memory."""

    peer: str
    task: asyncio.Task[object]
    """What waits for it."""

    is_refused: bool = False
    size: int = 0
    """Bytes that have arrived, where the sender tells."""

    def note_size(self, size: int) -> None:
        """Learns how much has arrived."""
        self.size = size


class Inbox:
    """Takes messages into memory, not more at a time than a bound. For one event loop.

    How large a message is shows only once all of it is there. So each connection's next message is taken to be about as
    large as those before, and waits until there is room for that; and what is on its way is watched as a whole: should
    it become too much, those who send most are refused until it no longer is.

    Attributes:
        last_arrival: when the last message was complete, in seconds of ``time.monotonic``.
    """

    def __init__(self, total_bytes: int, count_arriving: Callable[[], int | None] = count_small_blocks) -> None:
        """Holds nothing yet.

        Args:
            total_bytes: bound on the messages that are held, and again on those that arrive.
            count_arriving: bytes of memory that grow with what arrives; None: it cannot be counted here.
        """
        self._total = self._free = total_bytes
        self._count_arriving = count_arriving
        self._held = 0
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._waiting: OrderedDict[str, deque[tuple[int, asyncio.Future[None]]]] = OrderedDict()
        self._arrivals: dict[Arrival, None] = {}  # in the order in which they began
        self._watcher: asyncio.Task[None] | None = None
        self.last_arrival = 0.0

    @asynccontextmanager
    async def take(
        self, sender: Sender, seconds: float | None, permit: Permit | None = None, *, tiny: int = 0
    ) -> AsyncIterator[Held]:
        """Waits for room and for a call's next message, and holds the room until the end of the block.

        Args:
            sender: the call.
            seconds: how long the message may take; None: for ever.
            permit: counts the message for the client, where there is a gate.
            tiny: bytes up to which it neither waits for room nor takes any, as that of a health check.

        Raises:
            OverloadedError: reason MEMORY_SHORT, or LIMIT_BYTES of the permit.
            BudgetExceededError: reason MESSAGE_LATE.
            RequestError: reason REQUEST_MALFORMED, when the caller ends without a message.
        """
        held = await self.receive(sender, seconds, tiny=tiny)
        if held is None:
            raise RequestError("REQUEST_MALFORMED", "The call ended without a message: send exactly one.")
        try:
            if permit is not None:
                held.share = permit.take(held.size)
            yield held
        finally:
            held.release()

    async def receive(self, sender: Sender, seconds: float | None, *, tiny: int = 0) -> Held | None:
        """The next message, to be released by the caller; None at the end of the messages. Raises as ``take``."""
        peer = sender.peer
        room = 0 if tiny else min(self._sizes.get(peer, EXPECTED_BYTES), self._total)

        def make_do_without() -> None:
            nonlocal room
            spare, room = room, 0
            self._return(spare)

        try:
            async with asyncio.timeout(seconds):
                if room:
                    await self._wait_for_room(peer, room)
                size, kept = 0, room
                # Room that is kept for somebody who sends nothing is room that others wait for.
                patience = SPARING_SECONDS if room > EXPECTED_BYTES else SMALL_SECONDS
                timer = asyncio.get_running_loop().call_later(patience, make_do_without)
                try:
                    async with self._arriving(peer) as arrival:
                        data = await sender.read(arrival.note_size)
                        if data is None:
                            return None
                        if len(data) <= tiny:
                            return Held(data, take_no_room)
                        if not room and len(data) <= kept:
                            # It is late, as everybody is on a busy machine: no reason to refuse it.
                            arrival.note_size(len(data))
                            await self._wait_for_room(peer, len(data), SPARING_SECONDS)
                            room = len(data)
                    if len(data) - room > self._free:
                        raise short_of_memory()
                    size = len(data)
                finally:
                    timer.cancel()
                    self._return(room - size)
        except TimeoutError:
            raise BudgetExceededError(
                "MESSAGE_LATE", f"The call's message did not arrive within {seconds:.3g} s."
            ) from None
        except OverloadedError:
            self._learn_size(peer, self._total // 8)  # it waits the next time
            raise
        self._learn_size(peer, size)
        self._held += size
        self.last_arrival = time.monotonic()
        return Held(data, self._release)

    async def unfold(self, held: Held, peer: str, most_bytes: int) -> bytes:
        """Returns what a message of a stream holds, inflated where it is compressed; then it takes the room for that.

        Args:
            held: the message, whose bytes are taken out of it.
            peer: its connection.
            most_bytes: most that may come out.

        Raises:
            RequestError: as ``inflate``.
            OverloadedError: reason MEMORY_SHORT.
        """
        data, held.data = held.data, b""
        if not is_compressed(data):
            return data
        most = min(most_bytes, self._total)
        # gzip ends with the size of what went in (RFC 1952); one that is wrong is soon found out.
        stated = int.from_bytes(data[-4:], "little") if data[:1] == b"\x1f" else 0
        room = min(max(stated, EXPECTED_BYTES), most)
        while True:
            await self._wait_for_room(peer, room, UNFOLD_SECONDS)
            spare = room
            try:
                plain = inflate(data, room)
                spare = room - len(plain)
            except RequestError as error:
                if error.reason != TOO_LARGE or room == most:
                    raise
                room = most
                continue
            finally:
                self._return(spare)
            held.size += len(plain)
            self._held += len(plain)
            return plain

    def _learn_size(self, peer: str, size: int) -> None:
        self._sizes[peer] = max(size, self._sizes.pop(peer, 0) * 3 // 4)
        if len(self._sizes) > KNOWN_CONNECTIONS:
            self._sizes.popitem(last=False)

    @asynccontextmanager
    async def _arriving(self, peer: str) -> AsyncIterator[Arrival]:
        """Something of a connection is on its way as long as the block lasts; raises OverloadedError when there is too
        much of that."""
        task = asyncio.current_task()
        assert task is not None
        arrival = Arrival(peer, task)
        self._arrivals[arrival] = None
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(self._count_arriving()))
        try:
            yield arrival
        except asyncio.CancelledError:
            if not arrival.is_refused:
                raise
            task.uncancel()
            raise short_of_memory() from None
        finally:
            del self._arrivals[arrival]

    async def _watch(self, usual: int | None) -> None:
        """Refuses arrivals as long as there is too much of them; ends when there are none.

        Args:
            usual: what is counted while nothing arrives.
        """
        arrived = 0
        while self._arrivals and usual is not None:
            await asyncio.sleep(WATCH_SECONDS[arrived > self._total // 8])
            # What is put together here in large blocks is not among the small ones.
            known = sum(arrival.size for arrival in self._arrivals if arrival.size >= LARGE_BYTES)
            now = (self._count_arriving() or 0) + known - self._held
            usual = min(usual, now)
            arrived = now - usual
            # The rest comes until it is looked at again. Until those who were refused are gone, nobody else is.
            if arrived > self._total * 3 // 4 and not any(arrival.is_refused for arrival in self._arrivals):
                self._refuse_some()
        self._watcher = None

    def _refuse_some(self) -> None:
        """Half of them, beginning with the connections that have most, and of a connection with its last; at the end
        those that have always sent little. What has begun first has most of its bytes here already."""
        arrivals = [arrival for arrival in reversed(self._arrivals) if not arrival.is_refused]
        each = Counter(arrival.peer for arrival in arrivals)
        large = [
            arrival
            for arrival in arrivals
            if each[arrival.peer] > 1 or self._sizes.get(arrival.peer, self._total) > EXPECTED_BYTES
        ]
        suspects = large or arrivals
        suspects.sort(key=lambda arrival: each[arrival.peer], reverse=True)
        for arrival in suspects[: (len(suspects) + 1) // 2]:
            arrival.is_refused = True
            arrival.task.cancel()

    async def _wait_for_room(self, peer: str, size: int, seconds: float | None = None) -> None:
        """Takes room, in turn; raises OverloadedError when there is none for so long (None: waits on)."""
        if self._free >= size and not self._waiting:
            self._free -= size
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer, deque()).append((size, granted))
        self._grant()
        try:
            async with asyncio.timeout(seconds):
                await granted
        except (asyncio.CancelledError, TimeoutError) as error:
            if granted.done() and not granted.cancelled():
                self._return(size)
            else:
                self._forget(peer, granted)
            if isinstance(error, TimeoutError):
                raise short_of_memory() from None
            raise

    def _forget(self, peer: str, granted: asyncio.Future[None]) -> None:
        line = self._waiting.get(peer, deque())
        for entry in line:
            if entry[1] is granted:
                line.remove(entry)
                break
        if not line:
            self._waiting.pop(peer, None)

    def _release(self, size: int) -> None:
        self._held -= size
        self._return(size)

    def _return(self, size: int) -> None:
        self._free += size
        if self._waiting:
            self._grant()

    def _grant(self) -> None:
        """Gives room round robin to the connections: small messages do not wait behind large ones."""
        found = True
        while found:
            found = False
            for peer in list(self._waiting):
                size, granted = self._waiting[peer][0]
                if size <= self._free or granted.cancelled():
                    found = True
                    if not granted.cancelled():
                        self._free -= size
                        granted.set_result(None)
                    self._waiting[peer].popleft()
                    if self._waiting[peer]:
                        self._waiting.move_to_end(peer)
                    else:
                        del self._waiting[peer]


def take_no_room(size: int) -> None:
    """For those who have none to give back."""


def is_compressed(data: bytes) -> bool:
    """Whether a message is compressed by gzip or deflate, the compressions that gRPC has.

    No message of this API begins like one of these: 0x1f is no field, 0x78 a field of a number that it does not use.
    """
    is_deflate = data[:1] == b"\x78" and len(data) > 1 and int.from_bytes(data[:2], "big") % 31 == 0
    return data[:2] == b"\x1f\x8b" or is_deflate


def inflate(data: bytes, most_bytes: int) -> bytes:
    """Returns a message as it was before its sender compressed it.

    Raises:
        RequestError: reasons REQUEST_MALFORMED, and MESSAGE_TOO_LARGE when more than ``most_bytes`` come out.
    """
    if not is_compressed(data):
        return data
    stream = zlib.decompressobj(wbits=47)  # either of the two
    try:
        plain = stream.decompress(data, most_bytes + 1)
    except zlib.error:
        raise malformed_request() from None
    if len(plain) > most_bytes:
        raise RequestError(
            TOO_LARGE,
            f"Without compression the message has more than {most_bytes:,} bytes: send less at a time.",
        )
    if not stream.eof:
        raise malformed_request()
    return plain
