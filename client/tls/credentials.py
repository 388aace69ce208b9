"""Certificates, keys and token files: read, checked, and handed on; never shown. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from .._config import Pem, TLSConfig, find_token_fault
from .._errors import AuthenticationError
from .certificate import split_pem

if TYPE_CHECKING:
    import ssl


def load_tls(tls: TLSConfig) -> TLSConfig:
    """Returns the same settings with the content of the files in place of their names, checked.

    Raises:
        ValueError: a file cannot be read or is of another kind, the key belongs to another certificate or has a
            passphrase; the message names setting and file, never the content.
    """
    import ssl  # 15 ms, and only where TLS is used

    ca = None if tls.ca is None else _read_pem(tls.ca, "authority's certificate (--tls-ca)")
    if ca is not None:
        _check_authorities(ca, _name_file(tls.ca))
    if tls.certificate is None or tls.key is None:
        return TLSConfig(ca=ca, server_name=tls.server_name)
    loaded = TLSConfig(
        ca=ca,
        certificate=_read_pem(tls.certificate, "client certificate (--tls-cert)"),
        key=_read_pem(tls.key, "private key (--tls-key)"),
        server_name=tls.server_name,
    )
    files = f"client certificate{_name_file(tls.certificate)} and private key{_name_file(tls.key)}"
    try:
        present_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), loaded)
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            raise ValueError(
                f"{files} do not belong together: give the key that the certificate was made for"
            ) from None
        raise ValueError(f"{files} cannot be used: they must be PEM, an X.509 certificate and its key") from None
    return loaded


def present_certificate(context: ssl.SSLContext, tls: TLSConfig) -> None:
    """Makes ``context`` show the client certificate of settings from ``load_tls``.

    Raises:
        ssl.SSLError: certificate and key do not fit each other, or are none.
        ValueError: the key has a passphrase.
    """
    assert isinstance(tls.certificate, bytes)
    assert isinstance(tls.key, bytes)

    def refuse_passphrase() -> str:  # OpenSSL would ask for it on the terminal
        raise ValueError("the private key (--tls-key) has a passphrase: store it without one, readable for you alone")

    with _as_file(tls.certificate + b"\n" + tls.key) as path:
        context.load_cert_chain(path, password=refuse_passphrase)


def read_token_file(path: str) -> str:
    """Returns the token that a file holds.

    Raises:
        AuthenticationError: it cannot be read, or holds something else; the message names it, never its content.
    """
    try:
        with open(path, encoding="ascii") as file:
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not ASCII text"
        raise AuthenticationError(f"the token file {path} cannot be read: {why}", "TOKEN_UNREADABLE") from None
    if (fault := find_token_fault(token)) is not None:
        raise AuthenticationError(f"the token file {path} must hold one token: it {fault}", "TOKEN_UNREADABLE")
    return token


def _read_pem(pem: Pem, what: str) -> bytes:
    if isinstance(pem, bytes):
        data = pem
    else:
        try:
            with open(pem, "rb") as file:
                data = file.read()
        except OSError as error:
            raise ValueError(f"the {what}{_name_file(pem)} cannot be read: {error.strerror}") from None
    if b"-----BEGIN " not in data:
        raise ValueError(f"the {what}{_name_file(pem)} is not in PEM form: it must hold a line -----BEGIN ...-----")
    return data


def _check_authorities(ca: bytes, name: str) -> None:
    import ssl

    try:
        blocks = b"\n".join(split_pem(ca)).decode("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=blocks or "none")
    except (ssl.SSLError, UnicodeDecodeError):
        raise ValueError(f"the authority's certificate (--tls-ca){name} holds no readable certificate") from None


def _name_file(pem: Pem | None) -> str:
    return "" if pem is None or isinstance(pem, bytes) else f" {os.fspath(pem)}"


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """Gives ``data`` a path, which is the only form in which ``ssl`` takes keys; in memory where the system can."""
    import tempfile  # 5 ms

    memory = _open_memory()
    # Only its owner may read the other one.
    with memory if memory is not None else tempfile.NamedTemporaryFile(delete=False) as file:
        try:
            file.write(data)
            file.flush()
            if memory is None:
                file.close()  # Windows opens no file twice
            yield str(file.name) if memory is None else f"/proc/self/fd/{file.fileno()}"
        finally:
            if memory is None:
                os.unlink(file.name)


def _open_memory() -> BinaryIO | None:
    """Returns a file without a name; None where the system has none (Linux alone does)."""
    with suppress(AttributeError, OSError):
        if os.path.isdir("/proc/self/fd"):
            return open(os.memfd_create("pem"), "wb")
    return None
