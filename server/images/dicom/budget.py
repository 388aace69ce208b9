"""How much of a file is read: a DICOM file of 8 MiB can hold a million elements, each of which takes time."""

from __future__ import annotations

from server.images.dicom import refusals

MOST_READS = 100_000
"""A data set takes up to three for each of its elements and items: some 500 for a slice, 30 to 130 for each frame of an
enhanced file. At up to 15 us each more would keep a processor busy for longer than a second."""


class ReadBudget:
    """Counts what reading a file takes."""

    def __init__(self, reads: int = MOST_READS) -> None:
        self._left = reads

    def spend(self) -> None:
        """Takes one.

        Raises:
            ImageError: reason DICOM_TOO_LARGE, nothing is left.
        """
        self._left -= 1
        if self._left < 0:
            raise refusals.too_many_elements()
