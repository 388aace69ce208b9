"""What all commands share: a parser, and the connection's flags with their names in the environment. Standard library
only at import."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NoReturn

from .._address import parse_address
from .._config import (
    DEFAULT_TARGET,
    DEFAULT_TIMEOUT,
    ClientConfig,
    RetryConfig,
    TLSConfig,
    Token,
    check_timeout,
)
from .._errors import StrokeClientError

if TYPE_CHECKING:
    from .._client import StrokeClient

ENVIRONMENT_PREFIX = "STROKE_"
SCRIPT = "stroke"
"""The command that an installed client brings."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help that fits a screen: no empty lines between the groups."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=22)

    def format_help(self) -> str:
        return super().format_help().replace("\n\n", "\n").replace("\nexamples", "\n\nexamples")


class CommandParser(argparse.ArgumentParser):
    """Names the flag that a mistyped one may have meant."""

    def error(self, message: str) -> NoReturn:
        _, _, unknown = message.partition("unrecognized arguments: ")
        for word in unknown.split():
            flag = word.partition("=")[0]
            if flag.startswith("-") and (meant := find_similar(flag, self._option_string_actions)):
                message += f"; did you mean {meant}?"
        super().error(message)


class PrintVersion(argparse.Action):
    """Prints the version, which nothing else needs, and ends the process with status 0."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from .. import __version__

        print(__version__)
        parser.exit()


def find_similar(word: str, known: Iterable[str]) -> str:
    """Returns which of the known words was meant by a mistyped one; empty where none is near."""
    from difflib import get_close_matches  # for mistakes alone

    return next(iter(get_close_matches(word.lower(), list(known), 1, 0.7)), "")


def name_program() -> str:
    """Returns what people type: ``stroke`` where it was installed under that name, otherwise ``python -m PACKAGE``."""
    if PurePath(sys.argv[0]).stem == SCRIPT:
        return SCRIPT
    return f"python -m {__package__.partition('.')[0]}"


def make_parser(
    command: str, usage: str, description: str, epilog: str, *, add_help: bool = True
) -> argparse.ArgumentParser:
    """Returns a command line without arguments yet.

    Args:
        command: the sub-command; empty for the command itself.
        usage: what follows its name.
        description: a sentence.
        epilog: examples and exit status, with ``{program}`` for its name.
        add_help: add --help and --version before all other options.
    """
    parser = CommandParser(
        prog=f"{name_program()} {command}".rstrip(),
        usage=f"%(prog)s {usage}",
        description=description,
        epilog=epilog.replace("{program}", name_program()),
        formatter_class=HelpFormatter,
        allow_abbrev=False,
        add_help=add_help,
    )
    if add_help:
        parser.add_argument("--version", action=PrintVersion, help="show the version")
    return parser


def read_seconds(text: str) -> float:
    """Returns a time of 0 s or more, for argparse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def setting(default: Any, text: str, metavar: str) -> Any:
    """A field with its help text and the name of its value."""
    return field(default=default, metadata={"help": text, "metavar": metavar})


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where the servers are and how they are reached. ``tls_ca`` is ``--tls-ca`` and ``STROKE_TLS_CA``; flags win.

    Secrets are in files: what stands on a command line or in the environment can be read by others on the machine.
    """

    server: str = setting(DEFAULT_TARGET, "server, a,b or dns:///boxes", "HOST:PORT")
    timeout: float = setting(DEFAULT_TIMEOUT, "seconds that one image may take", "S")
    tls_ca: str = setting("", "authority of the server's certificate; turns TLS on", "FILE")
    tls_cert: str = setting("", "this client's certificate", "FILE")
    tls_key: str = setting("", "its private key", "FILE")
    tls_name: str = setting("", "name in its certificate, where not the host's", "NAME")
    token_file: str = setting("", "file with a bearer token, read again before each call", "FILE")

    def open_client(self, retry: RetryConfig = RetryConfig()) -> StrokeClient:  # noqa: B008  # frozen
        """Returns a client; the caller closes it.

        Raises:
            ServerUnavailableError: none of the hosts of a list is known.
            ValueError: the settings do not go together, or a file cannot be used; not after ``read_connection``, which
                has looked at them, unless a file has changed since.
        """
        from .._client import StrokeClient

        return StrokeClient(
            self.server, timeout=self.timeout, tls=self._describe_tls(), token=self._choose_token(), retry=retry
        )

    def check(self) -> None:
        """Reads all files that the settings name, so that a fault is said before anything is sent.

        Raises:
            AuthenticationError: the token file cannot be used.
            ValueError: the settings do not go together, or another file cannot be used; the message says which.
        """
        tls = self._describe_tls()
        if tls is not None:
            from ..tls.credentials import load_tls

            tls = load_tls(tls)
        address = parse_address(self.server)
        ClientConfig(address=address, timeout=self.timeout, tls=tls, token=self._choose_token())
        if self.token_file:
            self._read_token()

    def _describe_tls(self) -> TLSConfig | None:
        if not (self.tls_ca or self.tls_cert or self.tls_key or self.tls_name):
            return None
        return TLSConfig(
            ca=self.tls_ca or None,
            certificate=self.tls_cert or None,
            key=self.tls_key or None,
            server_name=self.tls_name or None,
        )

    def _choose_token(self) -> Token | None:
        return self._read_token if self.token_file else None

    def _read_token(self) -> str:
        from ..tls.credentials import read_token_file

        return read_token_file(self.token_file)


def add_connection_flags(parser: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Adds the flags of ``Connection`` to a command line."""
    for setting_field in fields(Connection):
        default = f"{setting_field.default:g}" if setting_field.name == "timeout" else setting_field.default
        parser.add_argument(
            "--" + setting_field.name.replace("_", "-"),
            type=_READERS.get(setting_field.name, str),
            default=None,  # so that a flag that was not given leaves the word to the environment
            metavar=setting_field.metadata["metavar"],
            help=setting_field.metadata["help"] + (f" (default: {default})" if default else ""),
        )


def read_connection(
    parser: argparse.ArgumentParser, options: argparse.Namespace, environment: Mapping[str, str] = os.environ
) -> Connection:
    """Returns the settings from flags and environment, where an empty value counts as none.

    A value that cannot be used, a file included, ends the process with status 2.
    """
    values: dict[str, Any] = {}
    for setting_field in fields(Connection):
        name = ENVIRONMENT_PREFIX + setting_field.name.upper()
        if (given := getattr(options, setting_field.name)) is not None:
            values[setting_field.name] = given
        elif environment.get(name):
            try:
                values[setting_field.name] = _READERS.get(setting_field.name, str)(environment[name])
            except argparse.ArgumentTypeError as error:
                parser.error(f"{name}: {error}")
    connection = Connection(**values)
    try:
        connection.check()
    except (ValueError, StrokeClientError) as error:
        parser.error(str(error))
    return connection


def run_with_client(connection: Connection, work: Callable[[StrokeClient], int]) -> int:
    """Returns what ``work`` returns, the exit status; 1 when it raises a ``StrokeClientError``, which is printed."""
    from .terminal import escape, notice_on

    try:
        with connection.open_client() as client:
            client.note_wait = notice_on(sys.stderr, connection.server)
            return work(client)
    except StrokeClientError as error:
        print(escape(f"error: {error}"), file=sys.stderr)
        return 1


def _read_server(text: str) -> str:
    try:
        return parse_address(text).text
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _read_timeout(text: str) -> float:
    try:
        return check_timeout(float(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds") from None


_READERS: dict[str, Any] = {"server": _read_server, "timeout": _read_timeout}
