"""What the body of a request holds: an image as it is, or a form with images in it. Nothing of it touches the disk."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from server.admission.inbox import inflate
from server.admission.judge import ImageToJudge
from server.errors import RequestError

# It would write what it finds in a form that is damaged, and a line for each.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL + 1)

Pairs: TypeAlias = tuple[tuple[str, str], ...]

FORM = "multipart/form-data"
IMAGES = ("image/png", "image/jpeg", "application/octet-stream")
"""Content types of a body that is an image: what it is, its first bytes say."""

CODINGS = ("gzip", "deflate")
FILE = "file"
"""The field of an image, as the paper's clients send it."""

OPTIONS = {"model": "model_name", "version": "model_version", "image_sha256": "image_sha256", "id": "id"}
"""Fields of a form, or of a query, and what they are of an ``ImageRequest``."""

BATCH_OPTIONS = tuple(name for name in OPTIONS if name != "image_sha256")
"""Those of several images."""

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


@dataclass(frozen=True)
class BodyKind:
    """What the head of a request says of its body."""

    content_type: str
    boundary: bytes = b""
    """Of the parts of a form."""

    is_compressed: bool = False


@dataclass
class Part:
    """A part of a form on its way."""

    name: str = ""
    spans: list[tuple[int, int]] = field(default_factory=list)
    """Where its bytes are."""


def read_kind(headers: Mapping[str, str], allowed: tuple[str, ...], *, may_compress: bool = True) -> BodyKind:
    """What a request's head says of its body.

    Args:
        headers: by their names in lower case.
        allowed: content types that the method takes.
        may_compress: whether it takes a body that is compressed.

    Raises:
        RequestError: reasons CONTENT_TYPE_UNSUPPORTED, and REQUEST_MALFORMED for a form without a boundary.
    """
    kind, options = parse_options_header(headers.get("content-type", ""))
    content_type = kind.decode("latin-1")
    coding = headers.get("content-encoding", "identity").strip().lower()
    if content_type not in allowed:
        raise RequestError(
            "CONTENT_TYPE_UNSUPPORTED",
            f"The body must be one of {', '.join(allowed)}, and is said to be {content_type[:100] or 'nothing'!r}.",
        )
    if coding not in ("identity", *CODINGS):
        raise RequestError("CONTENT_TYPE_UNSUPPORTED", f"A body may be compressed by {' or '.join(CODINGS)} alone.")
    if coding in CODINGS and not may_compress:
        raise RequestError("CONTENT_TYPE_UNSUPPORTED", "A form of several images is not to be compressed.")
    boundary = options.get(b"boundary", b"")
    if content_type == FORM and not 1 <= len(boundary) <= MOST_BOUNDARY_BYTES:
        raise malformed_form(f"its content type has no boundary of 1 to {MOST_BOUNDARY_BYTES} bytes")
    return BodyKind(content_type, boundary, coding in CODINGS)


def read_image(kind: BodyKind, options: Mapping[str, str], most_bytes: int, body: bytes) -> ImageToJudge:
    """The image of a request of one.

    Args:
        kind: of the body.
        options: of the query.
        most_bytes: of what comes out of a compressed body.
        body: all of it.

    Raises:
        RequestError: reason REQUEST_MALFORMED, OPTION_INVALID or MESSAGE_TOO_LARGE.
    """
    if kind.is_compressed:
        plain = inflate(body, most_bytes)
        if plain is body:
            raise RequestError("REQUEST_MALFORMED", "The body is said to be compressed, and is not.")
        body = plain
    if kind.content_type != FORM:
        return make_request(body, options)
    form = parse_form(body, kind.boundary, most_files=1)
    return make_request(form.files[0], join_options(options, form.options, tuple(OPTIONS)))


def make_request(image: bytes, options: Mapping[str, str]) -> ImageToJudge:
    """An image with its options."""
    fields: dict[str, Any] = {OPTIONS[name]: value for name, value in options.items()}
    return ImageToJudge(image, **fields)


