"""The gate by itself: who is let in, with what, how much, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from server.errors import OverloadedError, StrokeError
from server.security.clients import find_allowed, read_token
from server.security.gate import Client, Gate
from server.security.tokens import PREDICT, READ, WORKLIST, parse_date
from tests.access import token_of, write_private, write_tokens

TIMEOUT = 20
NOON = 1_800_000_000.0
"""2027-01-15."""


class Clock:
    """Time stands still unless it is set."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Place:
    """A gate with its files and clocks."""

    def __init__(self, folder: Path, *, allowed: list[str] | None = None, **clients: str) -> None:
        self.tokens, self.allowed = folder / "tokens", folder / "allowed"
        self.wall, self.steady = Clock(NOON), Clock(0.0)
        if clients:
            write_tokens(self.tokens, **clients)
        if allowed is not None:
            write_private(self.allowed, allowed)
        self.gate = Gate(
            self.tokens if clients else None,
            self.allowed if allowed is not None else None,
            clock=self.wall,
            steady_clock=self.steady,
        )

    def identify(self, name: str) -> Client:
        return self.gate.identify((), token_of(name))


def refusal(call: Any, *arguments: Any) -> str:
    """The reason why a call is refused; empty when it is not."""
    try:
        call(*arguments)
    except StrokeError as error:
        return f"{type(error).__name__} {error.reason}"
    return ""


def run(steps: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(steps, TIMEOUT))


def test_token_names_its_client(tmp_path: Path) -> None:
    """A missing, an unknown and an empty one are told apart; none of it is shown."""
    gate = Place(tmp_path, ward="", archive="").gate

    assert gate.identify((), token_of("ward")).name == "ward"
    assert gate.identify(("cn:station-3",), token_of("archive")).name == "archive"
    assert refusal(gate.identify, (), None) == "UnauthenticatedError TOKEN_MISSING"
    for wrong in ("token-of-nobody", "", "x" * 8000, "\udce9", token_of("ward") + " "):
        assert refusal(gate.identify, (), wrong) == "UnauthenticatedError TOKEN_WRONG"


def test_token_is_good_until_the_end_of_its_day(tmp_path: Path) -> None:
    """By the clock on the wall, in UTC."""
    place = Place(tmp_path, ward="expires=2027-01-15")
    client = place.identify("ward")
    midnight = parse_date("2027-01-16").toordinal() - parse_date("1970-01-01").toordinal()

    place.wall.now = midnight * 86400.0 - 0.001
    assert place.identify("ward") == client
    place.wall.now = midnight * 86400.0
    assert refusal(place.identify, "ward") == "UnauthenticatedError TOKEN_EXPIRED"
    assert refusal(place.gate.renew, client) == "UnauthenticatedError TOKEN_EXPIRED"


def test_certificate_names_its_client_where_there_are_no_tokens(tmp_path: Path) -> None:
    """By its first name; where there is a list, by the one that is on it. Others, and those without, are refused."""
    assert Gate().identify(("dns:ct-1", "cn:station-3"), None).name == "dns:ct-1"
    gate = Place(tmp_path, allowed=["station-3", "dns:ct-1"]).gate

    client = gate.identify(("email:somebody@hospital.example", "cn:station-3"), None)
    assert (client.name, client.roles) == ("cn:station-3", {PREDICT, READ, WORKLIST})
    for other in ("cn:station-4", "cn:station", "cn:ct-1", "cn:dns:ct-1"):
        assert refusal(gate.identify, (other,), None) == "ForbiddenError CLIENT_NOT_ALLOWED"
    assert refusal(gate.identify, (), None) == "UnauthenticatedError CERTIFICATE_MISSING"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("dns:ct-1", "dns:ct-1"),
        ("ct-1", "dns:ct-1"),
        ("spiffe://hospital/ct", "uri:spiffe://hospital/ct"),
        ("uri:spiffe://hospital/ct", "uri:spiffe://hospital/ct"),
        ("Radiology CT", "cn:Radiology CT"),
        ("cn:ct-1", ""),
        ("CT-1", ""),
    ],
)
def test_line_of_the_list_means_a_name_of_its_kind_or_of_any(line: str, found: str) -> None:
    """Letter by letter. Nobody passes for another kind by a colon in a common name."""
    names = ("uri:spiffe://hospital/ct", "dns:ct-1", "cn:Radiology CT")

    assert find_allowed(names, frozenset({line})) == found


def test_where_both_are_asked_for_both_must_be_good(tmp_path: Path) -> None:
    """The token then names the caller."""
    gate = Place(tmp_path, allowed=["station-3"], ward="roles=read").gate

    client = gate.identify(("cn:station-3",), token_of("ward"))
    assert (client.name, client.roles) == ("ward", {READ})
    assert refusal(gate.identify, ("cn:station-4",), token_of("ward")) == "ForbiddenError CLIENT_NOT_ALLOWED"
    assert refusal(gate.identify, ("cn:station-3",), None) == "UnauthenticatedError TOKEN_MISSING"


