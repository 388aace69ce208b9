"""``python -m server token add|list|revoke``: makes tokens, and keeps the file in which the server looks them up."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from server.flags import REQUIRED, LineParser, check_settings, parse_settings, require, setting
from server.process.console import complain, say
from server.security.files import AccessFileError
from server.security.token_file import change_tokens, load_tokens
from server.security.tokens import (
    DIGEST,
    MOST_BYTES,
    MOST_IMAGES,
    MOST_REQUESTS,
    NAME,
    NAME_RULE,
    PREDICT,
    ROLES,
    Entry,
    Limits,
    digest_token,
    format_line,
    parse_date,
    parse_roles,
)

TOKEN_BYTES = 32
"""256 bits: nobody guesses it, so nobody has to be kept from trying."""

SHOWN_DIGITS = 12
"""Of a digest: enough to tell tokens apart."""

EXIT_FAILED, EXIT_USAGE = 1, 2
FILE_TEXT = "file of tokens, that of the server's --tokens"
HELP = """usage: python -m server token add NAME --file FILE [--roles ROLES] [--requests N] [--images N] [--bytes N]
                              [--expires DAY]
       python -m server token list --file FILE
       python -m server token revoke NAME --file FILE [--digest DIGITS]

add prints a new token on standard output, once, and appends a line with its SHA-256 to FILE, which is made when there
is none (mode 600). A name may have two tokens while a client changes from one to the other. revoke removes all tokens
of a name, or the one whose SHA-256 begins with DIGITS. A server that runs takes note within a second."""


@dataclass(frozen=True)
class ListConfig:
    """What is set of ``token list``."""

    file: Path = setting(REQUIRED, FILE_TEXT)


@dataclass(frozen=True)
class RevokeConfig:
    """What is set of ``token revoke``."""

    name: str = setting(REQUIRED, "of the client", positional=True)
    file: Path = setting(REQUIRED, FILE_TEXT)
    digest: str = setting("", "first digits of the SHA-256 of the only token to revoke; empty: all of the name")

    def __post_init__(self) -> None:
        check_settings(self)
        require(not set(self.digest) - set("0123456789abcdef"), "digest", "must be hexadecimal digits")


@dataclass(frozen=True)
class AddConfig:
    """What is set of ``token add``."""

    name: str = setting(REQUIRED, f"of the client: {NAME_RULE}", positional=True)
    file: Path = setting(REQUIRED, FILE_TEXT)
    roles: str = setting(
        PREDICT, f"what the client may: {', '.join(ROLES)}, with commas between; predict includes read"
    )
    requests: int = setting(
        0, "requests a second, images of streams included; 0: no limit", least=0, most=MOST_REQUESTS
    )
    images: int = setting(0, "images in flight; 0: no limit", least=0, most=MOST_IMAGES)
    bytes: int = setting(0, "bytes in flight; 0: no limit", least=0, most=MOST_BYTES)
    expires: str = setting("", "last day on which the token is good (UTC), such as 2027-12-31; empty: there is none")

    def __post_init__(self) -> None:
        check_settings(self)
        if not NAME.fullmatch(self.name):
            raise ValueError(f"NAME must be {NAME_RULE}")
        parse_roles(self.roles)
        if self.expires:
            parse_date(self.expires)

    def make_entry(self, token: str) -> Entry:
        """The line of a token."""
        return Entry(
            self.name,
            digest_token(token),
            parse_roles(self.roles),
            Limits(self.requests, self.images, self.bytes),
            parse_date(self.expires) if self.expires else None,
        )


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns 0, or 1 where the file or a name is at fault. Usage errors exit with 2."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {"add": add, "list": list_all, "revoke": revoke}
    if argv[:1] in (["--help"], ["-h"]):
        say(HELP)
        return 0
    if not argv or argv[0] not in commands:
        complain("server token: error: add, list or revoke? (python -m server token --help shows how)")
        return EXIT_USAGE
    try:
        return commands[argv[0]](argv[1:])
    except AccessFileError as error:
        complain(f"server token: error: {error}")
        return EXIT_FAILED


def make_parser(command: str, description: str) -> LineParser:
    return LineParser(f"python -m server token {command}", description)


def add(argv: Sequence[str]) -> int:
    config = parse_settings(make_parser("add", "Makes a token and prints it, once."), AddConfig, argv)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    entry = config.make_entry(token)
    change_tokens(config.file, lambda lines: [*lines, format_line(entry)])
    if not say(token):
        complain(f"server token: error: the token could not be printed: revoke {config.name} and add it again")
        return EXIT_FAILED
    return 0


def list_all(argv: Sequence[str]) -> int:
    config = parse_settings(make_parser("list", "Shows whose tokens there are."), ListConfig, argv)
    now = datetime.now(UTC).timestamp()
    for entry in load_tokens(config.file).values():
        name, digest, *rest = format_line(entry).split()
        say(" ".join([name, f"{digest[:SHOWN_DIGITS]}…", *rest, *(["EXPIRED"] if entry.expires_at <= now else [])]))
    return 0


def revoke(argv: Sequence[str]) -> int:
    config = parse_settings(make_parser("revoke", "Removes the tokens of a name."), RevokeConfig, argv)
    found = [
        entry
        for entry in load_tokens(config.file).values()
        if entry.name == config.name and entry.digest.startswith(config.digest)
    ]
    if not found or (config.digest and len(found) > 1):
        which = "more than one token" if found else "no token"
        complain(f"server token: error: {os.fspath(config.file)} has {which} of {config.name} like that")
        return EXIT_FAILED
    digests = {entry.digest for entry in found}
    change_tokens(config.file, lambda lines: [line for line in lines if not digests.intersection(find_digests(line))])
    say(f"revoked: {len(found)} of {config.name}")
    return 0


def find_digests(line: str) -> list[str]:
    """The digests that a line holds, unless it is a comment."""
    return [] if line.startswith("#") else [word for word in line.split() if DIGEST.fullmatch(word)]
