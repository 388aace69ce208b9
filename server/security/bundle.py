"""The files of TLS, read and proven together: certificate, key and the authorities of clients.

They are read with the standard library alone, which has no function that describes a certificate of one's own. So a
handshake is made in memory with it: that proves what counts, that the key belongs to the certificate and that it is one
for servers, and whoever has shaken hands is told what the certificate says.
"""

from __future__ import annotations

import binascii
import os
import re
import ssl
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.machine.bounded_file import open_regular, read_open

MOST_BYTES = 1024 * 1024
"""Of a file: some hundred certificates."""

NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which ``ssl`` does not name: when a certificate holds is judged elsewhere."""

ROUNDS = 6
"""Turns that each side of a handshake gets; TLS 1.3 needs two, and one more for its tickets."""

CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----([^-]*)")

UNUSABLE_KEYS = {"Ed25519": "06032b6570", "Ed448": "06032b6571", "P-521": "06052b81040023"}
"""Kinds of keys that gRPC loads and no gRPC client then accepts (seen with 1.85), by their identifiers in DER."""


class CertificateError(Exception):
    """Files of TLS cannot be used; the text is one sentence that says which, why and what to do, never a content."""


@dataclass(frozen=True)
class TLSFiles:
    """Where the files are, all in PEM form."""

    certificate: Path
    """The server's own, followed by those between it and the root, if any."""

    key: Path
    client_ca: Path | None = None
    """Authorities of which clients must have a certificate; None: clients need none."""

    def list_paths(self) -> tuple[Path, ...]:
        """All that are set."""
        return (self.certificate, self.key, *((self.client_ca,) if self.client_ca else ()))


@dataclass(frozen=True)
class Validity:
    """When a certificate holds."""

    role: str
    """``server`` or ``client-ca``."""

    subject: str
    """Common name, otherwise organisation or first name that it holds for; may be empty."""

    names: tuple[str, ...]
    """DNS names and addresses that it holds for; none for an authority."""

    not_before: float
    """Seconds since 1970, as ``not_after``."""

    not_after: float


@dataclass(frozen=True)
class Bundle:
    """What the files hold."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    server: Validity
    authorities: tuple[Validity, ...]
    """Of ``client_ca``."""


def read_bundle(files: TLSFiles) -> Bundle:
    """Reads and proves all files. When certificates hold is not judged.

    Raises:
        CertificateError: they cannot be used.
    """
    certificate = read_file(files.certificate, "--tls-cert")
    key = read_file(files.key, "--tls-key")
    server = describe_own(files, certificate, key)
    if files.client_ca is None:
        return Bundle(certificate, key, None, server, ())
    client_ca = read_file(files.client_ca, "--tls-client-ca")
    return Bundle(certificate, key, client_ca, server, describe_authorities(files.client_ca, client_ca))


def read_file(path: Path, flag: str) -> bytes:
    """Returns a file's bytes, of whatever is set by ``flag``.

    Raises:
        CertificateError: it cannot be read, or holds a key and others may read it.
    """
    try:
        descriptor = open_regular(path)
        try:
            data = read_open(descriptor, MOST_BYTES)
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CertificateError(f"{flag} {path} cannot be read: {error.strerror}") from None
    if PRIVATE_KEY.search(data) and is_open_to_others(status, os.geteuid()):
        raise CertificateError(
            f"{flag} {path} holds a private key that other users may read (mode {stat.S_IMODE(status.st_mode):o}): "
            f"chmod 600 {path}"
        )
    if b"-----BEGIN " not in data:
        raise CertificateError(f"{flag} {path} is not in PEM form: it must hold a line -----BEGIN ...-----")
    return data


def is_open_to_others(status: os.stat_result, user: int) -> bool:
    """Whether anybody but this user and root can read a file. One of root's may be lent to the group of a server that
    runs as another user: that is how Kubernetes and Debian's group ssl-cert give keys away."""
    lent = status.st_uid == 0 != user
    return bool(stat.S_IMODE(status.st_mode) & (0o037 if lent else 0o077))