@pytest.mark.parametrize(
    ("roles", "may"),
    [("predict", {PREDICT, READ}), ("read", {READ}), ("admin", set()), ("worklist", set()), ("read,admin", {READ})],
)
def test_roles_say_what_a_client_may(roles: str, may: set[str], tmp_path: Path) -> None:
    """Those who judge images may ask which model does it; admin is for what there is not yet."""
    place = Place(tmp_path, ward=f"roles={roles}")
    client = place.identify("ward")

    for role in (PREDICT, READ):
        assert refusal(place.gate.admit, client, role) == ("" if role in may else "ForbiddenError ROLE_MISSING")


def test_requests_come_at_the_rate_of_the_limit(tmp_path: Path) -> None:
    """A second's worth at once, then one by one; the hint is exact, and what is refused costs nothing."""
    place = Place(tmp_path, ward="requests=4", other="requests=4")
    client = place.identify("ward")
    for _ in range(4):
        place.gate.admit(client, READ).leave()

    for _ in range(10):
        with pytest.raises(OverloadedError) as refused:
            place.gate.admit(client, READ)
    assert (refused.value.reason, refused.value.retry_after) == ("LIMIT_REQUESTS", 0.25)
    place.gate.admit(place.identify("other"), READ)  # fair to others

    place.steady.now = 0.25
    place.gate.admit(client, READ)
    assert refusal(place.gate.admit, client, READ) == "OverloadedError LIMIT_REQUESTS"
    place.steady.now = 100.0
    assert [refusal(place.gate.admit, client, READ) for _ in range(5)] == [""] * 4 + ["OverloadedError LIMIT_REQUESTS"]


def test_images_in_flight_are_counted_by_name(tmp_path: Path) -> None:
    """On all connections and calls of a client; what ends makes room, once."""
    place = Place(tmp_path, ward="images=2", other="images=1")
    client = place.identify("ward")
    first, _ = (place.gate.admit(client, PREDICT, 1) for _ in range(2))

    assert refusal(place.gate.admit, client, PREDICT, 1) == "OverloadedError LIMIT_IMAGES"
    assert refusal(place.gate.admit, client, READ) == ""
    assert refusal(place.gate.admit, place.identify("other"), PREDICT, 1) == ""
    first.leave()
    first.leave()
    assert refusal(place.gate.admit, client, PREDICT, 1) == ""
    assert refusal(place.gate.admit, client, PREDICT, 1) == "OverloadedError LIMIT_IMAGES"


def test_bytes_in_flight_are_counted_when_they_have_come(tmp_path: Path) -> None:
    """A call that would be too much is refused; one that is alone never is, or it would never come through."""
    place = Place(tmp_path, ward="bytes=100")
    first, second = (place.gate.admit(place.identify("ward"), PREDICT, 1) for _ in range(2))

    share = first.take(60)
    assert refusal(second.take, 41) == "OverloadedError LIMIT_BYTES"
    second.take(40)
    assert refusal(place.gate.admit, place.identify("ward"), PREDICT, 1) == "OverloadedError LIMIT_BYTES"
    share.release()
    share.release()
    assert refusal(second.take, 61) == "OverloadedError LIMIT_BYTES"
    Place(tmp_path, ward="bytes=100").gate.admit(place.identify("ward"), PREDICT, 1).take(1000)


def test_stream_waits_where_a_call_is_refused(tmp_path: Path) -> None:
    """Until its images, its bytes and its rate are within the limits again."""
    place = Place(tmp_path, ward="images=2 bytes=100")

    async def steps() -> None:
        permit = place.gate.admit(place.identify("ward"), PREDICT)
        await permit.wait_for_turn()
        share = await permit.take_in_turn(60)
        share.add_images(3)  # a message more than there was room for: it is taken whole
        turn = asyncio.create_task(permit.wait_for_turn())
        taken = asyncio.create_task(permit.take_in_turn(60))
        await asyncio.sleep(0.01)
        assert not turn.done()
        assert not taken.done()

        share.release()
        await turn
        (await taken).release()

    run(steps())


def test_images_of_a_stream_count_as_requests(tmp_path: Path) -> None:
    """Nobody comes round the rate by a stream."""
    place = Place(tmp_path, ward="requests=10")

    async def steps() -> None:
        permit = place.gate.admit(place.identify("ward"), PREDICT)
        share = await permit.take_in_turn(1)
        share.add_images(19)
        with pytest.raises(OverloadedError) as refused:
            place.gate.admit(permit.client, READ)
        assert refused.value.retry_after == pytest.approx(1.1)

        place.steady.now = 1.1
        await permit.wait_for_turn()

    run(steps())


