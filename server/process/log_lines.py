"""What a line of the log looks like, as text or as JSON.

No message can begin a line or a field of its own: what does not print is escaped, and the value of a field (``id=%s``)
that has spaces in it stands in quotes. Lines that belong to the one above, as those of a traceback, begin with a bar.
In JSON each line is one object.

A traceback says where an error was raised and of which class it is. What the error itself says may be part of what a
caller has sent, so that is written only where somebody has asked for everything.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import time
import traceback
from types import TracebackType
from typing import Any, Protocol

from server.process.console import escape

FORMATS = ("text", "json")
MOST_MESSAGE_CHARACTERS = 4000
MOST_TRACEBACK_CHARACTERS = 16_000
MOST_CAUSES = 8
"""Errors behind an error that a traceback shows."""

SHOW_TEXT = {"shows_text": True}
"""``extra`` of a record whose error comes of no caller, so that its text may be written."""

PLACEHOLDER = re.compile(r"%(?:\((\w+)\))?[#0\- +]*(?:\*|\d+)?(?:\.(?:\*|\d+))?([a-zA-Z%])")
NEEDS_QUOTES = re.compile(r"[\s\"=]|^$")

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class Entry:
    """A message that has fields. As text: ``Predict id=7 code=OK ms=5.1``; in JSON the fields stand beside it."""

    __slots__ = ("fields", "kind", "text")

    def __init__(self, text: str, fields: dict[str, str | float], kind: str = "") -> None:
        """Takes them as they are.

        Args:
            text: the message.
            fields: name to value, in their order; names are ours.
            kind: those of one kind may become so many that not all are written; empty: each is.
        """
        self.text, self.fields, self.kind = text, fields, kind

    def __str__(self) -> str:
        parts = [self.text]
        for name, value in self.fields.items():
            parts.append(f"{name}={value:.1f}" if isinstance(value, float) else f"{name}={quote_value(value)}")
        return " ".join(parts)


class LineFormat(Protocol):
    """Makes lines, without their ends, of all that goes into the log."""

    def format(self, record: logging.LogRecord) -> str:
        """Of a record. Raises what its arguments raise."""
        ...

    def say(self, level: str, name: str, text: str) -> str:
        """Of a remark of the log itself."""
        ...

    def quote(self, text: str) -> str:
        """Of something that a library has printed."""
        ...

    def complain(self, text: str) -> str:
        """Of a complaint of the program, which is one line."""
        ...


class LineFormatter:
    """``2026-01-31 12:00:00,123 INFO server.lifecycle.app message``, in one line however the message came about."""

    def __init__(self, shows_texts: bool = False) -> None:
        """Makes a format.

        Args:
            shows_texts: write what errors say, too.
        """
        self._shows_texts = shows_texts
        self._seconds = Seconds("%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """See ``LineFormat``."""
        line = f"{self._describe_time(record.created)} {record.levelname} {record.name} {escape(render(record))}"
        error = find_error(record)
        if error is None:
            return line
        return f"{line}\n{indent(describe_error(error, self._shows_texts or shows_text(record)))}"

    def say(self, level: str, name: str, text: str) -> str:
        """See ``LineFormat``."""
        return f"{self._describe_time(time.time())} {level} {name} {escape(text)}"

    def quote(self, text: str) -> str:
        """See ``LineFormat``."""
        return indent(text)

    def complain(self, text: str) -> str:
        """See ``LineFormat``."""
        return text

    def _describe_time(self, created: float) -> str:
        second, milliseconds = self._seconds.split(created)
        return f"{second},{milliseconds:03}"


class JsonFormatter:
    """An object a line: time, level, logger and message, then the fields of an ``Entry``, and ``error``."""

    def __init__(self, shows_texts: bool = False) -> None:
        """See ``LineFormatter``."""
        self._shows_texts = shows_texts
        self._seconds = Seconds("%Y-%m-%dT%H:%M:%S %z")

    def format(self, record: logging.LogRecord) -> str:
        """See ``LineFormat``."""
        entry = record.msg if isinstance(record.msg, Entry) else None
        fields: dict[str, Any] = {}
        if entry is not None:
            fields = {name: round(v, 1) if isinstance(v, float) else v for name, v in entry.fields.items()}
        if (error := find_error(record)) is not None:
            fields["error"] = keep_end(describe_error(error, self._shows_texts or shows_text(record)))
        text = entry.text if entry is not None else render(record)
        return self._dump(record.created, record.levelname, record.name, text, fields)

    def say(self, level: str, name: str, text: str) -> str:
        """See ``LineFormat``."""
        return self._dump(time.time(), level, name, text, {})

    def quote(self, text: str) -> str:
        """See ``LineFormat``."""
        return self.say("WARNING", "stderr", keep_end(text.rstrip("\n")))

    def complain(self, text: str) -> str:
        """See ``LineFormat``."""
        return self.say("ERROR", "server", text)

    def _dump(self, created: float, level: str, name: str, text: str, fields: dict[str, Any]) -> str:
        second, milliseconds = self._seconds.split(created)
        moment, _, zone = second.partition(" ")
        moment = f"{moment}.{milliseconds:03}{zone[:3]}:{zone[3:]}"
        return json.dumps(  # ASCII: nothing in it turns the direction of a line, nor begins another
            {"time": moment, "level": level, "logger": name, "message": text, **fields},
            separators=(",", ":"),
        )


FORMATTERS: dict[str, type[LineFormatter] | type[JsonFormatter]] = {"text": LineFormatter, "json": JsonFormatter}


class Seconds:
    """Local time as text; the part that is the same for a second is made once."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._cached: tuple[int, str] = (-1, "")

    def split(self, created: float) -> tuple[str, int]:
        """The text of a moment in seconds since 1970, and its milliseconds."""
        second = int(created)
        cached = self._cached  # one reference, so that two threads cannot mix them up
        if cached[0] != second:
            cached = self._cached = (second, time.strftime(self._pattern, time.localtime(second)))
        return cached[1], int(1000 * (created - second))


