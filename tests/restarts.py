"""A real server that is restarted under its callers, and callers who count what becomes of their images."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from client import AsyncStrokeClient, Prediction, PredictionFailure, StrokeClient, StrokeClientError
from tests.fakes import ServerProcess, encode, make_slice, run_server

IMAGE = encode(make_slice())

DRAIN_SECONDS = 3.0
"""What a server gets for its calls in flight; then it drops them."""


class RestartedServer:
    """``python -m server`` on one port, one process after the other."""

    def __init__(self, models: Path) -> None:
        self._models = models
        self._stack = ExitStack()
        self._server = self._start()
        self.address = self._server.address

    def restart(self) -> None:
        """Ends it by SIGTERM, as a service manager does, and starts it again."""
        self.end()
        self.begin()

    def end(self) -> None:
        """Ends it by SIGTERM, and kills what is still there when it should long have finished."""
        process = self._server.process
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(DRAIN_SECONDS + 3)
        self._stack.close()

    def begin(self) -> None:
        """Starts it where it was, and waits until it serves."""
        self._server = self._start("--port", self.address.rsplit(":", 1)[1])

    def close(self) -> None:
        """Kills it."""
        self._stack.close()

    def _start(self, *flags: str) -> ServerProcess:
        return self._stack.enter_context(
            run_server(self._models, "--workers", "2", "--drain-seconds", str(DRAIN_SECONDS), *flags)
        )


@contextmanager
def restarted_server(models: Path) -> Iterator[RestartedServer]:
    """Runs one as long as the block lasts."""
    server = RestartedServer(models)
    try:
        yield server
    finally:
        server.close()


class Callers:
    """Threads that send images until they are told to stop, in each of the ways that the clients have."""

    def __init__(self, address: str, *, threads: int = 4, timeout: float = 10.0) -> None:
        self._address = address
        self._timeout = timeout
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.answered: Counter[str] = Counter()
        """Images that were answered, by way."""

        self.failures: list[str] = []
        """What failed, with its way."""

        ways = (self._call, self._stream, self._call_in_loop, self._stream_in_loop)
        self._threads = [threading.Thread(target=self._run, args=(way,)) for way in ways for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lets them finish what is on its way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self, way: Callable[[], None]) -> None:
        try:
            way()
        except Exception as error:
            self._count(way.__name__, error)

    def _count(self, way: str, outcome: object) -> None:
        if isinstance(outcome, PredictionFailure):
            outcome = outcome.error
        with self._lock:
            if isinstance(outcome, Prediction):
                self.answered[way] += 1
            else:
                reason = outcome.reason if isinstance(outcome, StrokeClientError) else ""
                self.failures.append(f"{way}: {reason} {outcome!r}")

    def _images(self) -> Iterator[bytes]:
        while not self._stopping.is_set():
            yield IMAGE

    def _call(self) -> None:
        with StrokeClient(self._address, timeout=self._timeout) as client:
            for image in self._images():
                try:
                    self._count("_call", client.predict(image))
                except StrokeClientError as error:
                    self._count("_call", error)

    def _stream(self) -> None:
        with StrokeClient(self._address, timeout=self._timeout) as client:
            for index, result in enumerate(client.predict_many(self._images())):
                assert result.index == index
                self._count("_stream", result)

    def _call_in_loop(self) -> None:
        async def run() -> None:
            async with AsyncStrokeClient(self._address, timeout=self._timeout) as client:
                for image in self._images():
                    try:
                        self._count("_call_in_loop", await client.predict(image))
                    except StrokeClientError as error:
                        self._count("_call_in_loop", error)

        asyncio.run(run())

    def _stream_in_loop(self) -> None:
        async def run() -> None:
            async with AsyncStrokeClient(self._address, timeout=self._timeout) as client:
                index = 0
                async for result in client.predict_many(self._images()):
                    assert result.index == index
                    index += 1
                    self._count("_stream_in_loop", result)

        asyncio.run(run())
