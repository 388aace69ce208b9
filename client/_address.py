"""Addresses of servers: one host, a list of hosts, a name with several addresses, or a socket of this machine."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

DEFAULT_PORT = 50051

_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:/\[\],]+)(?::(.*))?")


@dataclass(frozen=True)
class Address:
    """Where the servers are."""

    text: str
    """The address as messages call it, complete with ports."""

    hosts: tuple[tuple[str, int], ...]
    """Hosts (names or literals without brackets) with ports; empty for a Unix socket and gRPC's other forms."""

    is_balanced: bool
    """True where there may be several servers: calls take turns among those that say they are healthy."""

    @property
    def is_local(self) -> bool:
        """True when nothing leaves this machine: a Unix socket, or loopback addresses alone."""
        return self.text.startswith("unix") or (
            len(self.hosts) > 0 and all(_is_loopback(host) for host, _ in self.hosts)
        )

    def resolve(self) -> str:
        """Returns the target for gRPC. The names of a list are looked up here, once; ``dns:///NAME`` is looked up again
        by gRPC whenever a connection breaks.

        Raises:
            OSError: none of the names is known.
        """
        if len(self.hosts) < 2:
            return self.text
        found: list[str] = []
        fault: OSError | None = None
        for host, port in self.hosts:
            try:
                answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as error:  # one box whose name is gone must not keep the others from working
                fault = error
                continue
            # gRPC takes a list of one family alone; where there are both, hospital networks are reached by IPv4.
            family = min(answer[0] for answer in answers)
            name = next(str(answer[4][0]) for answer in answers if answer[0] == family)
            found.append(f"{name}:{port}" if family == socket.AF_INET else f"[{name}]:{port}")
        if fault is not None and not found:
            raise fault
        if any(name.startswith("[") for name in found):
            if not all(name.startswith("[") for name in found):
                raise OSError("the list has IPv4 and IPv6 hosts: use those of one kind")
            return "ipv6:" + ",".join(found)
        return "ipv4:" + ",".join(found)


def parse_address(text: str) -> Address:
    """Returns the address that ``text`` means: ``HOST[:PORT]``, several of them separated by commas,
    ``dns:///NAME[:PORT]`` (all addresses of a name), ``unix:/PATH``, or another form of gRPC, which is left as it is.

    Raises:
        ValueError: it is empty, or a port is none; gRPC would silently take 443 for no port, and a too large one
            modulo 65536.
    """
    if not text or not text.isprintable() or " " in text:
        raise ValueError(f"the server's address must have the form HOST:PORT, not {text!r}")
    if text.startswith("dns:///"):
        host, port = _parse_host(text.removeprefix("dns:///"), text)
        return Address(f"dns:///{_join(host, port)}", ((host, port),), is_balanced=True)
    # unix:/path, ipv4:1.2.3.4:5, and whatever else gRPC knows how to read
    if re.match(r"(unix|unix-abstract|vsock|ipv4|ipv6|dns|xds|passthrough):[^,]*[/:]", text) or text.startswith("unix"):
        return Address(text, (), is_balanced="," in text)
    hosts = tuple(_parse_host(part, text) for part in text.split(","))
    return Address(",".join(_join(host, port) for host, port in hosts), hosts, is_balanced=len(hosts) > 1)


def _parse_host(part: str, text: str) -> tuple[str, int]:
    match = _HOST_AND_PORT.fullmatch(part)
    if match is None:
        raise ValueError(f"the server's address must have the form HOST:PORT, not {text!r}")
    host, port = match.groups()
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"the server's address {text!r} must end with a port between 1 and 65535")
    return host.strip("[]"), DEFAULT_PORT if port is None else int(port)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
