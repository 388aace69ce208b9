"""StreamRun: the decisions of predict_many, without threads, event loop or network: time is a number."""

from __future__ import annotations

import pytest

from client import (
    DeadlineExceededError,
    IntegrityError,
    OverloadedError,
    Prediction,
    PredictionFailure,
    RetryConfig,
    ServerUnavailableError,
)
from client.stream.threads import _Inbox
from tests.stream_driver import BUSY, OLD, Driver


class TakenMeanwhile:
    """An event during whose count somebody takes another one."""

    def __init__(self, inbox: _Inbox) -> None:
        self._inbox = inbox

    @property
    def answers(self) -> tuple[()]:
        if len(self._inbox.events) > 1:
            self._inbox.events.popleft()
        return ()


def test_events_may_be_taken_while_they_are_counted() -> None:
    """The receiver of a call went down over it, and its stream hung."""
    inbox = _Inbox(in_flight=8)
    for _ in range(3):
        inbox.put(TakenMeanwhile(inbox), is_last=False)  # type: ignore[arg-type]

    assert len(inbox.events) == 1


def test_window_is_refilled_by_halves() -> None:
    """Full, the run wants no image before half of the window is free, and then as many as fit."""
    driver = Driver(in_flight=8)
    driver.admit(8)
    wanted = []
    for _ in range(8):
        wanted.append(driver.run.wants_image)
        driver.answer(driver.calls[0])
        driver.take()

    assert wanted == [False] * 4 + [True] * 4


def test_untaken_results_count_as_held() -> None:
    """A caller that takes no results gets no further images read, answered or not."""
    driver = Driver(in_flight=4)
    driver.admit(4)
    for _ in range(4):
        driver.answer(driver.calls[0])

    assert not driver.run.wants_image
    assert driver.take() == [0, 1, 2, 3]
    assert driver.run.wants_image


@pytest.mark.parametrize(("ordered", "expected"), [(True, []), (False, [1])])
def test_order_is_kept_unless_it_is_not_wanted(ordered: bool, expected: list[int]) -> None:
    """A result behind an image without an answer waits, or does not."""
    driver = Driver(lanes=2, ordered=ordered)
    driver.admit(2)
    driver.answer(driver.calls[1])

    assert driver.take() == expected
    driver.answer(driver.calls[0])
    assert driver.take() == ([0, 1] if ordered else [0])


def test_images_go_to_the_lane_with_the_fewest() -> None:
    """Lanes share the images; one that answers faster gets more."""
    driver = Driver(lanes=2)
    driver.admit(4)
    first, second = driver.calls
    assert (first.indices, second.indices) == ([0, 2], [1, 3])

    driver.answer(second)
    driver.answer(second)
    driver.admit(2)

    assert second.indices == [1, 3, 4, 5]


def test_no_more_lanes_than_images_in_flight() -> None:
    """One image at a time needs one stream, however many servers there are."""
    driver = Driver(lanes=5, in_flight=1)
    driver.admit(1)
    driver.answer(driver.calls[0])
    driver.take()
    driver.admit(1)

    assert len(driver.calls) == 1


def test_broken_lane_does_not_stop_the_others() -> None:
    """Its images wait for their pause and go out again on a new call, in order; the other lane goes on meanwhile."""
    driver = Driver(lanes=2)
    driver.admit(6)
    first, second = driver.calls
    driver.end(first, now=1.0)
    driver.admit(1, now=1.0)
    driver.answer(second, now=1.0)

    assert second.indices == [1, 3, 5, 6]
    assert len(driver.calls) == 2
    wake_at = driver.run.wake_at()
    assert wake_at is not None
    assert 1.0 < wake_at <= 1.25

    driver.run.pass_time(wake_at)

    assert driver.calls[2].indices == [0, 2, 4]


def test_lane_is_given_up_when_the_time_is_over() -> None:
    """A call that breaks is opened again for as long as an image may take, answered before or not."""
    driver = Driver(timeout=10.0)
    driver.admit(1)
    moments = [0.0]

    def break_again() -> None:
        while True:
            driver.end(driver.calls[-1], now=moments[-1])
            moments.append(driver.run.wake_at() or 0.0)
            driver.run.pass_time(moments[-1])

    with pytest.raises(ServerUnavailableError, match="gone"):
        break_again()

    assert 9.5 < moments[-1] <= 10.0


