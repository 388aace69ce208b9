"""Addresses of servers: one host, a list of hosts, a name with several addresses, or a socket of this machine."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
from dataclasses import dataclass

logger = logging.getLogger(__package__)

DEFAULT_PORT = 50051

_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[^:/\[\],@?#]+)(?::(.*))?")

_SCHEME = re.compile(r"(unix|unix-abstract|vsock|ipv4|ipv6|dns|xds|passthrough):(?!\d+$)(.+)")
"""gRPC's own forms. Digits alone behind the colon are a port: a host may be called ``dns``."""

_URL = re.compile(r"([A-Za-z][\w+.-]*)://([^/]*)")
"""What people copy from a browser or another program's settings."""

_TWO_SLASHES = re.compile(r"(dns|unix)://(?:(?<=dns://)(?=[^/]+/?$)|(?<=unix://)(?!/))")
"""gRPC takes what stands behind two slashes for the server that knows names."""

_NAMES = re.compile(r"dns://(?:[^/]+(?=/[^/]))?/")
"""Begins a name that is looked up: by this machine, or by the server of names that stands in between."""

_PATH = re.compile(r"[/?#].*")

_ENCRYPTED = ("https", "grpcs", "wss", "tls", "ssl")


@dataclass(frozen=True)
class Address:
    """Where the servers are."""

    text: str
    """The address as messages call it, complete with ports."""

    hosts: tuple[tuple[str, int], ...]
    """Hosts (names or literals without brackets) with ports; empty for a Unix socket and gRPC's other forms."""

    is_balanced: bool
    """True where there may be several servers: calls go round robin to those that say they are healthy."""

    is_local: bool
    """True when nothing leaves this machine: a Unix socket, or loopback addresses alone."""

    @property
    def name(self) -> str:
        """What a certificate must hold when no other name is given: the first host, ``localhost`` for a socket of this
        machine, empty where only gRPC knows."""
        if self.hosts:
            return self.hosts[0][0]
        return "localhost" if self.is_local else ""

    @property
    def may_grow(self) -> bool:
        """True for a name with several addresses, which gets others when servers are added."""
        return self.is_balanced and len(self.hosts) == 1

    @property
    def is_looked_up_once(self) -> bool:
        """True for a list with names: ``resolve`` fixes them, and a box that moves is not found again."""
        return len(self.hosts) > 1 and not all(is_literal(host) for host, _ in self.hosts)

    def resolve(self) -> str:
        """Returns the target for gRPC.

        A single name is looked up by gRPC, again whenever a connection breaks. gRPC has no such thing for a list: its
        names are looked up here, once. Where boxes move, use literals or one name with several addresses
        (``dns:///boxes``). A name of the list that is not known is left out, with a warning in the log.

        Raises:
            OSError: none of the names is known.
            ValueError: some hosts have only IPv4 and others only IPv6 addresses.
        """
        if not self.hosts:
            return self.text
        if len(self.hosts) == 1:
            # Said in full: gRPC would take the host of "unix:50051" for a scheme.
            return self.text if _NAMES.match(self.text) else "dns:///" + self.text
        found: list[dict[int, str]] = []
        fault: OSError | None = None
        unknown: list[str] = []
        for host, port in self.hosts:
            try:
                answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as error:  # one box whose name is gone must not keep the others from working
                fault, unknown = error, [*unknown, host]
                continue
            found.append({family: _join(str(where[0]), port) for family, _, _, _, where in reversed(answers)})
        if fault is not None and not found:
            raise fault
        if unknown:
            logger.warning("not known and left out of the servers: %s", ", ".join(unknown))
        for scheme, family in (("ipv4", socket.AF_INET), ("ipv6", socket.AF_INET6)):  # gRPC takes a list of one kind
            if all(family in addresses for addresses in found):
                return f"{scheme}:" + ",".join(addresses[family] for addresses in found)
        raise ValueError(f"{self.text} has hosts with IPv4 and others with IPv6 addresses: name hosts of one kind")


def parse_address(text: str) -> Address:
    """Returns the address that ``text`` means: ``HOST[:PORT]``, several of them separated by commas,
    ``dns:///NAME[:PORT]`` (all addresses of a name; ``dns://HOST/NAME`` as HOST knows them), ``unix:/PATH``, or another
    form of gRPC, which is left as it is.

    Raises:
        ValueError: it is empty, or a port is none; gRPC would silently take 443 for no port, and a too large one
            modulo 65536.
    """
    if not text or not text.isprintable() or " " in text:
        raise _not_an_address(text)
    if (match := _TWO_SLASHES.match(text)) is not None:
        raise ValueError(f"the server's address has three slashes: {match.group(1)}:///{text[match.end() :]}")
    if (match := _NAMES.match(text)) is not None:
        return _from_hosts(match[0], (_parse_host(text[match.end() :], text),), is_balanced=True)
    if (match := _SCHEME.fullmatch(text)) is not None:
        scheme, rest = match.groups()
        if scheme not in ("ipv4", "ipv6"):
            return Address(text, (), is_balanced="," in text, is_local=scheme.startswith("unix"))
        text = rest  # the form of a list says the same
    if (url := _URL.match(text)) is not None:
        raise _not_a_url(text, url.group(1))
    hosts = tuple(_parse_host(part, text) for part in text.split(","))
    return _from_hosts("", hosts, is_balanced=len(hosts) > 1)


def _from_hosts(prefix: str, hosts: tuple[tuple[str, int], ...], *, is_balanced: bool) -> Address:
    return Address(
        prefix + ",".join(_join(host, port) for host, port in hosts),
        hosts,
        is_balanced=is_balanced,
        is_local=all(_is_loopback(host) for host, _ in hosts),
    )


def _parse_host(part: str, text: str) -> tuple[str, int]:
    if (found := _read_host(part)) is not None:
        return found
    bare = _PATH.sub("", part)
    if bare != part and _read_host(bare) is not None:
        raise ValueError(f"the server's address stands without a path: {text.replace(part, bare)}")
    if _HOST_AND_PORT.fullmatch(part):
        raise ValueError(f"the server's address {text!r} must end with a port between 1 and 65535")
    raise _not_an_address(text)


def _read_host(part: str) -> tuple[str, int] | None:
    """Returns host and port; None where it is no host, or the port is none."""
    if (match := _HOST_AND_PORT.fullmatch(part)) is None:
        return None
    host, port = match.groups(default=str(DEFAULT_PORT))
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    return (host.strip("[]"), int(port)) if is_port else None


def _not_an_address(text: str) -> ValueError:
    return ValueError(
        f"the server's address must have the form HOST:PORT, HOST:PORT,HOST:PORT, dns:///NAME:PORT or unix:/PATH, not "
        f"{text!r}; an IPv6 address stands in brackets"
    )


def _not_a_url(text: str, scheme: str) -> ValueError:
    address = ",".join(_URL.sub(r"\2", part).split("/")[0] for part in text.split(","))
    encryption = "; TLS has settings of its own: tls=TLSConfig(...), --tls-ca" if scheme.lower() in _ENCRYPTED else ""
    return ValueError(f"the server's address stands without {scheme}://: {address or 'HOST:PORT'}{encryption}")


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_literal(host: str) -> bool:
    """True for an IPv4 or IPv6 address, False for a name, which has to be looked up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (is_literal(host) and ipaddress.ip_address(host).is_loopback)
