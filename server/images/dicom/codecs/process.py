"""``python -m server.images.dicom.codecs.process``: a process that decodes frames for the server that has started it.

It takes requests on standard input, which is a socket, and answers on it (``server.images.dicom.codecs.wire``). When
that ends, so does it, and so nothing is left of a server that was killed. What it may use is limited before the first
request: memory, time for each frame, and no files at all.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

from server.images.dicom.codecs.decoders import MismatchError, decode, load
from server.images.dicom.codecs.wire import ANSWER, REQUEST, Answer, unpack_request
from server.machine.memory import read_resident_bytes

CONNECTION = 0
SPENT_BYTES = 128 * 1024 * 1024
"""Resident. GDCM loses what it had taken for a damaged frame (measured with 3.2.6: 0.7 MB for each of 256 x 256)."""

SPARE_SECONDS = 0.5
"""By how much it outlasts the server's patience, which is to end it."""


def limit(memory_bytes: int) -> None:
    """Gives up what decoding does not need; a codec that wants more fails, or the process does."""
    for kind, wanted in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        allowed = resource.getrlimit(kind)[1]
        most = wanted if allowed == resource.RLIM_INFINITY else min(wanted, allowed)
        resource.setrlimit(kind, (most, most))
    # The server decides when this ends, not who stops the server: slices in flight are still to be decoded.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def receive(length: int) -> bytes:
    """Reads so many bytes; what ends before ends this process."""
    data = bytearray(length)
    view = memoryview(data)
    while view:
        if not (count := os.readv(CONNECTION, [view])):
            raise SystemExit(0)
        view = view[count:]
    return bytes(data)


def send(answer: Answer, words: bytes = b"") -> None:
    """Answers a request."""
    is_spent = read_resident_bytes() > SPENT_BYTES  # not the most it had: the kernel counts that of the server in
    for part in (ANSWER.pack(answer, is_spent, len(words)), words):
        view = memoryview(part)
        while view:
            view = view[os.write(CONNECTION, view) :]


def serve_one(seconds: float) -> None:
    """Decodes one frame. Whoever takes longer than that is ended by the kernel, even where nobody is left to do it."""
    syntax, shape, length = unpack_request(receive(REQUEST.size))
    try:
        load(syntax)
    except ImportError:
        send(Answer.MISSING)
        return
    send(Answer.READY)
    data, words = receive(length), b""
    signal.setitimer(signal.ITIMER_REAL, seconds + SPARE_SECONDS)
    try:
        words, answer = decode(syntax, data, shape), Answer.WORDS
    except MismatchError:
        answer = Answer.MISMATCH
    except MemoryError:
        answer = Answer.TOO_LARGE
    except Exception:
        answer = Answer.UNDECODABLE
    send(answer, words)
    signal.setitimer(signal.ITIMER_REAL, 0)


def main(memory_bytes: int, seconds: float) -> None:
    """Serves until nobody asks any more.

    Args:
        memory_bytes: of address space.
        seconds: for one frame.
    """
    limit(memory_bytes)
    send(Answer.READY)
    while True:
        serve_one(seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
