"""Forms (multipart/form-data), taken apart as they come. Nothing of one touches the disk, and names of files are not
even read: they may name patients."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from server.errors import RequestError, StrokeError

# It would write what it finds in a form that is damaged, and a line for each.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL + 1)

Pairs: TypeAlias = tuple[tuple[str, str], ...]

FILE = "file"
"""The field of an image, as the paper's clients send it."""

MOST_BOUNDARY_BYTES = 70
"""RFC 2046, 5.1.1."""

MOST_OPTION_BYTES = 1024
MOST_PART_HEADERS = 16
MOST_PARTS_BESIDE = 16
"""Parts of a form that are no images."""


@dataclass(frozen=True)
class Form:
    """What a form holds."""

    files: tuple[bytes, ...]
    options: Pairs


class Part:
    """A part of a form.

    Attributes:
        name: of its field.
    """

    def __init__(self) -> None:
        self.name = ""
        self._content: memoryview | bytearray = memoryview(b"")

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return len(self._content)

    def add(self, piece: memoryview) -> None:
        """Takes more of it. What comes in one piece is not copied; several are put together in one block of memory,
        which is how those that count what arrives tell it from others."""
        if not self._content:
            self._content = piece
            return
        if isinstance(self._content, memoryview):
            self._content = bytearray(self._content)
        self._content += piece

    def join(self) -> bytes:
        """Its bytes."""
        return bytes(self._content)

    def read_option(self) -> str:
        """Its text.

        Raises:
            RequestError: reason OPTION_INVALID.
        """
        try:
            return self.join().decode("utf-8")
        except UnicodeDecodeError:
            raise RequestError("OPTION_INVALID", f"The field {self.name[:100]!r} is no text.") from None


class FormReader:
    """Takes one form apart, piece by piece."""

    def __init__(self, boundary: bytes, most_parts: int, most_bytes: int, refuse: Callable[[], StrokeError]) -> None:
        """Begins with a form.

        Args:
            boundary: between its parts.
            most_parts: that it may have.
            most_bytes: that a file may have.
            refuse: makes the error of a form with more parts.
        """
        self._mark = b"--" + boundary
        self._marks_left = most_parts + 1  # the last one ends it
        self._tail = b""
        self._most_bytes = most_bytes
        self._refuse = refuse
        self._part: Part | None = None
        self._complete: list[Part] = []
        self._headers: dict[bytes, bytes] = {}
        self._key, self._value = bytearray(), bytearray()
        self._has_ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._key.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._take,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
            max_header_count=MOST_PART_HEADERS,
        )

    @property
    def size(self) -> int:
        """Bytes of the part that is on its way."""
        return self._part.size if self._part else 0

    def feed(self, data: bytes) -> list[Part]:
        """Takes a piece, and returns the parts that are complete with it.

        Raises:
            RequestError: reasons REQUEST_MALFORMED, OPTION_INVALID, MESSAGE_TOO_LARGE.
            StrokeError: that of ``refuse``.
        """
        seen = self._tail + data if self._tail else data
        self._marks_left -= seen.count(self._mark)  # what is no end of a part takes the parser time, too
        if self._marks_left < 0:
            raise self._refuse()
        self._tail = seen[1 - len(self._mark) :]
        try:
            self._parser.write(data)
        except FormParserError:
            raise malformed_form("it is damaged") from None
        complete, self._complete = self._complete, []
        return complete

    def finish(self) -> None:
        """Learns that nothing comes any more.

        Raises:
            RequestError: reason REQUEST_MALFORMED, when something should.
        """
        if not self._has_ended:
            raise malformed_form("it is cut short")

    def _begin(self) -> None:
        self._part = Part()
        self._headers.clear()

    def _end_header(self) -> None:
        self._headers[bytes(self._key).lower()] = bytes(self._value)
        self._key.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        assert self._part is not None
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._part.name = options.get(b"name", b"").decode("utf-8", errors="replace")

    def _take(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        assert part is not None
        part.add(memoryview(data)[start:end])
        if part.name != FILE and part.size > MOST_OPTION_BYTES:
            raise RequestError("OPTION_INVALID", f"The field {part.name[:100]!r} is too long.")
        if part.size > self._most_bytes:
            raise RequestError(
                "MESSAGE_TOO_LARGE", f"A file of a form has at most {self._most_bytes:,} bytes: send single slices."
            )

    def _end_part(self) -> None:
        assert self._part is not None
        self._complete.append(self._part)
        self._part = None

    def _end(self) -> None:
        self._has_ended = True


def parse_form(body: bytes, boundary: bytes, most_files: int) -> Form:
    """Takes a whole form apart, without copying it but for what is an image.

    Args:
        body: all of it.
        boundary: between its parts.
        most_files: images that it may hold; it must hold at least one.

    Raises:
        RequestError: reasons REQUEST_MALFORMED, BATCH_SIZE_INVALID, OPTION_INVALID.
    """
    reader = FormReader(boundary, most_files + MOST_PARTS_BESIDE, len(body), lambda: wrong_number(most_files))
    parts = reader.feed(body)
    reader.finish()
    files = tuple(part.join() for part in parts if part.name == FILE)
    if not 1 <= len(files) <= most_files:
        raise wrong_number(most_files)
    return Form(files, read_pairs(parts))


def read_pairs(parts: Iterable[Part]) -> Pairs:
    """The parts that are options. Raises as ``Part.read_option``."""
    return tuple((part.name, part.read_option()) for part in parts if part.name != FILE)


def malformed_form(fault: str) -> RequestError:
    return RequestError("REQUEST_MALFORMED", f"The form cannot be read: {fault}.")


def wrong_number(most_files: int) -> RequestError:
    if most_files == 1:
        return malformed_form(f"it must hold one field {FILE!r}, which is the image, and options once each")
    return RequestError("BATCH_SIZE_INVALID", f"A form must hold 1 to {most_files} fields {FILE!r} with an image each.")