def describe_own(files: TLSFiles, certificate: bytes, key: bytes) -> Validity:
    """Shakes hands with the pair, and returns what the certificate says.

    Raises:
        CertificateError: it cannot be used by a server.
    """
    blocks = CERTIFICATE.findall(certificate)
    if not blocks:
        raise CertificateError(f"--tls-cert {files.certificate} holds no whole certificate")
    if not PRIVATE_KEY.search(key):
        raise CertificateError(f"--tls-key {files.key} holds no private key")
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        load_pair(ours, certificate, key)
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            raise CertificateError(
                f"--tls-cert {files.certificate} and --tls-key {files.key} do not belong together: give the key that "
                "the certificate was made for"
            ) from None
        raise CertificateError(
            f"--tls-cert {files.certificate} and --tls-key {files.key} cannot be used: they must be PEM, whole, a "
            "certificate (its own first) and its key without a passphrase"
        ) from None
    if kind := find_unusable_kind(key):
        raise CertificateError(
            f"--tls-key {files.key} is of a kind that gRPC's clients do not take ({kind}): use P-256 or RSA"
        )
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname = False
    theirs.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(NO_CHECK_TIME)
    try:
        theirs.load_verify_locations(cadata=blocks[0].decode("ascii"))
        found = shake_hands(ours, theirs)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or "it cannot be read"
        raise CertificateError(f"--tls-cert {files.certificate} is not one for a server: {reason}") from None
    return describe("server", found)


def find_unusable_kind(key: bytes) -> str:
    """Names the kind of a private key in PEM form if nobody could connect with it; otherwise empty."""
    match = PRIVATE_KEY.search(key)
    der = binascii.a2b_base64(match.group(1)) if match else b""
    return next((kind for kind, identifier in UNUSABLE_KEYS.items() if bytes.fromhex(identifier) in der), "")


def load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Gives a pair to a context, which takes nothing but names of files: of one in memory, so that it is the very bytes
    that were read.

    Raises:
        ssl.SSLError: they are not a pair, or the key has a passphrase.
    """
    with open(os.memfd_create("pair"), "wb") as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        # Without an answer for the passphrase, OpenSSL would ask for it on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=b"")


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = None) -> dict[str, Any]:
    """Makes a handshake in memory, and returns what the client learns of the server's certificate.

    Args:
        server: its settings, with a certificate.
        client: its settings.
        name: by which the client calls the server, where it checks that.

    Raises:
        ssl.SSLError: it fails.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(ROUNDS):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].getpeercert() or {}


def describe_authorities(path: Path, data: bytes) -> tuple[Validity, ...]:
    """Returns what the authorities of clients say of themselves.

    Raises:
        CertificateError: there are none, or one is damaged or no authority.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blocks = CERTIFICATE.findall(data)
    try:
        for block in blocks:
            context.load_verify_locations(cadata=block.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise CertificateError(f"--tls-client-ca {path} holds a damaged certificate") from None
    stats = context.cert_store_stats()
    if not blocks or data.count(b"-----BEGIN CERTIFICATE-----") != len(blocks):
        raise CertificateError(f"--tls-client-ca {path} holds no whole certificate")
    if stats["x509_ca"] != stats["x509"]:
        raise CertificateError(
            f"--tls-client-ca {path} holds a certificate that is not one of an authority: give the one that has signed "
            "those of the clients"
        )
    return tuple(describe("client-ca", found) for found in context.get_ca_certs())


def describe(role: str, found: dict[str, Any]) -> Validity:
    """Takes the few fields out of what ``ssl`` says of a certificate."""
    names = tuple(value for kind, value in found.get("subjectAltName", ()) if kind in ("DNS", "IP Address"))
    subject = {kind: value for parts in found["subject"] for kind, value in parts}
    return Validity(
        role,
        subject.get("commonName") or (names and names[0]) or subject.get("organizationName") or "",
        names,
        ssl.cert_time_to_seconds(found["notBefore"]),
        ssl.cert_time_to_seconds(found["notAfter"]),
    )


def show_time(moment: float) -> str:
    """A day and minute for people."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
