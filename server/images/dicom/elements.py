"""The elements of a DICOM data set, read by pydicom with bounds around it and taken as plain values.

pydicom finds where elements lie; the few that are asked for are converted here. Its own conversion would quote values,
so possibly names, in warnings and logs, and cost more than all the rest. Pixels are not read, only found.
"""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from collections.abc import Callable, Collection
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_sequence

from server.errors import ImageError
from server.images.dicom import refusals
from server.images.dicom.budget import ReadBudget
from server.images.dicom.signature import is_implicit

logging.getLogger("pydicom").disabled = True
warnings.filterwarnings("ignore", module=r"pydicom\.")

MOST_CHARACTERS = 256
"""Longest text that is looked at, in bytes."""

DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
UID = re.compile(r"[0-9.]{1,64}")


class BoundedReader(io.BytesIO):
    """Bytes as a file that counts how often it is read, and knows whether it ended in the middle of a value."""

    def __init__(self, data: bytes, budget: ReadBudget) -> None:
        super().__init__(data)
        self._size = len(data)
        self._spend = budget.spend
        self._has_stopped_short = False

    @property
    def is_at_end(self) -> bool:
        """Whether all has been read."""
        return self.tell() >= self._size

    @property
    def is_cut(self) -> bool:
        """Whether more was to be read or skipped than there is."""
        return self._has_stopped_short or self.tell() > self._size

    def read(self, size: int | None = -1, /) -> bytes:
        self._spend()
        found = super().read(size)
        if size is not None and 0 < len(found) < size:
            self._has_stopped_short = True
        return found


class Elements:
    """A data set, or an item of a sequence in one. What is absent, or not of the kind asked for, is empty or None."""

    def __init__(self, dataset: Dataset, budget: ReadBudget) -> None:
        self._dataset = dataset
        self._budget = budget

    def __contains__(self, tag: int) -> bool:
        return tag in self._dataset

    def value(self, tag: int) -> bytes:
        """The bytes of an element as they stand in the file.

        Raises:
            ImageError: it ends before its length is reached.
        """
        element: Any = self._dataset.get_item(tag, keep_deferred=True)
        if not isinstance(element, RawDataElement) or not element.value:
            return b""
        if len(element.value) != element.length:
            raise refusals.damaged()
        return element.value

    def texts(self, tag: int) -> tuple[str, ...]:
        """The values of an element of text (PS3.5, 6.2), without the spaces around them."""
        text = self.value(tag)[:MOST_CHARACTERS].decode("utf-8", "replace")
        return tuple(part.strip(" \0") for part in text.split("\\")) if text.strip(" \0") else ()

    def text(self, tag: int) -> str:
        """The first of them."""
        return next(iter(self.texts(tag)), "")

    def uid(self, tag: int) -> str:
        """A unique identifier; empty for anything else."""
        text = self.text(tag)
        return text if UID.fullmatch(text) else ""

    def numbers(self, tag: int) -> tuple[float, ...]:
        """The values of an element of decimal strings, all finite; none where one of them is no number."""
        texts = self.texts(tag)
        if not all(DECIMAL.fullmatch(text) for text in texts):
            return ()
        values = tuple(map(float, texts))
        return values if all(map(math.isfinite, values)) else ()

    def number(self, tag: int) -> float | None:
        """The first of them."""
        return next(iter(self.numbers(tag)), None)

    def integer(self, tag: int) -> int | None:
        """An unsigned number of 16 bits."""
        value = self.value(tag)
        return int.from_bytes(value, "little") if len(value) == 2 else None

    def items(self, tag: int) -> list[Elements]:
        """The items of a sequence.

        Raises:
            ImageError: it is damaged.
        """
        element: Any = self._dataset.get_item(tag, keep_deferred=True)
        if isinstance(element, RawDataElement):
            return read_items(self.value(tag), element.is_implicit_VR, self._budget)
        found = element.value if element is not None and element.VR == "SQ" else []
        return [Elements(item, self._budget) for item in found]


def read_items(data: bytes, implicit: bool, budget: ReadBudget) -> list[Elements]:
    """Reads items, one after another.

    Args:
        data: the bytes from the first one's header to the last one's end.
        implicit: elements do not say how their values are represented.
        budget: of the file.

    Raises:
        ImageError: as ``read_elements``.
    """
    reader = BoundedReader(data, budget)
    items = guard(reader, lambda: read_sequence(reader, implicit, True, len(data), "latin_1"))
    return [Elements(item, budget) for item in items]


def read_elements(
    data: bytes, start: int, tags: Collection[int], stops: Callable[[int], bool], budget: ReadBudget
) -> tuple[Elements, BoundedReader]:
    """Reads a little-endian data set up to an element.

    Args:
        data: the file.
        start: where the data set begins.
        tags: the elements to keep.
        stops: whether to end before an element, by its tag.
        budget: of the file.

    Returns:
        What was kept, and the file, standing before the element that ended it or at its end.

    Raises:
        ImageError: reasons DICOM_DAMAGED, DICOM_TRUNCATED, DICOM_TOO_LARGE.
    """
    reader = BoundedReader(data, budget)
    reader.seek(start)
    # What is found and not what the file says of itself, which is wrong now and then.
    implicit = is_implicit(data[start : start + 6])

    def stop(tag: int, vr: str | None, length: int) -> bool:
        return stops(tag)

    dataset = guard(reader, lambda: read_dataset(reader, implicit, True, stop_when=stop, specific_tags=[*tags]))
    return Elements(dataset, budget), reader


def guard(reader: BoundedReader, read: Callable[[], Any]) -> Any:
    """Calls pydicom, for which any bytes may be too much: whatever it raises, the file is damaged or ends early."""
    try:
        return read()
    except (MemoryError, ImageError):
        raise
    except Exception:
        raise (refusals.truncated() if reader.is_at_end else refusals.damaged()) from None
