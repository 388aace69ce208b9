"""What the body of a request holds: an image as it is, or a form with images in it. Nothing of it touches the disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from server.admission.inbox import inflate
from server.admission.judge import ImageToJudge
from server.errors import RequestError
from server.web.forms import MOST_BOUNDARY_BYTES, Pairs, malformed_form, parse_form

FORM = "multipart/form-data"
IMAGES = ("image/png", "image/jpeg", "application/dicom", "application/octet-stream")
"""Content types of a body that is an image: what it is, its first bytes say."""

CODINGS = ("gzip", "deflate")
OPTIONS = {
    "model": "model_name",
    "version": "model_version",
    "image_sha256": "image_sha256",
    "id": "id",
    "frame": "frame",
}
"""Fields of a form, or of a query, and what they are of an ``ImageRequest``."""

BATCH_OPTIONS = tuple(name for name in OPTIONS if name not in ("image_sha256", "frame"))
"""Those of several images."""


FRAME = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class BodyKind:
    """What the head of a request says of its body."""

    content_type: str
    boundary: bytes = b""
    """Of the parts of a form."""

    is_compressed: bool = False


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


def make_reader(request: Request, most_bytes: int) -> Callable[[bytes], ImageToJudge]:
    """What reads the body of a request of one image, by its head and its query.

    Args:
        request: of which the body has not been read.
        most_bytes: of what comes out of a compressed body.

    Raises:
        RequestError: as ``read_kind`` and ``read_options``.
    """
    kind = read_kind(request.headers, (FORM, *IMAGES))
    options = read_options(request.query_params.multi_items(), tuple(OPTIONS))
    return partial(read_image, kind, options, most_bytes)


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
    """An image with its options.

    Raises:
        RequestError: reason OPTION_INVALID.
    """
    fields: dict[str, Any] = {OPTIONS[name]: value for name, value in options.items()}
    frame = fields.get("frame", "") or "0"
    if not FRAME.fullmatch(frame):
        raise RequestError("OPTION_INVALID", "frame must be a whole number from 1, or empty.")
    return ImageToJudge(image, **fields | {"frame": int(frame)})


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
