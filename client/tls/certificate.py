"""What messages say of a certificate: whose it is, who issued it, for which names and how long it holds.

Python's ``ssl`` describes only certificates that it has verified, and those in question here are the others. So the
few fields are read from the DER form (X.509 v3, RFC 5280) here. Nothing is trusted that is read: it is only shown.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_COMMON_NAME = bytes.fromhex("550403")
_ORGANISATION = bytes.fromhex("55040a")
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")

_INTEGER, _OCTETS, _OID, _UTC_TIME, _EXPLICIT_0, _EXPLICIT_3 = 0x02, 0x04, 0x06, 0x17, 0xA0, 0xA3
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87

_LONGEST_TEXT = 80
"""Characters of a name that are shown; a certificate can come from anybody."""


@dataclass(frozen=True)
class Certificate:
    """The fields that messages name."""

    subject: str
    """Common name or organisation that it was issued to; empty when it has neither."""

    issuer: str
    """Common name or organisation of the authority that signed it; its own subject when it is self-signed."""

    is_self_signed: bool
    """True when issuer and subject are the same."""

    names: tuple[str, ...]
    """DNS names and IP addresses that it holds for; the common name where it lists none."""

    not_before: datetime
    """Start of its validity, UTC."""

    not_after: datetime
    """End of its validity, UTC."""


def parse_certificate(der: bytes) -> Certificate | None:
    """Returns the fields of a certificate in DER form; None when it cannot be read."""
    try:
        return _parse(der)
    except (ValueError, IndexError, StopIteration):
        return None


def split_pem(pem: bytes) -> list[bytes]:
    """Returns the certificates of a PEM file, each with its BEGIN and END lines."""
    return re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem, re.DOTALL)


def _parse(der: bytes) -> Certificate:
    (_, certificate), *_ = _fields(der)
    (_, signed), *_ = _fields(certificate)
    fields = [field for field in _fields(signed) if field[0] not in (_EXPLICIT_0, _INTEGER)]
    issuer, validity, subject = fields[1][1], fields[2][1], fields[3][1]  # 0 is the algorithm
    start, end = (_read_time(tag, content) for tag, content in _fields(validity))
    names = [name for tag, content in fields if tag == _EXPLICIT_3 for name in _read_names(content)]
    own = _read_name(subject)
    return Certificate(
        subject=own,
        issuer=_read_name(issuer),
        is_self_signed=issuer == subject,
        names=tuple(names) or ((own,) if own else ()),
        not_before=start,
        not_after=end,
    )


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields tag and content of the DER values that stand one after the other."""
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length & 0x80:  # long form: the number of bytes that hold the length
            size = length & 0x7F
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        if position + length > len(data):
            raise ValueError("cut off")
        yield tag, data[position : position + length]
        position += length


def _read_name(name: bytes) -> str:
    parts: dict[bytes, str] = {}
    for _, group in _fields(name):
        for _, attribute in _fields(group):
            (_, kind), (_, value), *_ = _fields(attribute)
            parts[kind] = _show(value)
    return parts.get(_COMMON_NAME) or parts.get(_ORGANISATION) or ""


def _read_time(tag: int, content: bytes) -> datetime:
    pattern = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(content.decode("ascii"), pattern).replace(tzinfo=UTC)


def _read_names(extensions: bytes) -> Iterator[str]:
    (_, listed), *_ = _fields(extensions)
    for _, extension in _fields(listed):
        parts = list(_fields(extension))
        if parts[0] != (_OID, _ALTERNATIVE_NAMES) or parts[-1][0] != _OCTETS:
            continue
        (_, names), *_ = _fields(parts[-1][1])
        for tag, content in _fields(names):
            if tag == _DNS_NAME:
                yield _show(content)
            elif tag == _IP_ADDRESS:
                yield str(ipaddress.ip_address(content))


def _show(value: bytes) -> str:
    text = value.decode("utf-8", errors="replace")[:_LONGEST_TEXT]
    return "".join(character if character.isprintable() else "?" for character in text)