def test_images_of_a_call_are_counted_when_they_have_come(tmp_path: Path) -> None:
    """The first of them is the request that the call is. Those that come alone may be more than the limit: their
    number has a bound anyway."""
    place = Place(tmp_path, pacs="images=4 requests=10")
    client = place.identify("pacs")
    permit, other = place.gate.admit(client, PREDICT), place.gate.admit(client, PREDICT)
    share, second = permit.take(100), other.take(100)

    share.admit_images(6)

    assert refusal(second.admit_images, 1) == "OverloadedError LIMIT_IMAGES"
    assert refusal(place.gate.admit, client, PREDICT) == "OverloadedError LIMIT_IMAGES"
    share.release()
    second.admit_images(4)
    assert refusal(place.gate.admit, client, PREDICT) == "OverloadedError LIMIT_REQUESTS"  # 6 and 4 images


def test_stream_ends_when_its_client_is_let_in_no_longer(tmp_path: Path) -> None:
    """Revoked, expired, no longer of that role or on that list: with the reason. Others go on, as do single calls."""
    later = "expires=2027-01-15"
    place = Place(tmp_path, allowed=["a", "b"], revoked="", expiring=later, reader="", removed="", stays="images=5")
    ended: dict[str, str] = {}
    for name in ("revoked", "expiring", "reader", "removed", "stays"):
        client = place.gate.identify(("cn:b" if name == "removed" else "cn:a",), token_of(name))
        permit = place.gate.admit(client, PREDICT)
        permit.on_end = lambda error, name=name: ended.setdefault(name, error.reason)  # type: ignore[misc]
    single = place.gate.admit(place.gate.identify(("cn:a",), token_of("revoked")), PREDICT, 1)

    place.gate.reload()
    assert ended == {}
    write_tokens(place.tokens, expiring=later, reader="roles=read", removed="", stays="images=7")
    write_private(place.allowed, ["a"])
    place.wall.now += 86400
    place.gate.reload()

    assert ended == {
        "revoked": "TOKEN_REVOKED",
        "expiring": "TOKEN_EXPIRED",
        "reader": "ROLE_MISSING",
        "removed": "CLIENT_NOT_ALLOWED",
    }
    assert permit.client.limits.images == 7  # of the file of now
    single.leave()


def test_stream_of_a_revoked_client_ends_at_its_next_message(tmp_path: Path) -> None:
    """Also before anybody has looked."""
    place = Place(tmp_path, ward="", other="")
    permit = place.gate.admit(place.identify("ward"), PREDICT)

    write_tokens(place.tokens, other="")
    for file in place.gate.files:
        file.check()

    with pytest.raises(StrokeError, match="good no longer"):
        asyncio.run(permit.take_in_turn(1))


def test_clients_that_have_gone_are_forgotten(tmp_path: Path) -> None:
    """Once it makes no difference: what is in flight, and what they have used up, is not."""
    place = Place(tmp_path, ward="requests=1", other="images=1")
    place.gate.admit(place.identify("ward"), READ).leave()
    permit = place.gate.admit(place.identify("other"), PREDICT, 1)

    place.gate.recheck()
    assert refusal(place.gate.admit, place.identify("ward"), READ) == "OverloadedError LIMIT_REQUESTS"
    assert refusal(place.gate.admit, place.identify("other"), PREDICT, 1) == "OverloadedError LIMIT_IMAGES"
    permit.leave()
    place.steady.now = 10.0
    place.gate.recheck()
    assert not place.gate._accounts


def test_files_are_looked_after_until_the_loop_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a thread that asks the loop to look at what is open; the loop never reads a file."""
    monkeypatch.setattr("server.security.gate.CHECK_SECONDS", 0.01)
    place = Place(tmp_path, ward="", other="")

    async def steps() -> None:
        loop = asyncio.get_running_loop()
        permit = place.gate.admit(place.identify("ward"), PREDICT)
        ended: asyncio.Future[StrokeError] = loop.create_future()
        permit.on_end = lambda error: ended.done() or ended.set_result(error)  # type: ignore[assignment]
        place.gate.watch(loop.call_soon_threadsafe)
        write_tokens(place.tokens, other="")
        assert (await ended).reason == "TOKEN_REVOKED"

    run(steps())
    place.gate.reload()  # SIGHUP at the last moment: nothing raises


@pytest.mark.parametrize(
    ("values", "token"),
    [
        ([], None),
        (["Bearer abc"], "abc"),
        (["bearer  abc "], "abc"),
        (["Basic abc"], ""),
        (["abc"], ""),
        ([b"Bearer abc"], ""),
        (["Bearer abc", "Bearer abc"], ""),
        (["Bearer "], ""),
    ],
)
def test_token_is_read_from_the_metadata(values: list[str | bytes], token: str | None) -> None:
    """Where it is not a bearer token it is a wrong one, and none only where there is nothing."""
    assert read_token([("stroke-x", "y"), *(("authorization", value) for value in values)]) == token
    assert read_token(None) is None
