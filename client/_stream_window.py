"""Which images of ``predict_many`` are read, held, and returned."""

from __future__ import annotations

from ._types import Prediction, PredictionFailure


class Window:
    """The images that were read and whose result was not taken, at most ``in_flight`` of them.

    It is refilled by halves, each of which goes in one message where there is one server: while the server judges the
    one, the other is on its way.
    """

    def __init__(self, in_flight: int, *, ordered: bool) -> None:
        self._kept = in_flight // 2
        self._refill = in_flight - self._kept
        self._ordered = ordered
        self._results: dict[int, Prediction | PredictionFailure] = {}  # not yet taken
        self._held = 0
        self._returned = 0
        self._to_read = 0
        self.next_index = 0
        """Position of the next image to read."""

    @property
    def is_empty(self) -> bool:
        return self._held == 0

    @property
    def is_filled(self) -> bool:
        """True when there is nothing more to read before results are taken, or for the half that was just read."""
        return self._to_read == 0

    @property
    def wants_image(self) -> bool:
        """True when an image may be read."""
        if self._to_read == 0 and self._held <= self._kept:
            self._to_read = self._refill
        return self._to_read > 0

    def admit(self) -> None:
        """Takes the image with ``next_index``."""
        self._held += 1
        self._to_read -= 1
        self.next_index += 1

    def put(self, result: Prediction | PredictionFailure) -> None:
        """Takes the result of an image that was admitted."""
        self._results[result.index] = result

    def take(self) -> Prediction | PredictionFailure | None:
        """Returns the next result, or None as long as there is none."""
        index = self._returned if self._ordered else next(iter(self._results), -1)
        result = self._results.pop(index, None)
        if result is not None:
            self._returned += 1
            self._held -= 1
        return result
