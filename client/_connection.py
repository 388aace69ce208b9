"""The connection's flags, with their environment names, for every sub-command. Standard library only at import."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from client._address import parse_address
from client._config import DEFAULT_TARGET, DEFAULT_TIMEOUT, check_timeout

if TYPE_CHECKING:
    from client._client import StrokeClient

ENVIRONMENT_PREFIX = "STROKE_"


def setting(default: Any, text: str, metavar: str) -> Any:
    """A field with its help text and the name of its value."""
    return field(default=default, metadata={"help": text, "metavar": metavar})


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where the servers are and how they are reached. ``tls_ca`` is ``--tls-ca`` and ``STROKE_TLS_CA``; flags win."""

    server: str = setting(DEFAULT_TARGET, "server, or several: a:50051,b:50051 or dns:///boxes", "HOST:PORT")
    timeout: float = setting(DEFAULT_TIMEOUT, "seconds that one image may take", "S")
    tls_ca: str = setting("", "authority of the server's certificate; with it or --tls-cert, TLS is used", "FILE")
    tls_cert: str = setting("", "this client's certificate", "FILE")
    tls_key: str = setting("", "its private key", "FILE")
    tls_name: str = setting("", "name in the server's certificate, where it is not the host's", "NAME")
    token_file: str = setting("", "file with a bearer token, read again before each call", "FILE")

    def open_client(self) -> StrokeClient:
        """Returns a client; the caller closes it.

        Raises:
            ValueError: the settings do not go together, or a file cannot be read; the message says which.
        """
        from client._client import StrokeClient
        from client._config import TLSConfig

        tls = None
        if self.tls_ca or self.tls_cert or self.tls_key or self.tls_name:
            tls = TLSConfig(
                ca=self.tls_ca or None,
                certificate=self.tls_cert or None,
                key=self.tls_key or None,
                server_name=self.tls_name or None,
            )
        token = None
        if self.token_file:
            self._read_token()  # a missing file is wrong usage, said before anything is sent
            token = self._read_token
        return StrokeClient(self.server, timeout=self.timeout, tls=tls, token=token)

    def _read_token(self) -> str:
        try:
            with open(self.token_file, encoding="ascii") as file:
                token = file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not ASCII text"
            raise ValueError(f"the token file {self.token_file} cannot be read: {why}") from None
        if not token or not token.isprintable() or " " in token:
            raise ValueError(f"the token file {self.token_file} must hold one token and nothing else")
        return token


def add_connection_flags(parser: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Adds the flags of ``Connection`` to a command line."""
    for setting_field in fields(Connection):
        parser.add_argument(
            "--" + setting_field.name.replace("_", "-"),
            type=_READERS.get(setting_field.name, str),
            default=None,  # so that a flag that was not given leaves the word to the environment
            metavar=setting_field.metadata["metavar"],
            help=setting_field.metadata["help"],
        )


def read_connection(
    parser: argparse.ArgumentParser, options: argparse.Namespace, environment: Mapping[str, str] = os.environ
) -> Connection:
    """Returns the settings from flags and environment; a value that cannot be used ends the process with status 2."""
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
    return Connection(**values)


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
