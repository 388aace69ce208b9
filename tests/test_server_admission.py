"""Memory for messages is shared out: nobody gets all of it, and it does not run out."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from server.admission.inbox import EXPECTED_BYTES, Held, Inbox
from server.errors import BudgetExceededError, OverloadedError, RequestError

MIB = 1024 * 1024
TIMEOUT = 20


def run(steps: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(steps, TIMEOUT))


async def poll(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


class FakeCall:
    """A call of one connection, whose messages arrive when the test says so."""

    def __init__(self, peer: str, *messages: bytes) -> None:
        self.peer = peer
        self.messages = deque(messages)
        self.arrived = asyncio.Event()
        self.is_read = False
        if messages:
            self.arrived.set()

    async def read(self, note_size: Callable[[int], None]) -> bytes | None:
        self.is_read = True
        await self.arrived.wait()
        return self.messages.popleft() if self.messages else None


def make_inbox(total: int, arriving: Callable[[], int | None] = lambda: 0) -> Inbox:
    return Inbox(total, arriving)


def test_messages_are_held_until_they_are_released() -> None:
    """Then there is room again; releasing twice gives no more."""

    async def steps() -> None:
        inbox = make_inbox(MIB)
        context = FakeCall("a", bytes(MIB), b"second")
        held = await inbox.receive(context, TIMEOUT)
        assert isinstance(held, Held)
        waiting = asyncio.create_task(inbox.receive(context, TIMEOUT))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        held.release()
        held.release()
        second = await waiting
        assert second is not None
        assert second.data == b"second"
        second.release()
        assert await inbox.receive(context, TIMEOUT) is None

    run(steps())


def test_small_message_does_not_wait_behind_large_ones() -> None:
    """A connection that has sent large ones waits for room for another; one that has not goes first."""

    async def steps() -> None:
        inbox = make_inbox(8 * MIB)
        large = FakeCall("large", bytes(5 * MIB), bytes(5 * MIB))
        first = await inbox.receive(large, TIMEOUT)
        assert first is not None
        waiting = asyncio.create_task(inbox.receive(large, TIMEOUT))
        await asyncio.sleep(0)
        small = await inbox.receive(FakeCall("small", b"x"), TIMEOUT)
        assert small is not None
        assert not waiting.done()
        first.release()
        small.release()
        assert await waiting is not None

    run(steps())


def test_room_is_not_kept_for_those_who_send_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that has sent a large message and pauses does not hold up others; its next one may be refused."""
    monkeypatch.setattr("server.admission.inbox.SPARING_SECONDS", 0.05)
    monkeypatch.setattr("server.admission.inbox.SMALL_SECONDS", 0.05)

    async def steps() -> None:
        inbox = make_inbox(8 * MIB)
        pausing = FakeCall("pausing", bytes(7 * MIB))
        first = await inbox.receive(pausing, TIMEOUT)
        assert first is not None
        first.release()
        pausing.arrived.clear()
        waiting = asyncio.create_task(inbox.receive(pausing, TIMEOUT))
        await asyncio.sleep(0)
        other = FakeCall("other", bytes(7 * MIB))
        inbox._learn_size("other", 7 * MIB)
        held = await inbox.receive(other, TIMEOUT)
        assert held is not None
        pausing.messages.append(bytes(7 * MIB))
        pausing.arrived.set()
        with pytest.raises(OverloadedError):
            await waiting
        held.release()
        assert inbox._free == 8 * MIB

    run(steps())


