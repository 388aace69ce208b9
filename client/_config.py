"""Settings of a client, with their defaults and checks. Standard library only, so that `--help` starts fast.

Annotations are evaluated here, for the reason that ``client._types`` states.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from ._address import Address

DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_TIMEOUT = 10.0
DEFAULT_MAX_IMAGE_BYTES = 64 * 1024 * 1024
"""Not the limit of the server, which is lower and which only the server knows: it keeps a wrong file (a video, a disk
image) from being read into memory and sent."""

DEFAULT_IN_FLIGHT = 16
"""Two messages of eight images: enough to keep the workers of a small box busy while answers travel. Each image is held
in memory."""

MIN_PING_SECONDS = 10.0
"""Twice what a StrokeServe allows at least between two pings, for clocks and networks that jitter."""

Pem: TypeAlias = str | os.PathLike[str] | bytes
"""Certificates or a key in PEM form: the path of a file, or its content as bytes."""

Token: TypeAlias = str | Callable[[], str]
"""A bearer token, or what returns the one that holds now; it is asked before each call."""


@dataclass(frozen=True, kw_only=True)
class TLSConfig:
    """How the connection is encrypted, and who proves what to whom. Files are read when the client is made.

    Raises:
        ValueError: a certificate without its key, or a key without its certificate.
    """

    ca: Pem | None = field(default=None, repr=False)
    """Certificates of the authorities that may vouch for the server; None: the public ones that gRPC brings. The
    own authority of a hospital has to be named here."""

    certificate: Pem | None = field(default=None, repr=False)
    """This client's certificate, its chain after it, for servers that ask for one (mutual TLS); needs ``key``."""

    key: Pem | None = field(default=None, repr=False)
    """Private key of ``certificate``, without a passphrase."""

    server_name: str | None = None
    """Name that the server's certificate must hold; None: the host of the address. Needed where a box is reached by
    another name than its certificate's, and for a list of several hosts, whose certificates must all hold this one."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate and its key belong together: give both or neither")


@dataclass(frozen=True, kw_only=True)
class RetryConfig:
    """How calls are repeated that a server refused for now, or that a restarting or vanished one dropped.

    All calls are pure, so sending twice does no harm. Repetitions end with the timeout of the call (in
    ``predict_many``: of the image), or earlier by these settings. Where the server says when to come again, it is not
    asked before.

    Raises:
        ValueError: a figure is out of range; the message names it.
    """

    max_attempts: int | None = None
    """Tries in all, in [1, 5]; None: as many as the timeout has time for. 1 repeats nothing, in ``predict_many``
    neither: a stream that breaks ends the run, an image that is refused for now has failed."""

    initial_backoff: float = 0.2
    """Seconds before the second try, > 0; spread by chance, so that clients do not come in step."""

    max_backoff: float = 0.5
    """Most seconds between two tries, >= ``initial_backoff``, on top of what the server asks for."""

    backoff_multiplier: float = 2.0
    """Growth of the pause from try to try, >= 1."""

    throttle_tokens: int | None = None
    """In [1, 1000]. Each failed try of a single call takes a token, each good answer gives a tenth back; with half of
    them gone nothing is repeated. None: pauses alone keep a server from being flooded."""

    def __post_init__(self) -> None:
        if self.max_attempts is not None and not 1 <= self.max_attempts <= 5:
            raise ValueError(f"max_attempts must be in [1, 5], not {self.max_attempts}")
        if not 0 < self.initial_backoff <= self.max_backoff < math.inf:
            raise ValueError(
                f"0 < initial_backoff <= max_backoff must hold, not {self.initial_backoff} and {self.max_backoff}"
            )
        if not 1 <= self.backoff_multiplier < math.inf:
            raise ValueError(f"backoff_multiplier must be at least 1, not {self.backoff_multiplier}")
        if self.throttle_tokens is not None and not 1 <= self.throttle_tokens <= 1000:
            raise ValueError(f"throttle_tokens must be in [1, 1000], not {self.throttle_tokens}")


@dataclass(frozen=True, kw_only=True)
class KeepAliveConfig:
    """Pings that keep an idle connection alive in firewalls, and find one that is dead.

    Hospital firewalls forget connections on which nothing passes, often after a few minutes, without telling anybody:
    the next call would hang until its deadline.

    Raises:
        ValueError: a figure is out of range; the message names it.
    """

    interval: float = 30.0
    """Seconds between two pings, >= 10: servers end connections that ping more often than they allow. A StrokeServe
    allows 5 s; gRPC servers that were never told to allow anything, 300 s."""

    timeout: float = 10.0
    """Seconds that the answer to a ping may take before the connection counts as dead; > 0."""

    def __post_init__(self) -> None:
        if not MIN_PING_SECONDS <= self.interval < math.inf:
            raise ValueError(f"interval must be at least {MIN_PING_SECONDS:g} s, not {self.interval}")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout must be more than 0 s, not {self.timeout}")


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """All settings of one client, checked. ``StrokeClient`` describes them.

    ``tls`` is what ``client.tls.credentials.load_tls`` returned: with contents in place of file names.

    Raises:
        ValueError: a setting is out of range; the message names it.
    """

    address: Address
    timeout: float = DEFAULT_TIMEOUT
    tls: TLSConfig | None = None
    token: Token | None = field(default=None, repr=False)
    retry: RetryConfig = RetryConfig()
    keep_alive: KeepAliveConfig = KeepAliveConfig()
    max_image_bytes: int = DEFAULT_MAX_IMAGE_BYTES

    def __post_init__(self) -> None:
        check_timeout(self.timeout)
        if self.max_image_bytes < 1:
            raise ValueError(f"max_image_bytes must be at least 1, not {self.max_image_bytes}")
        if isinstance(self.token, str) and (fault := find_token_fault(self.token)) is not None:
            raise ValueError(f"the token cannot be sent: it {fault}")
        if self.token is not None and self.tls is None and not self.address.is_local:
            raise ValueError(
                f"a token would travel in plain text to {self.address.text}: use TLS (tls=TLSConfig(...), --tls-ca)"
            )
        hosts = {host for host, _ in self.address.hosts}
        if self.tls is not None and self.tls.server_name is None and len(hosts) > 1:
            raise ValueError(
                "TLS to a list of hosts needs the one name that all their certificates hold: "
                "TLSConfig(server_name=...), --tls-name"
            )


def check_timeout(timeout: float) -> float:
    """Returns ``timeout`` in seconds when it is usable: without an end, a call to a dead server would never return."""
    if not (timeout > 0 and math.isfinite(timeout)):
        raise ValueError(f"timeout must be a positive, finite number of seconds, not {timeout}")
    return timeout


def find_token_fault(token: object) -> str | None:
    """Returns why ``token`` cannot be sent as a bearer token (RFC 6750), without showing it; None when it can."""
    if not isinstance(token, str):
        return f"is no str but {type(token).__name__}"
    if not token:
        return "is empty"
    if not (token.isascii() and token.isprintable()) or " " in token:
        return "has characters other than printable ASCII, or spaces"
    return None


for _setting in (TLSConfig, RetryConfig, KeepAliveConfig):
    _setting.__module__ = __package__  # where users import it from