def test_answer_starts_the_time_of_the_next_break_anew() -> None:
    """What was waited before an answer does not count for the break after it."""
    driver = Driver(timeout=10.0)
    driver.admit(2)
    for now in (0.0, 9.0, 18.0):
        driver.end(driver.calls[-1], now=now)
        driver.run.pass_time(now + 5)
        if now == 9.0:
            driver.answer(driver.calls[-1], now=15.0)

    assert len(driver.calls) == 4


@pytest.mark.parametrize("attempts", [1, 2])
def test_breaks_are_limited_where_tries_are(attempts: int) -> None:
    """``max_attempts`` holds for the calls of a run; with 1 the first break ends it."""
    driver = Driver(retry=RetryConfig(max_attempts=attempts))
    driver.admit(1)
    for _ in range(attempts - 1):
        driver.end(driver.calls[-1])
        driver.run.pass_time(5.0)

    with pytest.raises(ServerUnavailableError, match="gone"):
        driver.end(driver.calls[-1])


def test_image_that_is_refused_for_now_fails_at_once_without_tries() -> None:
    """With ``max_attempts=1`` the refusal is the result of the image, and the run goes on."""
    driver = Driver(retry=RetryConfig(max_attempts=1))
    driver.admit(2)
    driver.answer(driver.calls[0], code=BUSY)
    driver.answer(driver.calls[0])

    refused, judged = driver.run.take_result(), driver.run.take_result()
    assert isinstance(refused, PredictionFailure)
    assert isinstance(refused.error, OverloadedError)
    assert isinstance(judged, Prediction)


def test_hint_for_an_image_is_waited_for() -> None:
    """``retry_after_ms`` is the least pause before the image is sent again."""
    driver = Driver(timeout=10.0)
    driver.admit(1)
    driver.answer(driver.calls[0], now=1.0, code=BUSY, retry_after_ms=3000)

    wake_at = driver.run.wake_at()
    assert wake_at is not None
    assert 4.0 <= wake_at <= 5.0
    driver.run.pass_time(wake_at)
    assert driver.calls[0].indices == [0, 0]


def test_image_fails_with_its_refusal_when_the_time_is_over() -> None:
    """An image that is only ever refused has that refusal as its result, within its timeout."""
    driver = Driver(timeout=2.0)
    driver.admit(1)
    now = 0.0
    while (result := driver.run.take_result()) is None:
        driver.answer(driver.calls[0], now=now, code=BUSY, retry_after_ms=100)
        now = driver.run.wake_at() or now
        driver.run.pass_time(now)

    assert isinstance(result, PredictionFailure)
    assert (type(result.error), result.error.reason) == (OverloadedError, "OVERLOADED")
    assert 1.5 < now <= 2.0


def test_busy_server_is_left_alone_for_a_while() -> None:
    """After an overload nothing is sent on that lane before the pause is over."""
    driver = Driver()
    driver.admit(1)
    driver.answer(driver.calls[0], now=5.0, code=BUSY)
    driver.admit(1, now=5.0)
    assert driver.calls[0].indices == [0]

    driver.run.pass_time(5.3)

    assert driver.calls[0].indices == [0, 0, 1]


def test_time_counts_from_the_answer_before() -> None:
    """An image is late when the timeout has passed since the server was done with the one before it."""
    driver = Driver(timeout=10.0)
    driver.admit(2, now=0.0)
    assert driver.run.wake_at() == 10.0
    driver.answer(driver.calls[0], now=8.0)
    assert driver.run.wake_at() == 18.0
    driver.run.pass_time(17.9)
    assert driver.take() == [0]

    driver.run.pass_time(18.0)

    late = driver.run.take_result()
    assert isinstance(late, PredictionFailure)
    assert isinstance(late.error, DeadlineExceededError)
    assert driver.calls[0].ending == "cancelled"


