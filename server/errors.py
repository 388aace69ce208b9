"""Domain errors of the server: what can go wrong with a request or a model, each with a machine-readable reason.

No gRPC here: the one table from these errors to gRPC codes is in ``server.admission.status``. Messages are written for
the person who sent the image, say what happened and what to do, and never hold a path, a pixel or patient data; only
``ModelFileError`` names files, because it is shown on the console of the box and never on the wire.

    StrokeError
    ├── ImageError           the image cannot be judged
    ├── RequestError         a field of the request is not usable
    ├── IntegrityError       the bytes are not those that the caller meant
    ├── ModelNotFoundError   no such model or version is served
    ├── OverloadedError      the queue is full
    ├── BudgetExceededError  the caller's time is up, or the caller has gone
    ├── UnavailableError     the server is stopping
    ├── UnauthenticatedError nobody knows who calls
    ├── ForbiddenError       the caller may not do that
    ├── ChangeRefusedError   what is served cannot be changed like that
    ├── DisabledError        the server was not started with what is asked for
    ├── IncapableModelError  the model cannot do what is asked for
    └── ModelFileError       a model on disk cannot be served
"""

from __future__ import annotations

MEMORY_SECONDS = 0.25
"""Hint to those for whom there was no memory: messages that are in work end sooner."""


class StrokeError(Exception):
    """Base of all errors that the server raises on purpose.

    Attributes:
        reason: machine-readable, UPPER_SNAKE, at most 63 characters; part of the API, so it never changes meaning.
        message: a sentence that says what happened and what to do.
        retry_after: seconds after which the same call may succeed though nobody changes anything; None: it will not.
    """

    def __init__(self, reason: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class ImageError(StrokeError):
    """The image cannot be judged."""


class RequestError(StrokeError):
    """A field of the request is not usable."""


class IntegrityError(StrokeError):
    """The bytes are not those that the caller meant to send."""


class ModelNotFoundError(StrokeError):
    """No such model or version is served."""


class OverloadedError(StrokeError):
    """More requests are waiting than the server accepts."""


class BudgetExceededError(StrokeError):
    """The caller's deadline has passed, or the caller has gone."""


class UnavailableError(StrokeError):
    """The server is not ready, or is stopping."""


class UnauthenticatedError(StrokeError):
    """The caller has not said who it is, or not in a way that is believed."""


class ForbiddenError(StrokeError):
    """The caller is known, and may not do that."""


class ChangeRefusedError(StrokeError):
    """What is served cannot be changed in the way that an administrator wants; it may name files."""


class DisabledError(StrokeError):
    """The server was not started with what is asked for."""


class IncapableModelError(StrokeError):
    """The model that would answer cannot do what is asked for."""


class ModelFileError(StrokeError):
    """A model on disk is missing, damaged, altered or not made for this server.

    The message is one line, whatever a path or a file holds: what cannot be printed is escaped.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message))


def malformed_request() -> RequestError:
    """A message that cannot be read as what it should be."""
    return RequestError("REQUEST_MALFORMED", "The message is not one of this API: check the caller's program.")


def short_of_memory(retry_after: float = MEMORY_SECONDS) -> OverloadedError:
    """The server's fault, and gone in a moment."""
    return OverloadedError(
        "MEMORY_SHORT",
        "The server is short of memory; nothing is wrong with the request. Send it again later, fewer at a time.",
        retry_after=retry_after,
    )