def test_calls_without_a_message_keep_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: others wait for a moment, and a health check not at all."""
    monkeypatch.setattr("server.admission.inbox.SMALL_SECONDS", 0.05)

    async def steps() -> None:
        inbox = make_inbox(4 * EXPECTED_BYTES)
        silent = [asyncio.create_task(inbox.receive(FakeCall("silent"), None)) for _ in range(4)]
        await asyncio.sleep(0)
        polite = asyncio.create_task(inbox.receive(FakeCall("polite", b"x"), None))
        check = await inbox.receive(FakeCall("monitor", b"name"), None, tiny=1024)
        assert check is not None
        assert not polite.done()
        check.release()
        assert await asyncio.wait_for(polite, 1) is not None
        for task in silent:
            task.cancel()

    run(steps())


def test_message_that_is_late_waits_for_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine everybody's is, and those who send nothing have taken its room by then; it gets what they give
    up, or is refused when nobody does."""
    monkeypatch.setattr("server.admission.inbox.SMALL_SECONDS", 0.05)
    monkeypatch.setattr("server.admission.inbox.SPARING_SECONDS", 0.2)

    async def steps() -> None:
        inbox = make_inbox(EXPECTED_BYTES)
        late = FakeCall("late")
        receiving = asyncio.create_task(inbox.receive(late, TIMEOUT))
        await poll(lambda: late.is_read)
        silent = FakeCall("silent")
        blocking = asyncio.create_task(inbox.receive(silent, TIMEOUT))
        await poll(lambda: silent.is_read)
        late.messages.append(b"x")
        late.arrived.set()
        held = await receiving
        assert held is not None
        held.release()
        blocking.cancel()
        await asyncio.wait([blocking])

        late.arrived.clear()
        receiving = asyncio.create_task(inbox.receive(late, TIMEOUT))
        await asyncio.sleep(0.1)
        other = await inbox.receive(FakeCall("other", bytes(EXPECTED_BYTES)), TIMEOUT)
        assert other is not None
        late.messages.append(b"x")
        late.arrived.set()
        with pytest.raises(OverloadedError):
            await receiving
        other.release()
        assert inbox._free == EXPECTED_BYTES
        assert not inbox._waiting

    run(steps())


def test_tiny_message_is_taken_when_there_is_no_room_at_all() -> None:
    """One that is not tiny after all is counted as any other."""

    async def steps() -> None:
        inbox = make_inbox(MIB)
        held = await inbox.receive(FakeCall("a", bytes(MIB)), None)
        assert held is not None
        assert await inbox.receive(FakeCall("b", bytes(100)), None, tiny=100) is not None
        with pytest.raises(OverloadedError):
            await inbox.receive(FakeCall("b", bytes(101)), None, tiny=100)

    run(steps())


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("size", [1000, 3 * MIB])
def test_compressed_message_takes_the_room_of_what_it_holds(size: int, compress: Callable[[bytes], bytes]) -> None:
    """A stream of messages of 3 MiB in 3 kB each holds no more of them than there is room for."""

    async def steps() -> None:
        inbox = make_inbox(8 * MIB)
        call = FakeCall("a", *[compress(bytes(size))] * 3)
        held = [await inbox.receive(call, None) for _ in range(3)]
        for message in held[:2]:
            assert message is not None
            assert await inbox.unfold(message, "a", 4 * MIB) == bytes(size)
        third = asyncio.create_task(inbox.unfold(held[2], "a", 4 * MIB))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        assert third.done() == (size == 1000)
        held[0].release()  # type: ignore[union-attr]
        assert await third == bytes(size)
        for message in held[1:]:
            message.release()  # type: ignore[union-attr]
        assert inbox._free == 8 * MIB
        assert inbox._held == 0

    run(steps())


@pytest.mark.parametrize(("data", "reason"), [(gzip.compress(bytes(MIB)), "MESSAGE_TOO_LARGE"), (b"\x1f\x8b", "")])
def test_message_that_does_not_unfold_leaves_nothing(data: bytes, reason: str) -> None:
    """Neither one that is damaged nor one with more than may be."""

    async def steps() -> None:
        inbox = make_inbox(8 * MIB)
        held = await inbox.receive(FakeCall("a", data), None)
        assert held is not None
        with pytest.raises(RequestError) as refusal:
            await inbox.unfold(held, "a", 600_000)
        assert refusal.value.reason == (reason or "REQUEST_MALFORMED")
        held.release()
        assert inbox._free == 8 * MIB

    run(steps())


def test_many_who_send_nothing_keep_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is taken to send little, and all of them together leave none: but only for a moment."""
    monkeypatch.setattr("server.admission.inbox.SMALL_SECONDS", 0.05)

    async def steps() -> None:
        inbox = make_inbox(8 * MIB)
        silent = [asyncio.create_task(inbox.receive(FakeCall(f"silent {n}"), TIMEOUT)) for n in range(32)]
        await asyncio.sleep(0)
        assert inbox._free == 0
        inbox._learn_size("other", 7 * MIB)
        held = await inbox.receive(FakeCall("other", bytes(7 * MIB)), TIMEOUT)
        assert held is not None
        held.release()
        for task in silent:
            task.cancel()
        await asyncio.wait(silent)
        assert inbox._free == 8 * MIB

    run(steps())


def test_message_without_room_to_unfold_is_refused_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for ever behind others."""
    monkeypatch.setattr("server.admission.inbox.UNFOLD_SECONDS", 0.05)

    async def steps() -> None:
        inbox = make_inbox(MIB)
        assert await inbox.receive(FakeCall("b", bytes(MIB - 100)), None) is not None
        held = await inbox.receive(FakeCall("a", gzip.compress(b"x")), None, tiny=100)
        assert held is not None
        with pytest.raises(OverloadedError):
            await inbox.unfold(held, "a", MIB)

    run(steps())


