"""The errors of the client, and the only table from gRPC codes to them. ``grpc.RpcError`` never leaves the package.

    StrokeClientError             the one to catch
    ├── InvalidImageError         the image is at fault: not an image, damaged, of an unsuitable kind
    │   ├── ImageReadError        its bytes could not be read here
    │   └── ImageTooLargeError    more bytes or pixels than is accepted
    ├── InvalidRequestError       another part of the request is at fault
    ├── IntegrityError            the bytes judged are not the bytes sent, or an answer belongs to another request
    ├── ModelNotFoundError        no such model or version is served
    ├── OverloadedError           the server is busy: try again later
    ├── DeadlineExceededError     no answer in time
    ├── ServerUnavailableError    no server answers, or it is starting or stopping
    ├── AuthenticationError       one side does not accept who the other is: token, certificates
    ├── ServerError               the server failed, or answered what it should not
    └── ClientClosedError         the client was used after ``close()``

    code                 error                    code                  error
    1 CANCELLED          ServerUnavailableError   9  FAILED_PRECONDITION ServerError
    2 UNKNOWN            ServerError              10 ABORTED             ServerError
    3 INVALID_ARGUMENT   InvalidRequestError (*)  11 OUT_OF_RANGE        InvalidRequestError
    4 DEADLINE_EXCEEDED  DeadlineExceededError    12 UNIMPLEMENTED       ServerError
    5 NOT_FOUND          ModelNotFoundError       13 INTERNAL            ServerError
    6 ALREADY_EXISTS     ServerError              14 UNAVAILABLE         ServerUnavailableError
    7 PERMISSION_DENIED  AuthenticationError      15 DATA_LOSS           IntegrityError
    8 RESOURCE_EXHAUSTED OverloadedError (**)     16 UNAUTHENTICATED     AuthenticationError

(*) With a reason IMAGE_... or DICOM_... it is an InvalidImageError, with IMAGE_TOO_LARGE an ImageTooLargeError.
(**) A study with more than the server takes (STUDY_TOO_LARGE) is an ImageTooLargeError; so is a message that gRPC
itself refused above a size limit (an answer: a ServerError).

A connection that cannot be made is UNAVAILABLE to gRPC whatever the cause. ``client.tls.probe`` tells the causes in TLS
apart; its docstring has their reasons.
"""

from __future__ import annotations

import math
import os
import re
from typing import Any, NamedTuple

REASON_KEY = "stroke-reason"
"""Trailing metadata in which the server states its machine-readable reason."""

RETRY_KEY = "grpc-retry-pushback-ms"
"""Trailing metadata in which the server states after how many milliseconds the same call is welcome: gRPC's own (gRFC
A6), so that callers in other languages honour it without knowing us."""


class StrokeClientError(Exception):
    """Base of all errors of the client. ``str()`` gives a sentence that says what happened and what to do.

    Attributes:
        reason: machine-readable, UPPER_SNAKE: the server's own where it stated one, otherwise made by the client.
        code: name of the gRPC code, for example ``INVALID_ARGUMENT``; None when no server was involved.
        request_id: identifies the request in the server's log; None when there was no request.
        retry_after: seconds after which the server takes the same call again, as it said itself; None: it did not
            say; infinite: it asks not to be called again.
    """

    def __init__(
        self,
        message: str,
        reason: str,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, reason, code, request_id, retry_after)  # all of them, so that it survives pickling
        self.message = message
        self.reason = reason
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message


class InvalidImageError(StrokeClientError):
    """The image is at fault: not an image, damaged, or of a kind that cannot be judged."""


class ImageReadError(InvalidImageError):
    """The bytes of the image could not be read on this side."""


class ImageTooLargeError(InvalidImageError):
    """The image has more bytes or pixels than is accepted, or the study more slices or bytes."""


class InvalidRequestError(StrokeClientError):
    """A part of the request other than the image is at fault."""


class IntegrityError(StrokeClientError):
    """The bytes judged are not the bytes sent, or an answer belongs to another request."""


