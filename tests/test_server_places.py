"""Places are shared out: nobody gets all of them, and they do not run out."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from server.admission.call import Method
from server.admission.inbox import Inbox
from server.admission.places import FairPlaces
from server.api.rpc.call import RpcCall
from server.core.outcomes import Caller
from server.errors import OverloadedError


def full() -> OverloadedError:
    return OverloadedError("FULL", "Full.", retry_after=1)


def take_all(places: FairPlaces, peer: str, stack: ExitStack) -> int:
    """How many places one connection gets."""
    for number in range(1000):
        try:
            stack.enter_context(places.take(peer))
        except OverloadedError:
            return number
    raise AssertionError


def test_connection_that_takes_all_it_can_get_leaves_places_for_others() -> None:
    """Half of them, then half of the rest, and so on; all come back."""
    places = FairPlaces(64, full)
    with ExitStack() as stack:
        assert [take_all(places, peer, stack) for peer in "abcd"] == [32, 16, 8, 4]
        assert places.free == 4
        with places.take("polite"):
            pass
    with ExitStack() as stack:
        assert take_all(places, "a", stack) == 32


def test_only_place_is_given_to_one() -> None:
    """And no more than there are are given."""
    places = FairPlaces(1, full)
    with ExitStack() as stack:
        assert [take_all(places, peer, stack) for peer in "ab"] == [1, 0]
        with pytest.raises(OverloadedError) as refusal:
            stack.enter_context(places.take("a"))
    assert refusal.value.reason == "FULL"
    assert refusal.value.retry_after


@pytest.mark.parametrize(("name", "source"), [("", "ipv4:10.0.0.7:40000"), ("ward-3", "client ward-3")])
def test_places_are_shared_out_by_client_where_it_has_a_name(name: str, source: str) -> None:
    """One with many connections gets no more than one with one."""
    call = RpcCall(SimpleNamespace(peer=lambda: "ipv4:10.0.0.7:40000"), Method("Predict"), Inbox(1))
    call.caller = Caller(call.peer, name)

    assert call.source == source
