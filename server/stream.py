"""Reading one stream of requests ahead of its answers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Generic, TypeVar

Request = TypeVar("Request")
Response = TypeVar("Response")


class RequestReader(Generic[Request, Response]):
    """Takes requests from a gRPC iterator in a thread of its own, and gives the answers in the same order.

    Needed because waiting for the next request must not hold back the answer to the one before: some callers send the
    next image only when they have read the last answer.
    """

    def __init__(
        self, requests: Iterator[Request], window: int, submit: Callable[[Request], Future[Response]]
    ) -> None:
        """Args:
        requests: blocks until a request arrives; raises when the call has ended.
        window: requests that may be unanswered before no more are taken, at least 2; the rest waits in the network.
        submit: starts the work on one request.
        """
        self._requests = requests
        self._submit = submit
        self._answers: queue.Queue[Future[Response] | None] = queue.Queue(window)
        self._closed = False
        threading.Thread(target=self._read, name="stream-reader", daemon=True).start()

    def _read(self) -> None:
        try:
            for request in self._requests:
                self._answers.put(self._submit(request))
                if self._closed:
                    return
        except Exception:
            # The iterator raises when the caller has gone or the call was ended here; then nobody reads the answers.
            pass
        finally:
            self._answers.put(None)

    def read_answers(self, poll_seconds: float) -> Iterator[Future[Response] | None]:
        """Yields each answer in order, and None whenever nothing has arrived for ``poll_seconds``."""
        while True:
            try:
                answer = self._answers.get(timeout=poll_seconds)
            except queue.Empty:
                yield None
                continue
            if answer is None:
                return
            yield answer

    def close(self) -> None:
        """Lets the thread end and cancels what has not been started.

        Does not wait for the thread: it may sit in ``requests`` until the call itself has ended.
        """
        self._closed = True
        while True:
            try:
                answer = self._answers.get_nowait()
            except queue.Empty:
                return
            if answer is not None:
                answer.cancel()
