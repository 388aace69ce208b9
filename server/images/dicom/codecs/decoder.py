"""One decoder process, as the server sees it: started, asked in turn, ended when it does not answer as it should."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from server.images.dicom.codecs.wire import ANSWER, Answer, count_bytes, pack_request
from server.images.dicom.header import FrameShape

ROOT = Path(__file__).resolve().parents[4]
"""What ``python -m`` needs to be in."""

MODULE = "server.images.dicom.codecs.process"
START_SECONDS = 20.0
"""Most that a process may take to start, and again to load a codec, on a busy machine: usually a tenth of a second."""

PASSED_ON = ("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")
"""What a process is told of the environment: a file may take one over, and is not to find passwords there."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""NumPy's library would take memory for a thread of each processor."""

NONSENSE = "answered with nonsense"


class DecoderFailedError(Exception):
    """A process ended, stalled or answered with nonsense; says which, as a part of a sentence."""


class Decoder:
    """A process that decodes. For one thread at a time.

    Attributes:
        is_spent: it has said that another should take its place.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Starts it and waits until it is ready.

        Args:
            command: with its arguments.

        Raises:
            OSError: it cannot be started.
            DecoderFailedError: it was started and is of no use.
        """
        self.is_spent = False
        self._socket, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,  # libraries print what they find odd
                    stderr=subprocess.DEVNULL,
                    cwd=ROOT,
                    env={**environment, **ONE_THREAD},
                )
        except BaseException:
            self._socket.close()
            raise
        try:
            with failures_told(START_SECONDS):
                if self._receive_header(time.monotonic() + START_SECONDS)[0] is not Answer.READY:
                    raise DecoderFailedError(NONSENSE)
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs; somebody else may have ended it."""
        return self._process.poll() is None

    def ask(self, syntax: str, data: bytes, shape: FrameShape, seconds: float) -> tuple[Answer, bytearray]:
        """Lets it decode one frame. After any error it is of no more use.

        Args:
            syntax: UID, one of ``server.images.dicom.codecs.decoders.DECODERS``.
            data: what is to be decoded.
            shape: what that must be.
            seconds: from when it has loaded the codec on.

        Returns:
            How it went, and with ``Answer.WORDS`` exactly as many as ``shape`` says.

        Raises:
            DecoderFailedError: see there.
        """
        with failures_told(START_SECONDS):
            deadline = time.monotonic() + START_SECONDS
            self._wait_until(deadline)
            self._socket.sendall(pack_request(syntax, shape, len(data)))
            answer, length = self._receive_header(deadline)
        if answer is Answer.MISSING and not length:
            return answer, bytearray()
        if answer is not Answer.READY or length:
            raise DecoderFailedError(NONSENSE)
        with failures_told(seconds):
            deadline = time.monotonic() + seconds
            self._wait_until(deadline)
            self._socket.sendall(data)
            answer, length = self._receive_header(deadline)
            if answer is Answer.READY or length != (count_bytes(shape) if answer is Answer.WORDS else 0):
                raise DecoderFailedError(NONSENSE)
            return answer, self._receive(length, deadline)

    def end(self) -> None:
        """Ends it, at once and for good."""
        self._socket.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it is looked after when the next one starts
            self._process.wait(1.0)

    def _wait_until(self, deadline: float) -> None:
        """Lets what comes next on the socket take until then."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def _receive(self, length: int, deadline: float) -> bytearray:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            self._wait_until(deadline)
            if not (count := self._socket.recv_into(view)):
                raise ConnectionError
            view = view[count:]
        return data

    def _receive_header(self, deadline: float) -> tuple[Answer, int]:
        code, self.is_spent, length = ANSWER.unpack(self._receive(ANSWER.size, deadline))
        try:
            return Answer(code), length
        except ValueError:
            raise DecoderFailedError(NONSENSE) from None


@contextmanager
def failures_told(seconds: float) -> Iterator[None]:
    """Makes one kind of error of all that can happen on a process's socket within ``seconds``."""
    try:
        yield
    except TimeoutError:
        raise DecoderFailedError(f"took longer than {seconds:g} s") from None
    except ConnectionError:
        raise DecoderFailedError("ended") from None


def make_command(memory_bytes: int, seconds: float) -> list[str]:
    """The command of a decoder with these limits."""
    return [sys.executable, "-m", MODULE, str(memory_bytes), str(seconds)]
