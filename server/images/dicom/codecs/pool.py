"""Decodes compressed slices in processes of their own, and so neither holds nor loses the process that asks.

All codecs hold Python's lock while they work: a JPEG 2000 slice would keep every other call of a server waiting for
30 ms. And they are large programs in C that read whatever a file says. A process that crashes, takes too long, wants
too much memory or answers with nonsense costs the slice that did it, and nothing else: the next one has a new process.

Processes are started when first needed, and stay: 20 to 40 MB each with one codec, 60 MB with all.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial

from server.errors import ImageError, OverloadedError, UnavailableError
from server.images.dicom import refusals
from server.images.dicom.codecs.decoder import Decoder, DecoderFailedError, make_command
from server.images.dicom.codecs.wire import Answer
from server.images.dicom.header import FrameShape
from server.images.dicom.syntax import COMPRESSED
from server.machine.processors import count_processors

logger = logging.getLogger(__name__)

MEMORY_BYTES = 512 * 1024 * 1024
"""Address space of a decoder process, libraries included."""

SECONDS = 2.0
"""For one frame: sixty times what 512 x 512 in JPEG 2000 takes."""

WAIT_SECONDS = 10.0
"""Most that a frame waits for a decoder: others have theirs for ``SECONDS`` at most."""

RETRY_SECONDS = 1.0


REFUSALS: dict[Answer, Callable[[str], ImageError]] = {
    Answer.UNDECODABLE: refusals.undecodable,
    Answer.MISMATCH: refusals.contradictory,
    Answer.MISSING: partial(refusals.no_decoder, can_be_installed=True),
    Answer.TOO_LARGE: refusals.too_costly,
}
"""What callers learn of an answer without pixels; each takes the name of the transfer syntax."""


class DecoderPool:
    """Decoder processes, at most so many. Safe to call from many threads."""

    def __init__(
        self,
        most: int = 0,
        *,
        command: Sequence[str] = (),
        seconds: float = SECONDS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """Starts nothing.

        Args:
            most: processes; 0: one for each processor.
            command: what is started; a decoder with ``MEMORY_BYTES`` unless given.
            seconds: for one frame.
            wait_seconds: most that a frame waits for a free process.
        """
        self.most = most or count_processors()
        self.failures = 0
        """Processes that failed at a frame, ever."""

        self._command = command or make_command(MEMORY_BYTES, seconds)
        self._seconds = seconds
        self._wait_seconds = wait_seconds
        self._changed = threading.Condition()
        self._free: list[Decoder] = []
        self._taken = 0

    def decode(self, syntax: str, data: bytes, shape: FrameShape) -> bytearray:
        """Decodes one frame.

        Args:
            syntax: UID of its transfer syntax.
            data: as it is encoded.
            shape: what its header says.

        Returns:
            As ``server.images.dicom.codecs.decoders.decode``.

        Raises:
            ImageError: reasons DICOM_UNDECODABLE, DICOM_NO_DECODER.
            UnavailableError: reason DICOM_DECODER_UNAVAILABLE, no process can be started.
            OverloadedError: reason DICOM_DECODERS_BUSY, none was free in time.
        """
        decoder = self._take()
        try:
            answer, words = decoder.ask(syntax, data, shape, self._seconds)
        except DecoderFailedError as error:
            self._drop(decoder)
            with self._changed:
                self.failures += 1
            logger.warning(
                "a decoder of DICOM slices %s and was replaced: %s, %d bytes; %d since the start",
                *(error, COMPRESSED[syntax], len(data), self.failures),
            )
            raise refusals.undecodable(COMPRESSED[syntax]) from None
        except BaseException:  # its answer would be taken for that of the next frame
            self._drop(decoder)
            raise
        if decoder.is_spent:
            self._drop(decoder)
        else:
            self._release(decoder)
        if answer is not Answer.WORDS:
            raise REFUSALS[answer](COMPRESSED[syntax])
        return words

    def close(self) -> None:
        """Ends the processes that are free."""
        with self._changed:
            free, self._free = self._free, []
        for decoder in free:
            decoder.end()

    def _take(self) -> Decoder:
        """Returns a decoder that nobody else has. Raises as ``decode``."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._taken < self.most, self._wait_seconds):
                raise OverloadedError(
                    "DICOM_DECODERS_BUSY",
                    "More compressed DICOM slices come than can be decoded: try again in a moment.",
                    retry_after=RETRY_SECONDS,
                )
            self._taken += 1
            free = self._free.pop() if self._free else None
        try:
            if free is not None and free.is_alive:
                return free
            if free is not None:
                free.end()
            return Decoder(self._command)
        except (OSError, DecoderFailedError) as error:
            self._release(None)
            why = error.strerror if isinstance(error, OSError) else f"it {error}"
            logger.error("no decoder of compressed DICOM slices can be started: %s", why)
            raise UnavailableError(
                "DICOM_DECODER_UNAVAILABLE",
                "The server cannot start what decodes compressed DICOM files. Send them uncompressed, or try again in "
                "a moment.",
                retry_after=RETRY_SECONDS,
            ) from None
        except BaseException:
            self._release(None)
            raise

    def _drop(self, decoder: Decoder) -> None:
        decoder.end()
        self._release(None)

    def _release(self, decoder: Decoder | None) -> None:
        """Makes room for the next one, with a decoder that is free now, if there is one."""
        with self._changed:
            if decoder is not None:
                self._free.append(decoder)
            self._taken -= 1
            self._changed.notify()