def render(record: logging.LogRecord) -> str:
    """A record's message, bounded; an argument that fills a field stays inside it."""
    message, arguments = str(record.msg), record.args
    if arguments:
        if isinstance(arguments, tuple):
            for index in find_fields(message):
                if index < len(arguments) and not isinstance(arguments[index], int | float):
                    arguments = (*arguments[:index], quote_value(str(arguments[index])), *arguments[index + 1 :])
        message %= arguments
    return message if len(message) <= MOST_MESSAGE_CHARACTERS else f"{message[:MOST_MESSAGE_CHARACTERS]}…"


def quote_value(text: str) -> str:
    """The value of a field, in quotes where it could be taken for more."""
    return json.dumps(text, ensure_ascii=False) if NEEDS_QUOTES.search(text) else text


@functools.lru_cache(1024)
def find_fields(message: str) -> tuple[int, ...]:
    """The positions of the arguments that stand as text right after an equals sign."""
    places = [match for match in PLACEHOLDER.finditer(message) if match[2] != "%"]
    if any(match[1] or "*" in match[0] for match in places):  # named, or with a width that is an argument itself
        return ()
    return tuple(
        index for index, match in enumerate(places) if match[2] == "s" and message[: match.start()].endswith("=")
    )


def find_error(record: logging.LogRecord) -> BaseException | None:
    """The error that a record is about."""
    return record.exc_info[1] if record.exc_info else None


def shows_text(record: logging.LogRecord) -> bool:
    """Whether what its error says may be written."""
    return bool(getattr(record, "shows_text", False))


def describe_error(error: BaseException, with_text: bool) -> str:
    """A traceback; without texts it has the places and classes of the errors."""
    if with_text:
        return "".join(traceback.format_exception(error)).removesuffix("\n")
    causes: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and len(causes) < MOST_CAUSES:
        causes.append(following)
        hidden = following.__suppress_context__
        following = following.__cause__ or (None if hidden else following.__context__)
    parts = ["Traceback (most recent call last):\n"]
    for cause in reversed(causes):
        parts += [*traceback.format_tb(cause.__traceback__), f"{type(cause).__module__}.{type(cause).__qualname__}\n"]
    return "".join(parts).removesuffix("\n")


def indent(text: str) -> str:
    """Several lines as parts of one entry."""
    return "\n".join(f"  | {escape(line)}" for line in keep_end(text).splitlines())


def keep_end(text: str) -> str:
    """Of a long text the end is kept, which says what happened."""
    return text if len(text) <= MOST_TRACEBACK_CHARACTERS else f"…{text[-MOST_TRACEBACK_CHARACTERS:]}"