def test_message_for_which_there_is_no_room_is_refused() -> None:
    """The connection's next one waits instead."""

    async def steps() -> None:
        inbox = make_inbox(8 * MIB)
        held = await inbox.receive(FakeCall("a", bytes(6 * MIB)), TIMEOUT)
        surprise = FakeCall("b", bytes(6 * MIB), bytes(1))
        with pytest.raises(OverloadedError) as refusal:
            await inbox.receive(surprise, TIMEOUT)
        assert refusal.value.reason == "MEMORY_SHORT"
        assert refusal.value.retry_after
        assert held is not None
        held.release()
        assert await inbox.receive(surprise, TIMEOUT) is not None

    run(steps())


def test_flood_is_refused_until_it_is_none() -> None:
    """Those who send most first, and the last of theirs; the connection that sends one small message at a time gets
    through."""

    async def steps() -> None:
        flood = [FakeCall("flood") for _ in range(64)]
        polite = FakeCall("polite")
        receiving: dict[FakeCall, asyncio.Task[Any]] = {}

        def count_arriving() -> int:
            return MIB * sum(context.is_read and not receiving[context].done() for context in flood)

        inbox = make_inbox(20 * MIB, count_arriving)
        assert await inbox.receive(FakeCall("polite", b"small"), TIMEOUT) is not None
        for context in (polite, *flood):
            receiving[context] = asyncio.create_task(inbox.receive(context, TIMEOUT))
        refused = [receiving[context] for context in flood]
        await poll(lambda: sum(task.done() for task in refused) >= 48)
        await asyncio.sleep(0.1)
        still_there = [task for task in refused if not task.done()]
        assert 4 <= len(still_there) <= 16
        assert still_there == refused[: len(still_there)]
        assert all(isinstance(task.exception(), OverloadedError) for task in refused if task.done())
        polite.messages.append(b"x")
        polite.arrived.set()
        assert await receiving[polite] is not None
        for task in still_there:
            task.cancel()

    run(steps())


def test_message_that_does_not_come_ends_the_wait() -> None:
    """With its reason; and what was kept free for it is free again."""

    async def steps() -> None:
        inbox = make_inbox(EXPECTED_BYTES)
        for _ in range(3):
            with pytest.raises(BudgetExceededError) as late:
                await inbox.receive(FakeCall("a"), 0.02)
            assert late.value.reason == "MESSAGE_LATE"
        waiting = asyncio.create_task(inbox.receive(FakeCall("a"), None))
        await asyncio.sleep(0.01)
        queued = asyncio.create_task(inbox.receive(FakeCall("b", b"x"), None))
        await asyncio.sleep(0.01)
        waiting.cancel()
        assert await queued is not None

    run(steps())


def test_caller_who_leaves_the_line_is_forgotten() -> None:
    """Whether the room was about to be given or not."""

    async def steps() -> None:
        inbox = make_inbox(EXPECTED_BYTES)
        held = await inbox.receive(FakeCall("a", bytes(EXPECTED_BYTES)), None)
        assert held is not None
        leaving = [asyncio.create_task(inbox.receive(FakeCall(peer, b"x"), None)) for peer in "bbc"]
        await asyncio.sleep(0.01)
        leaving[0].cancel()
        held.release()
        leaving[1].cancel()
        leaving[2].cancel()
        await asyncio.sleep(0.01)
        assert await inbox.receive(FakeCall("d", b"x"), 1) is not None

    run(steps())


def test_call_without_a_message_is_malformed() -> None:
    """A unary call has one."""

    async def steps() -> None:
        context = FakeCall("a")
        context.arrived.set()
        with pytest.raises(RequestError) as refusal:
            async with make_inbox(MIB).take(context, TIMEOUT):
                raise AssertionError
        assert refusal.value.reason == "REQUEST_MALFORMED"

    run(steps())
