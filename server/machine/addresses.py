"""Addresses of this machine to listen on, and a sentence that is true where that cannot be."""

from __future__ import annotations

import errno
import ipaddress
import socket


class ListenError(Exception):
    """The address cannot be listened on; the text says why and what to do."""


def resolve_host(host: str) -> tuple[socket.AddressFamily, str]:
    """Returns one numeric address of a host, IPv4 before IPv6.

    Raises:
        ListenError: the name is unknown.
    """
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        hint = "; --host takes no port: give it with --port" if name.count(":") == 1 else ""
        if error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL):
            raise ListenError(f"cannot listen on {host}: the name cannot be looked up ({error.strerror})") from None
        raise ListenError(f"cannot listen on {host}: the name or address is unknown{hint}") from None
    except (UnicodeError, ValueError):
        raise ListenError(f"cannot listen on {host}: is neither a name nor an address") from None
    family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, str(address[0])


def check_reach(host: str, address: str, *, is_protected: bool, stay: str) -> None:
    """Checks that nothing in plain text leaves this machine unless that is wanted.

    Args:
        host: as it was given.
        address: its number.
        is_protected: there is TLS, or none is wanted.
        stay: the flags with which a server stays on this machine.

    Raises:
        ListenError: it would.
    """
    if not is_protected and not ipaddress.ip_address(address).is_loopback:
        raise ListenError(
            f"cannot listen on {host}: without TLS, anybody on the way can read and change images and answers. Encrypt "
            "with --tls-cert and --tls-key ('python -m server certs' makes both); or stay on this machine, behind what "
            f"encrypts, with {stay}; or say --insecure where the network itself is trusted"
        )


def describe_error(error: OSError, family: socket.AddressFamily, address: str, flag: str = "") -> str:
    """A sentence for what the system says of a port.

    Args:
        error: what it says.
        family: of the address.
        address: a number.
        flag: with which both address and port are given; empty: --host and --port.
    """
    host, port = flag or "--host", flag or "--port"
    no_ipv6 = f"this machine has no IPv6; give an IPv4 address with {host}"
    if error.errno == errno.EADDRINUSE:
        return f"the port is taken; choose another with {port} (0 takes a free one)"
    if error.errno == errno.EAFNOSUPPORT and family == socket.AF_INET6:
        return no_ipv6
    if error.errno == errno.EADDRNOTAVAIL:
        if family == socket.AF_INET6 and address in ("::", "::1"):
            return no_ipv6
        all_there_are = "(0.0.0.0 for all that this machine has)"
        return f"the address is not one of this machine; choose another with {host} {all_there_are}"
    if error.errno == errno.EACCES:
        return f"permission denied: ports below 1024 are not for every user; choose a higher one with {port}"
    if error.errno == errno.EPERM:
        return "permission denied: the system forbids this process to listen there"
    return error.strerror or str(error)
