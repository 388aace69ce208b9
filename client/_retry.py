"""When a call, or an image of a stream, is sent again. It knows no thread and no event loop.

    what came back                                      what is done
    nobody is there, a connection that broke, a server  again after pauses that grow, spread by a fifth: a restart
    that starts or stops (UNAVAILABLE, CANCELLED)       takes seconds, and the caller's time is there to be used
    a refusal with a hint of the server                 again after the hint, and a share of chance on top
    a refusal without (QUEUE_FULL of older servers),    again after a pause that is all chance, so that callers who
    more calls than a connection may carry              were refused together do not come back together
    anything else                                       it is the answer

All calls are pure, so sending twice does no harm. gRPC could repeat by itself, but at most five times whatever the
caller's time, with tokens that 80 threads use up at the first restart, and it says nothing while it waits; so it only
does what it does unasked: send again what never left this machine, or was refused unread.
"""

from __future__ import annotations

import math
import random
import threading

from ._channel import Restraint
from ._config import RetryConfig
from ._errors import AuthenticationError, OverloadedError, StrokeClientError

_LEAST_SECONDS = 0.05
"""With less time left a try is not worth making: it would end without an answer, and with a worse error."""

_SHARE_OF_REST = 0.25
"""Longest pause, of the time that is left: tries come closer together towards the end, so that nobody gives up while
there is time, and those who have waited longest ask most often."""

_MOST_UNCLEAR = 4
"""Connections in a row that are made and then dropped. A server that restarts may do it once or twice; what does it
each time is no server of ours, or wants another kind of connection."""

_PERMANENT = {"NOT_A_GRPC_SERVER", "HOST_UNKNOWN", "TLS_REQUIRED", "TLS_NOT_SPOKEN", "TLS_FAILED"}
"""Reasons of UNAVAILABLE that somebody has to do something about."""

_UNSTATED = "SERVER_BUSY"
"""Reason of a RESOURCE_EXHAUSTED for which the server stated none: by the API, a message above its limit."""


def is_repeatable(error: StrokeClientError) -> bool:
    """True when the same call is worth making again within the time of the caller."""
    if error.retry_after == math.inf:
        return False
    if error.code == "RESOURCE_EXHAUSTED":
        return isinstance(error, OverloadedError) and (error.retry_after is not None or error.reason != _UNSTATED)
    return (
        error.code in ("UNAVAILABLE", "CANCELLED")
        and not isinstance(error, AuthenticationError)
        and error.reason not in _PERMANENT
    )


def choose_pause(error: StrokeClientError, backoff: float, hint_limit: float) -> float:
    """Returns the seconds before the next try.

    Args:
        error: with which the last one failed.
        backoff: the planned pause, which grows from try to try.
        hint_limit: most seconds of chance that a hint of the server may cause.
    """
    if error.retry_after is not None:
        return error.retry_after + random.uniform(0, max(backoff, min(error.retry_after, hint_limit)))
    is_busy = error.code == "RESOURCE_EXHAUSTED" or error.reason == "CONNECTION_BUSY"
    return random.uniform(0, backoff) if is_busy else backoff * random.uniform(0.8, 1.2)


class Throttle:
    """Ends repetitions where most tries fail (``RetryConfig.throttle_tokens``). May be used by several threads."""

    def __init__(self, tokens: int) -> None:
        self._most = float(tokens)
        self._left = self._most
        self._lock = threading.Lock()

    def spend(self) -> bool:
        """Counts a try that failed. Returns True when there may be another."""
        with self._lock:
            self._left = max(self._left - 1, 0.0)
            return self._left > self._most / 2

    def refund(self) -> None:
        """Counts a good answer."""
        if self._left < self._most:
            with self._lock:
                self._left = min(self._left + 0.1, self._most)


class Retry:
    """The tries of one call, or of one image of a stream. Times are seconds of ``time.monotonic``.

    Args:
        config: how calls are repeated.
        started: when the first try began.
        timeout: seconds for all tries.
        throttle: of the client; None: it has none.
        restraint: of the client; None: refusals are not held back.
    """

    def __init__(
        self,
        config: RetryConfig,
        started: float,
        timeout: float,
        throttle: Throttle | None = None,
        restraint: Restraint | None = None,
    ) -> None:
        self._config = config
        self._restraint = restraint
        self._timeout = timeout
        self._deadline = started + timeout
        self._throttle = throttle
        self._resumed = started
        self._backoff = config.initial_backoff
        self._tries = 0
        self._unclear = 0
        self._failure: StrokeClientError | None = None

    @property
    def failure(self) -> StrokeClientError:
        """What to raise when there is no further try."""
        assert self._failure is not None
        return self._failure

    def judge(self, failure: StrokeClientError, now: float, *, passes: bool | None = None) -> float | None:
        """Takes the outcome of a try. Returns the seconds to wait before the next one; None: it is given up.

        Args:
            failure: what came of it.
            now: the time.
            passes: True or False when the caller knows whether it may pass; None: judged by ``is_repeatable``.
        """
        self._tries += 1
        if not (is_repeatable(failure) if passes is None else passes):
            self._settle(failure)
            return None
        self._failure = failure
        self._unclear = self._unclear + 1 if failure.reason == "CONNECTION_FAILED" else 0
        most = self._config.max_attempts
        if (most is not None and self._tries >= most) or self._unclear >= _MOST_UNCLEAR:
            return None
        if self._throttle is not None and not self._throttle.spend():
            return None
        least = failure.retry_after or 0.0
        spare = self._deadline - now - least
        if spare < _LEAST_SECONDS:
            return None
        longest = self._config.max_backoff
        pause = min(choose_pause(failure, self._backoff, longest), least + spare * _SHARE_OF_REST)
        self._backoff = min(self._backoff * self._config.backoff_multiplier, longest)
        self._resumed = now + pause
        return pause

    def hold(self, now: float) -> float | None:
        """Returns the seconds that the next try is to wait on top of its pause; None: the time does not suffice."""
        if self._restraint is None or self.failure.code != "RESOURCE_EXHAUSTED":
            return 0.0
        seconds = self._restraint.hold(now)
        return seconds if self._deadline - now - seconds >= _LEAST_SECONDS else None

    def time_left(self, now: float) -> float:
        """Returns the seconds for the next try, > 0."""
        return max(self._deadline - now, 0.001)

    def _settle(self, failure: StrokeClientError) -> None:
        # A try that began late and ran out of time says nothing; what kept the call waiting until then does.
        was_late = self._deadline - self._resumed < self._timeout / 2
        if self._failure is None or failure.reason != "DEADLINE_EXCEEDED" or not was_late:
            self._failure = failure
