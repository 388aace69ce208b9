"""``wait_until_ready``: when to ask again, and when to give up. It knows no thread and no event loop."""

from __future__ import annotations

import time

from ._errors import ServerUnavailableError, StrokeClientError, may_pass
from ._types import HealthStatus

_NOT_READY_CODES = {"DEADLINE_EXCEEDED", "NOT_FOUND"}
"""Codes of a health check that may pass by themselves, besides those of any call; NOT_FOUND: the service is not
registered yet."""

_CHECK_SECONDS = 2.0
"""One check must not use up the whole time: a server that hangs may be replaced by one that does not."""

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.25


class Readiness:
    """One wait for a server."""

    def __init__(self, target: str, timeout: float) -> None:
        self._target = target
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._pause = _FIRST_PAUSE

    @property
    def check_timeout(self) -> float:
        """Seconds that the next health check may take."""
        return min(max(self._deadline - time.monotonic(), 0.05), _CHECK_SECONDS)

    def judge(self, outcome: HealthStatus | StrokeClientError) -> float | None:
        """Returns the seconds to wait before the next check; None: the server is ready.

        Args:
            outcome: of the last check: what it returned or raised.

        Raises:
            ServerUnavailableError: the time is over.
            StrokeClientError: the outcome, when waiting does not change it.
        """
        if outcome is HealthStatus.SERVING:
            return None
        failure: StrokeClientError = ServerUnavailableError(
            f"the server at {self._target} was not ready after {self._timeout:g} s: see its log, or wait longer",
            "SERVER_NOT_READY",
        )
        if isinstance(outcome, StrokeClientError):
            if not (may_pass(outcome) or outcome.code in _NOT_READY_CODES):
                raise outcome
            if outcome.code == "UNAVAILABLE":
                failure = outcome
        pause, self._pause = self._pause, min(self._pause * 1.5, _LONGEST_PAUSE)
        if time.monotonic() + pause >= self._deadline:
            raise failure
        return pause