def read_options(pairs: Iterable[tuple[str, str]], known: tuple[str, ...]) -> dict[str, str]:
    """Options by their names. One that is misspelt would else be as if it had never been sent, and of two it would
    depend on who reads which one counts.

    Args:
        pairs: names and values.
        known: those that there are.

    Raises:
        RequestError: reason OPTION_INVALID.
    """
    options: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise RequestError("OPTION_INVALID", f"There is no {name[:100]!r}; there are {', '.join(known)}.")
        if name in options:
            raise RequestError("OPTION_INVALID", f"{name!r} is given more than once.")
        options[name] = value
    return options


def join_options(query: Mapping[str, str], form: Pairs, known: tuple[str, ...]) -> dict[str, str]:
    """The options of a query and of a form. Raises as ``read_options``."""
    return read_options((*query.items(), *form), known)


def parse_form(body: bytes, boundary: bytes, most_files: int) -> Form:
    """Takes a form apart, without copying it but for what is an image.

    Args:
        body: all of it.
        boundary: between its parts.
        most_files: images that it may hold; it must hold at least one.

    Raises:
        RequestError: reasons REQUEST_MALFORMED, BATCH_SIZE_INVALID, OPTION_INVALID.
    """
    if body.count(b"--" + boundary) > most_files + MOST_PARTS_BESIDE + 1:  # what is no end of a part takes time, too
        raise wrong_number(most_files)
    parts: list[Part] = []
    headers: dict[bytes, bytes] = {}
    key, value = bytearray(), bytearray()
    ends: list[None] = []

    def begin() -> None:
        parts.append(Part())
        headers.clear()

    def end_header() -> None:
        headers[bytes(key).lower()] = bytes(value)
        key.clear()
        value.clear()

    def end_headers() -> None:
        _, options = parse_options_header(headers.get(b"content-disposition", b""))
        parts[-1].name = options.get(b"name", b"").decode("utf-8", errors="replace")

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_field": lambda data, start, end: key.extend(data[start:end]),
            "on_header_value": lambda data, start, end: value.extend(data[start:end]),
            "on_header_end": end_header,
            "on_headers_finished": end_headers,
            "on_part_data": lambda data, start, end: parts[-1].spans.append((start, end)),
            "on_end": lambda: ends.append(None),
        },
        max_header_count=MOST_PART_HEADERS,
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise malformed_form("it is damaged") from None
    if not ends:
        raise malformed_form("it is cut short")
    files = tuple(join(body, part) for part in parts if part.name == FILE)
    if not 1 <= len(files) <= most_files:
        raise wrong_number(most_files)
    return Form(files, tuple((part.name, read_option(body, part)) for part in parts if part.name != FILE))


def join(body: bytes, part: Part) -> bytes:
    """The bytes of a part, which its parser has told in pieces."""
    return b"".join(body[start:end] for start, end in part.spans)


def read_option(body: bytes, part: Part) -> str:
    """A part that is text.

    Raises:
        RequestError: reason OPTION_INVALID.
    """
    if part.spans and part.spans[-1][1] - part.spans[0][0] > MOST_OPTION_BYTES:
        raise RequestError("OPTION_INVALID", f"The field {part.name[:100]!r} is too long.")
    try:
        return join(body, part).decode("utf-8")
    except UnicodeDecodeError:
        raise RequestError("OPTION_INVALID", f"The field {part.name[:100]!r} is no text.") from None


def malformed_form(fault: str) -> RequestError:
    return RequestError("REQUEST_MALFORMED", f"The form cannot be read: {fault}.")


def wrong_number(most_files: int) -> RequestError:
    if most_files == 1:
        return malformed_form(f"it must hold one field {FILE!r}, which is the image, and options once each")
    return RequestError("BATCH_SIZE_INVALID", f"A form must hold 1 to {most_files} fields {FILE!r} with an image each.")
