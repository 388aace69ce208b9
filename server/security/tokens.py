"""The file of tokens: one line a client, with the SHA-256 of its token and never the token.

    # name      SHA-256 of the token   what it may (predict unless said)   limits, date; all may be left out
    ward-3      9f86d081…              roles=predict,read                  requests=20 images=4 bytes=33554432
    archive     60303ae2…              roles=predict                       expires=2027-12-31

A token is 256 random bits. So its digest need be neither salted nor slow to compute, and tells nothing to whoever reads
the file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from server.security.files import list_lines

PREDICT, READ, ADMIN, WORKLIST = "predict", "read", "admin", "worklist"
ROLES = (PREDICT, READ, ADMIN, WORKLIST)
"""Judge images; ask about models, which those who judge may as well; change what is served (stroke.admin.v1); see the
worklist, which has patients' identifiers."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
NAME_RULE = "1 to 64 letters, digits and . _ @ -, a letter or digit first"
DIGEST = re.compile(r"[0-9a-f]{64}")
MOST_REQUESTS = 100_000
MOST_IMAGES = 100_000
MOST_BYTES = 1 << 40


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may at most; 0: as much as it likes."""

    requests: int = 0
    """A second. Each image of a stream counts as one."""

    images: int = 0
    """In flight."""

    bytes: int = 0
    """In flight."""


NO_LIMITS = Limits()
BOUNDS = {"requests": MOST_REQUESTS, "images": MOST_IMAGES, "bytes": MOST_BYTES}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: a token and whose it is."""

    name: str
    digest: str
    """SHA-256 of the token, in hexadecimal digits."""

    roles: frozenset[str] = frozenset({PREDICT})
    limits: Limits = NO_LIMITS
    expires: date | None = None
    """The last day on which it is good, in UTC; None: there is none."""

    @property
    def expires_at(self) -> float:
        """End of its last day, in seconds since 1970; infinite without one."""
        if self.expires is None:
            return float("inf")
        midnight = datetime(self.expires.year, self.expires.month, self.expires.day, tzinfo=UTC)
        return midnight.timestamp() + timedelta(days=1).total_seconds()


def digest_token(token: str) -> str:
    """SHA-256 of a token, as the file has it."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def parse_tokens(text: str) -> Mapping[str, Entry]:
    """Reads the file: entries by the digests of their tokens, in the order of the file.

    A name may stand in several lines: a client that changes its token has two for a while.

    Raises:
        ValueError: something is not as it should be; the text begins with the line, and shows no digest: it may be a
            token that somebody has put there.
    """
    entries: dict[str, Entry] = {}
    for number, line in list_lines(text):
        try:
            entry = parse_line(line)
            if entry.digest in entries:
                raise ValueError(f"the token is that of {entries[entry.digest].name!r}, in a line before")
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        entries[entry.digest] = entry
    return entries


def parse_line(line: str) -> Entry:
    """Reads one line.

    Raises:
        ValueError: it is wrong.
    """
    name, *words = line.split()
    if not NAME.fullmatch(name):
        raise ValueError(f"a name has {NAME_RULE}")
    if not words or not DIGEST.fullmatch(words[0]):
        raise ValueError("after the name comes the SHA-256 of the token, 64 of 0-9 and a-f, and never the token itself")
    options: dict[str, str] = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or key not in ("roles", "expires", *BOUNDS):
            raise ValueError(
                f"word {2 + words.index(word)} of {name!r} is none of roles=, expires=, {'=, '.join(BOUNDS)}="
            )
        if key in options:
            raise ValueError(f"{key}= is there twice")
        options[key] = value
    limits = {key: parse_limit(key, options[key]) for key in BOUNDS if key in options}
    return Entry(
        name,
        words[0],
        parse_roles(options.get("roles", PREDICT)),
        Limits(**limits),
        parse_date(options["expires"]) if "expires" in options else None,
    )


def parse_roles(text: str) -> frozenset[str]:
    """Reads roles that commas separate.

    Raises:
        ValueError: there is no such role.
    """
    roles = text.split(",")
    if not set(roles) <= set(ROLES):
        raise ValueError(f"roles are {', '.join(ROLES)}, with commas between and no spaces")
    return frozenset(roles)


def parse_limit(key: str, text: str) -> int:
    """Reads a limit.

    Raises:
        ValueError: it is no number that it may be.
    """
    if not re.fullmatch(r"[0-9]{1,13}", text) or not 1 <= int(text) <= BOUNDS[key]:
        raise ValueError(f"{key}= is a whole number from 1 to {BOUNDS[key]}")
    return int(text)


def parse_date(text: str) -> date:
    """Reads a day.

    Raises:
        ValueError: it is none.
    """
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise ValueError("expires= is a day such as 2027-12-31, the last one on which the token is good (UTC)")


def format_line(entry: Entry) -> str:
    """The line of an entry, as ``parse_line`` reads it."""
    words = [entry.name, entry.digest, "roles=" + ",".join(role for role in ROLES if role in entry.roles)]
    words += [f"{key}={getattr(entry.limits, key)}" for key in BOUNDS if getattr(entry.limits, key)]
    words += [f"expires={entry.expires}"] if entry.expires else []
    return " ".join(words)