class ModelNotFoundError(StrokeClientError):
    """No such model or version is served."""


class OverloadedError(StrokeClientError):
    """The server is busy; the same call may succeed later."""


class DeadlineExceededError(StrokeClientError):
    """There was no answer in time."""


class ServerUnavailableError(StrokeClientError):
    """No server answers, or it is starting or stopping."""


class AuthenticationError(StrokeClientError):
    """One side does not accept who the other is: a token or a certificate, missing, expired or unknown.

    Trying again does not help; somebody has to change a setting or a file."""


class ServerError(StrokeClientError):
    """The server failed, or answered what it should not."""


class ClientClosedError(StrokeClientError):
    """The client, or the channel that it was given, was used after ``close()``."""


for _error in [StrokeClientError, *StrokeClientError.__subclasses__(), *InvalidImageError.__subclasses__()]:
    _error.__module__ = __package__  # tracebacks name an error as users import it

_CODES: dict[int, tuple[str, type[StrokeClientError], str, str]] = {
    1: ("CANCELLED", ServerUnavailableError, "SERVER_STOPPED", "the server at {target} dropped the request: try again"),
    2: ("UNKNOWN", ServerError, "SERVER_FAILED", "the server at {target} failed: its log may say why"),
    3: ("INVALID_ARGUMENT", InvalidRequestError, "REQUEST_REFUSED", "the server at {target} refused the request"),
    4: (
        "DEADLINE_EXCEEDED",
        DeadlineExceededError,
        "DEADLINE_EXCEEDED",
        "no answer from {target} in time: allow more time, or see why it is slow",
    ),
    5: ("NOT_FOUND", ModelNotFoundError, "NOT_FOUND", "the server at {target} has no such model: ask which it serves"),
    6: ("ALREADY_EXISTS", ServerError, "UNEXPECTED_STATUS", "the server at {target} refused the request"),
    7: (
        "PERMISSION_DENIED",
        AuthenticationError,
        "PERMISSION_DENIED",
        "the server at {target} does not allow this: ask its operator for access",
    ),
    8: ("RESOURCE_EXHAUSTED", OverloadedError, "SERVER_BUSY", "the server at {target} is busy: try again later"),
    9: ("FAILED_PRECONDITION", ServerError, "UNEXPECTED_STATUS", "the server at {target} is not able to do this now"),
    10: ("ABORTED", ServerError, "SERVER_ABORTED", "the server at {target} gave the request up: try again"),
    11: ("OUT_OF_RANGE", InvalidRequestError, "REQUEST_REFUSED", "the server at {target} refused the request"),
    12: (
        "UNIMPLEMENTED",
        ServerError,
        "CALL_UNKNOWN",
        "what answers at {target} does not know this call: is it a StrokeServe of the same version?",
    ),
    13: ("INTERNAL", ServerError, "SERVER_FAILED", "the server at {target} failed: its log may say why"),
    14: ("UNAVAILABLE", ServerUnavailableError, "SERVER_UNAVAILABLE", "the server at {target} went away: try again"),
    15: ("DATA_LOSS", IntegrityError, "IMAGE_ALTERED", "the image changed on its way to {target}: send it again"),
    16: (
        "UNAUTHENTICATED",
        AuthenticationError,
        "UNAUTHENTICATED",
        "the server at {target} wants credentials: ask its operator",
    ),
}

_TOO_LARGE_STUDY = "STUDY_TOO_LARGE"

_PASSING = {"UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"}

_NOT_CONNECTED = "(failed to connect|connections to all backends failing)"