def test_late_image_costs_one_lane_only_its_call() -> None:
    """The rest of the lane goes out again at once; a second late image without an answer in between ends the run."""
    driver = Driver(lanes=2, timeout=1.0)
    driver.admit(4, now=0.0)
    driver.answer(driver.calls[1], now=0.9)
    driver.run.pass_time(1.0)
    assert driver.calls[2].indices == [2]

    driver.answer(driver.calls[1], now=1.5)
    driver.run.pass_time(2.0)
    driver.admit(1, now=2.0)
    with pytest.raises(DeadlineExceededError):
        driver.run.pass_time(9.0)


def test_servers_are_shared_out_again_from_time_to_time() -> None:
    """With several lanes new calls take the images to come, and the old ones end when they have answered."""
    driver = Driver(lanes=2)
    driver.admit(4, now=0.0)
    driver.admit(2, now=2.0)
    old, new = driver.calls[:2], driver.calls[2:]
    assert [call.indices for call in new] == [[4], [5]]
    assert [call.ending for call in old] == ["", ""]

    for call in (*old, *old):
        driver.answer(call, now=2.1)

    assert [call.ending for call in old] == ["finished", "finished"]
    assert driver.take() == [0, 1, 2, 3]


def test_call_that_breaks_after_its_time_hands_its_images_on() -> None:
    """Images of an old call go to the new ones."""
    driver = Driver(lanes=2)
    driver.admit(2, now=0.0)
    driver.admit(2, now=2.0)
    driver.end(driver.calls[0], now=2.0)

    assert sorted(driver.calls[2].indices + driver.calls[3].indices) == [0, 2, 3]


def test_one_server_keeps_its_stream() -> None:
    """With one lane there is nothing to share out."""
    driver = Driver()
    driver.admit(1, now=0.0)
    driver.admit(1, now=100.0)

    assert len(driver.calls) == 1


def test_events_of_a_dropped_call_are_ignored() -> None:
    """What still arrives on a call that timed out belongs to nobody."""
    driver = Driver(timeout=1.0)
    driver.admit(2, now=0.0)
    driver.run.pass_time(1.0)
    driver.answer(driver.calls[0], now=1.0)

    assert driver.take() == [0]
    driver.answer(driver.calls[1], now=1.1)
    assert isinstance(driver.run.take_result(), Prediction)


def test_unasked_answer_ends_the_run() -> None:
    """An answer too many cannot be trusted, nor what follows it."""
    driver = Driver()
    driver.admit(1)
    driver.answer(driver.calls[0])
    driver.calls[0].answered = 0

    with pytest.raises(IntegrityError):
        driver.answer(driver.calls[0])


def test_old_stream_is_no_failure() -> None:
    """A server that ends it at its age has failed nothing: what it did not answer goes at once, without a pause and
    where nothing is repeated, too."""
    driver = Driver(in_flight=4, retry=RetryConfig(max_attempts=1))
    driver.admit(4)
    driver.answer(driver.calls[0])
    driver.end(driver.calls[0], error=OLD)

    assert driver.calls[1].indices == [1, 2, 3]


def test_stream_that_is_old_before_its_first_answer_is_a_failure() -> None:
    """Otherwise a server that says so of every stream would be asked for ever, without a pause."""
    driver = Driver(retry=RetryConfig(max_attempts=1))
    driver.admit(1)

    with pytest.raises(ServerUnavailableError):
        driver.end(driver.calls[0], error=OLD)


def test_run_is_shared_out_among_new_servers() -> None:
    """A name has got another address: the next time that images are shared out there are as many calls as servers."""
    servers = iter((0, 1, 2))  # not yet known, still one, one more
    driver = Driver(in_flight=2, count_servers=lambda: next(servers))
    calls = []
    for now in (0.0, 5.0, 20.0, 40.0):
        driver.admit(2, now)
        calls.append([call.indices for call in driver.calls])
        for call in driver.calls:
            for _ in range(len(call.images) - call.answered):
                driver.answer(call, now)
        driver.take()

    assert calls == [[[0, 1]], [[0, 1, 2, 3]], [[0, 1, 2, 3, 4, 5]], [[0, 1, 2, 3, 4, 5], [6], [7]]]
    assert [call.ending for call in driver.calls] == ["finished", "", ""]
