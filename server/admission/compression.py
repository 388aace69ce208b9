"""Messages as their senders compressed them, inflated within a bound."""

from __future__ import annotations

import zlib

from server.errors import RequestError, malformed_request

TOO_LARGE = "MESSAGE_TOO_LARGE"


def is_compressed(data: bytes) -> bool:
    """Whether a message is compressed by gzip or deflate, the compressions that gRPC has.

    No message of this API begins like one of these: 0x1f is no field, 0x78 a field of a number that it does not use.
    """
    is_deflate = data[:1] == b"\x78" and len(data) > 1 and int.from_bytes(data[:2], "big") % 31 == 0
    return data[:2] == b"\x1f\x8b" or is_deflate


def inflate(data: bytes, most_bytes: int) -> bytes:
    """Returns a message as it was before its sender compressed it.

    Raises:
        RequestError: reasons REQUEST_MALFORMED, and MESSAGE_TOO_LARGE when more than ``most_bytes`` come out.
    """
    if not is_compressed(data):
        return data
    stream = zlib.decompressobj(wbits=47)  # either of the two
    try:
        plain = stream.decompress(data, most_bytes + 1)
    except zlib.error:
        raise malformed_request() from None
    if len(plain) > most_bytes:
        raise RequestError(
            TOO_LARGE,
            f"Without compression the message has more than {most_bytes:,} bytes: send less at a time.",
        )
    if not stream.eof:
        raise malformed_request()
    return plain
