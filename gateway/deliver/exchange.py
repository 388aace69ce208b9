"""One request over HTTP, bounded in time and in what is read of the answer, whoever the other side is."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from gateway.deliver.destination import DeliveryError

WAIT_SECONDS = 60.0
"""Between two pieces of what the other side sends."""

CONNECT_SECONDS = 10.0
EXCHANGE_SECONDS = 300.0
"""For a whole exchange: one that sends a byte a minute is not waited for."""

PIECE_BYTES = 1 << 16
MOST_ANSWER_BYTES = 1 << 20

Result = TypeVar("Result")

PASSING = frozenset((401, 403, 404, 407, 408, 425, 429))
"""Statuses below 500 that are about who asks, where, or when: somebody or something will change that. The others are
about the objects."""


class NoAnswerError(Exception):
    """There is no whole answer; the message says why, and has nothing of its content."""


class Answer:
    """An answer whose body has yet to be read.

    Args:
        response: where its head has been read of.
        watch: ends it when its time is over.
    """

    def __init__(self, response: http.client.HTTPResponse, watch: Watch) -> None:
        self._response, self._watch = response, watch
        self.status = response.status

    def read_header(self, name: str) -> str:
        """A header, empty where there is none."""
        return self._response.headers.get(name) or ""

    def read_pieces(self) -> Iterator[bytes]:
        """The body, piece by piece.

        Raises:
            NoAnswerError: it ends before it should, or takes too long.
        """
        while piece := self._watch.guard(lambda: self._response.read(PIECE_BYTES)):
            yield piece
        if self._response.length:  # which http.client does not tell when it is asked for pieces
            raise NoAnswerError("the answer ended before its end")

    def read(self, most: int = MOST_ANSWER_BYTES) -> bytes:
        """The body, or its beginning where it is longer than ``most`` bytes."""
        body = bytearray()
        for piece in self.read_pieces():
            body += piece
            if len(body) >= most:
                break
        return bytes(body[:most])


class Watch:
    """Ends an exchange when its time is over, whatever it waits for: timeouts of a socket are for each piece alone."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock, self._seconds, self._is_over = sock, seconds, False
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        self._is_over = True
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # below TLS, which another thread is in

    def guard(self, step: Callable[[], Result]) -> Result:
        """Does a step of the exchange.

        Raises:
            NoAnswerError: it failed, or the time is over.
        """
        try:
            done = step()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._explain(error) from None
        if self._is_over:
            raise self._explain(None)
        return done

    def _explain(self, error: Exception | None) -> NoAnswerError:
        if self._is_over:
            return NoAnswerError(f"the answer took longer than {self._seconds:g} s")
        return NoAnswerError(f"it cannot be reached ({type(error).__name__})")

    def close(self) -> None:
        """Stops watching."""
        self._timer.cancel()
        self._timer.join()


@contextmanager
def ask(
    method: str,
    url: str,
    body: bytes | None,
    headers: Mapping[str, str],
    *,
    ca: Path | None,
    token: Path | None,
    seconds: float = EXCHANGE_SECONDS,
) -> Iterator[Answer]:
    """Asks, and gives the answer, whatever its status: what is answered from elsewhere is not asked for there, since it
    would be asked with the token.

    Args:
        method: such as GET.
        url: what is asked for. No proxy is used: this box talks to whom it was told to.
        body: what is sent; None: nothing.
        headers: with it.
        ca: authorities that may vouch for the other side; None: those of this machine.
        token: file with a bearer token, read anew each time.
        seconds: for the whole exchange.

    Raises:
        NoAnswerError: there is no answer.
    """
    parts = urlsplit(url)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    headers = dict(headers)
    try:
        if token is not None:
            headers["Authorization"] = f"Bearer {token.read_text('ascii').strip()}"
        context = ssl.create_default_context(cafile=ca) if parts.scheme == "https" else None
    except (OSError, ValueError):
        raise NoAnswerError("the token's file, or that of the authorities, cannot be read") from None
    try:
        host, port = parts.hostname or "", parts.port or (443 if context else 80)
        sock = socket.create_connection((host, port), CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise NoAnswerError(f"it cannot be reached ({type(error).__name__})") from None
    with sock:
        sock.settimeout(WAIT_SECONDS)
        with _secure(sock, context, host) as channel:
            watch = Watch(channel, seconds)
            try:
                if isinstance(channel, ssl.SSLSocket):
                    watch.guard(channel.do_handshake)
                connection = (http.client.HTTPSConnection if context else http.client.HTTPConnection)(host, port)
                connection.sock = channel
                watch.guard(lambda: connection.request(method, path, body, headers))
                response = watch.guard(connection.getresponse)
                with response:
                    yield Answer(response, watch)
            finally:
                watch.close()


def _secure(sock: socket.socket, context: ssl.SSLContext | None, host: str) -> socket.socket:
    """The socket, or TLS on it, whose handshake has yet to be made."""
    if context is None:
        return sock
    return context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)


def post(
    url: str, body: bytes, headers: Mapping[str, str], *, ca: Path | None, token: Path | None
) -> tuple[int, bytes]:
    """Posts a body; returns the status and the beginning of the answer.

    Raises:
        DeliveryError: there is no answer.
    """
    try:
        with ask("POST", url, body, headers, ca=ca, token=token) as answer:
            return answer.status, answer.read()
    except NoAnswerError as error:
        raise DeliveryError(str(error)) from None


def make_status_error(status: int) -> DeliveryError:
    """The error of an answer whose status is none of success."""
    is_refusal = 400 <= status < 500 and status not in PASSING
    return DeliveryError(f"it answered with HTTP status {status}", is_refusal=is_refusal)