# gRPC tells these apart only in its text: patterns. The order matters, the first are found in messages with the last.
_NO_CONNECTION = (
    ("http1.x server", "NOT_A_GRPC_SERVER", "what answers at {target} is no StrokeServe server: check the port"),
    ("Failed parsing HTTP/2", "NOT_A_GRPC_SERVER", "what answers at {target} is no StrokeServe server: check the port"),
    ("errors resolving", "HOST_UNKNOWN", "the host of {target} is not known: check the address"),
    ("backend unhealthy", "SERVER_NOT_READY", "no server at {target} is ready: wait, or see its log"),
    (
        "tcp handshaker shutdown",  # gRPC's limit of one attempt to connect
        "SERVER_UNREACHABLE",
        "nothing answers at {target}: is the machine on, and does a firewall let this port through?",
    ),
    (
        "No such file or directory",
        "SERVER_UNREACHABLE",
        "there is no socket {target}: is the server running, and does it listen there?",
    ),
    (
        f"{_NOT_CONNECTED}.*(Socket closed|handshake failed|check failed|reset by peer)",
        "CONNECTION_FAILED",
        "what answers at {target} does not connect: check the port, and TLS on both sides (--tls-ca, --tls-cert)",
    ),
    (_NOT_CONNECTED, "SERVER_UNREACHABLE", "no server answers at {target}: is it running (python -m server)?"),
    (
        "RST_STREAM.*error code 7",  # REFUSED_STREAM: not read by the server, let alone judged
        "CONNECTION_BUSY",
        "the server at {target} takes no more calls at a time on one connection: try again, fewer at a time",
    ),
)

_NO_TARGET = re.compile("Failed to create (channel|XdsClient)|Illegal status code from resolver")
"""What gRPC says of an address that it cannot read: it has not looked for a server."""

_FAILED_BY_OTHERS = re.compile(f"{_NOT_CONNECTED}|Failed parsing HTTP/2|http1.x server")
_ABSENT = re.compile("refused|errors resolving|No such file|timed out|handshaker shutdown|unhealthy|unreachable", re.I)
"""What gRPC says where nobody is."""

_TOO_MANY_CALLS = "Concurrent RPC limit exceeded"
"""gRPC's text for a server with more calls than it was set to take; it gives no reason and no hint."""

_WRITE_FAILED = "Internal error from Core"
"""What grpc.aio says, as INTERNAL and in place of the true status, where a message was written as the call ended."""

_TOO_LARGE = re.compile(r"(CLIENT: )?(Sent|Received) message larger than max(?: \((\d+) vs\. (\d+)\))?")


def error_from_status(
    number: int,
    reason: str | None,
    details: str,
    *,
    target: str,
    request_id: str | None = None,
    retry_after: float | None = None,
) -> StrokeClientError:
    """Returns the error for a gRPC status.

    Args:
        number: canonical gRPC code; one that is not known counts as UNKNOWN.
        reason: what the server stated, or None or empty when the status was made by gRPC and not by the server.
        details: text of the status: the server's sentence when there is a reason, otherwise gRPC's jargon.
        target: address of the server, for the message.
        request_id: id of the request that failed.
        retry_after: the server's hint, in seconds.
    """
    if number == 13 and not reason and details == _WRITE_FAILED:
        number = 14
    code, kind, made_reason, sentence = _CODES.get(number, _CODES[2])
    if reason:
        if number == 8 and reason == _TOO_LARGE_STUDY:
            kind = ImageTooLargeError
        if number == 3 and reason.startswith(("IMAGE_", "DICOM_")):
            kind = ImageTooLargeError if reason == "IMAGE_TOO_LARGE" else InvalidImageError
        return kind(details or sentence.format(target=target), reason, code, request_id, retry_after)
    if _NO_TARGET.match(details):
        why = f"gRPC cannot use the address {target}: check it ({details})"
        return ServerUnavailableError(why, "HOST_UNKNOWN", code, request_id)
    if number == 14:
        for pattern, connection_reason, connection_sentence in _NO_CONNECTION:
            if re.search(pattern, details):
                return kind(connection_sentence.format(target=target), connection_reason, code, request_id)
    if number == 8 and (match := _TOO_LARGE.search(details)) is not None:
        return _explain_size(match, target, code, request_id)
    message = sentence.format(target=target)
    if details and number != 4:  # "Deadline Exceeded" would say it twice
        message += f" ({details})"
    if number == 8 and retry_after is None and details.startswith(_TOO_MANY_CALLS):
        retry_after = 0.0
    return kind(message, made_reason, code, request_id, retry_after)


