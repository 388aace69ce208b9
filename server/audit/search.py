"""Finds what a log says of an image, or under an id."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from server.audit.chain import MOST_LINE_BYTES, read_line
from server.audit.content import Content
from server.audit.family import beside, read_salt
from server.audit.verify import open_files


def find_image(path: Path, image_sha256: str) -> Iterator[str]:
    """The lines about an image, from all files of a log, in their order.

    Args:
        path: the log.
        image_sha256: 64 lower-case hexadecimal digits.

    Raises:
        OSError: it cannot be read, or its salt cannot.
    """
    salts = [None, read_salt(path)] if beside(path, "salt").exists() else [None]
    wanted = dict(Content(salt, with_peer=False).name_image(image_sha256) for salt in salts)
    yield from find(path, list(wanted.values()), lambda fields: any(fields.get(k) == v for k, v in wanted.items()))


def find_id(path: Path, request_id: str) -> Iterator[str]:
    """The lines about a request, and of a study those of its slices, from all files of a log, in their order. Raises
    OSError."""
    yield from find(path, [json.dumps(request_id)], lambda fields: request_id in map(fields.get, ("id", "study")))


def find(path: Path, marks: list[str], is_wanted: Callable[[Mapping[str, Any]], bool]) -> Iterator[str]:
    """The lines that are wanted, without their ends; of those alone that hold one of the marks more is looked at."""
    needles = [mark.encode("ascii") for mark in marks]
    with ExitStack() as stack:
        for _, file in open_files(path, stack):
            while data := file.readline(MOST_LINE_BYTES):
                if not any(needle in data for needle in needles):
                    continue
                line = read_line(data)
                if line is not None and is_wanted(line.fields):
                    yield data.decode("ascii", "backslashreplace").rstrip("\n")