def _explain_size(match: re.Match[str], target: str, code: str, request_id: str | None) -> StrokeClientError:
    """Returns the error for a message that gRPC refused, by the limit of whose side it was."""
    of_client, direction, size, limit = match.groups()
    figures = "" if size is None else f" ({size} bytes, limit {limit})"
    if of_client is None:
        return ImageTooLargeError(
            f"the image is far larger than the server at {target} accepts{figures}: send a smaller one, or start the "
            "server with a larger --max-image-bytes (it refuses messages of three times that)",
            "IMAGE_TOO_LARGE",
            code,
            request_id,
        )
    if direction == "Sent":
        return ImageTooLargeError(
            f"the image is larger than this client's channel sends{figures}: raise grpc.max_send_message_length where "
            "the channel is made",
            "IMAGE_TOO_LARGE",
            code,
            request_id,
        )
    return ServerError(
        f"the answer of {target} is larger than this client's channel takes{figures}: raise "
        "grpc.max_receive_message_length where the channel is made",
        "ANSWER_TOO_LARGE",
        code,
        request_id,
    )


class _Status(NamedTuple):
    """What a ``grpc.RpcError`` says."""

    number: int = 2
    details: str = ""
    reason: str | None = None
    """Stated by the server; None where gRPC made the status."""

    retry_after: float | None = None


def _read_status(error: Any) -> _Status:
    if not callable(getattr(error, "code", None)):  # a bare RpcError, as an interceptor may raise it, has no status
        return _Status(details=type(error).__name__)
    trailing = dict(error.trailing_metadata() or ())
    retry_after = _read_hint(trailing.get(RETRY_KEY))
    return _Status(error.code().value[0], error.details() or "", trailing.get(REASON_KEY), retry_after)


def error_from_rpc(error: Any, *, target: str, request_id: str | None = None) -> StrokeClientError:
    """Returns the error for a ``grpc.RpcError``. Nothing of gRPC is called but the error's own methods.

    Raise it outside of the ``except`` block: then no frame of gRPC is in the traceback that users see. With
    STROKE_TRACEBACK=1 in the environment the original becomes its cause.

    Args:
        error: what a call of ``grpc`` or ``grpc.aio`` raised.
        target: address of the server, for the message.
        request_id: id of the request that failed.
    """
    status = _read_status(error)
    failure = error_from_status(
        status.number,
        status.reason,
        status.details,
        target=target,
        request_id=request_id,
        retry_after=status.retry_after,
    )
    if os.environ.get("STROKE_TRACEBACK") == "1":
        failure.__cause__ = error
    return failure


def _read_hint(text: str | bytes | None) -> float | None:
    """Returns the server's hint in seconds. What is no number says, as a negative one does, not to come again (gRFC
    A6)."""
    if text is None:
        return None
    try:
        milliseconds = int(text)
    except ValueError:
        return math.inf
    return milliseconds / 1000 if milliseconds >= 0 else math.inf


def needs_look(error: Any) -> bool:
    """True when only a look at the server (``client.tls.probe``) tells why there is no connection: something was there,
    and gRPC does not say what."""
    status = _read_status(error)
    return (
        status.number == 14
        and not status.reason
        and _FAILED_BY_OTHERS.search(status.details) is not None
        and _ABSENT.search(status.details) is None
    )


def may_pass(error: StrokeClientError) -> bool:
    """True when the same call may succeed later though nobody changes anything: the server was away or busy.

    A certificate that is not accepted is UNAVAILABLE to gRPC, too, and does not pass.
    """
    return error.code in _PASSING and not isinstance(error, AuthenticationError | ImageTooLargeError)


def error_from_unknown_host(target: str) -> ServerUnavailableError:
    return ServerUnavailableError(f"no host of {target} is known: check the address", "HOST_UNKNOWN")


def error_from_closed(target: str) -> ClientClosedError:
    return ClientClosedError(f"the client of {target} is closed: make a new one", "CLIENT_CLOSED")
