"""``python -m server certs``: a private authority, and certificates of it for a server and its clients.

For trying TLS, and for a small site without an authority of its own. Where a folder has an authority it goes on being
used, so that more clients can be added and certificates renewed, and nothing changes for those that there are.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from server.flags import LineParser, check_settings, parse_settings, quote, require, setting
from server.machine.bounded_file import read_regular
from server.process.console import complain, say
from server.security.bundle import MOST_BYTES, show_time

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey

AUTHORITY = "ca"
"""Name of the authority's two files."""

SERVER = "server"
HOSTS = ("localhost", "127.0.0.1")
CLIENTS = ("client",)
AUTHORITY_DAYS = 3650
EARLIER = timedelta(hours=1)
"""Certificates hold since then: clocks differ."""

CLIENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
"""Name of a client, also of its files."""

HOST_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,250}[A-Za-z0-9])?")
MOST_NAME_CHARACTERS = 64
"""Of a common name, says X.509."""

EXIT_FAILED = 1


class IssueError(Exception):
    """Certificates cannot be made; the text is one sentence that says why and what to do."""


@dataclass(frozen=True)
class CertsConfig:
    """All settings."""

    out: Path = setting(Path("certs"), "folder for the files; made if it is not there", metavar="DIR")
    host: tuple[str, ...] = setting(
        (), "names and addresses by which clients reach the server (default: localhost 127.0.0.1)", metavar="NAME"
    )
    client: tuple[str, ...] = setting((), "names of clients, each gets a certificate (default: client)", metavar="NAME")
    days: int = setting(365, "how long the certificates hold", least=1, most=AUTHORITY_DAYS)
    force: bool = setting(False, "replace certificates that are there, as for a renewal; never the authority")

    def __post_init__(self) -> None:
        check_settings(self)
        for host in self.host:
            fits = is_address(host) or HOST_NAME.fullmatch(host) is not None
            require(fits, "host", f"must be names or addresses without a port, got {quote(host)}")
        for client in self.client:
            is_free = CLIENT_NAME.fullmatch(client) is not None and client not in (AUTHORITY, SERVER)
            require(
                is_free, "client", f"must be names of letters, digits and ._@-, not ca or server, got {quote(client)}"
            )


@dataclass(frozen=True)
class Authority:
    """Who signs."""

    certificate: x509.Certificate
    key: PrivateKey


def main(argv: Sequence[str] | None = None) -> int:
    """Writes certificates and says how to use them. Returns 0, or 1 when that cannot be."""
    parser = LineParser(
        prog="python -m server certs",
        description="Makes a private authority and certificates of it for a server and its clients.",
        epilog=(
            "examples:\n"
            "  python -m server certs --out certs --host box-7.ward.example 10.0.0.7 --client pacs station-3\n"
            "  python -m server certs --out certs --client station-4           (one more, of the same authority)\n"
            "  python -m server certs --out certs --host box-7.ward.example --force   (renewed)\n\n"
            "A folder that has an authority keeps it; then only what is named is made."
        ),
    )
    config = parse_settings(parser, CertsConfig, argv)
    try:
        say(issue(config))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        complain("server certs: error: making certificates needs the package cryptography: pip install cryptography")
        return EXIT_FAILED
    except IssueError as error:
        complain(f"server certs: error: {error}")
        return EXIT_FAILED
    return 0


def issue(config: CertsConfig) -> str:
    """Writes what is asked for, and returns what to tell.

    Raises:
        IssueError: files are in the way, or the authority cannot be used.
        OSError: the folder cannot be written.
    """
    import cryptography  # noqa: F401  (before anything is written: it may be missing)

    has_authority = list_files(config.out, AUTHORITY)[0].exists() or list_files(config.out, AUTHORITY)[1].exists()
    is_all = not (has_authority and (config.host or config.client))
    hosts = config.host or (HOSTS if is_all else ())
    clients = tuple(dict.fromkeys(config.client or (CLIENTS if is_all else ())))
    check_free(config, [*((SERVER,) if hosts else ()), *clients])
    config.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = read_authority(config.out) if has_authority else make_authority(config.out)
    end = min(datetime.now(UTC) + timedelta(days=config.days), authority.certificate.not_valid_after_utc)
    if hosts:
        make_pair(config.out, SERVER, authority, hosts, end, is_server=True)
    for client in clients:
        make_pair(config.out, client, authority, (client,), end, is_server=False)
    return describe(config.out, hosts, clients, end)


def is_address(text: str) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def list_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Certificate and key of a name."""
    return folder / f"{name}.pem", folder / f"{name}.key"


def check_free(config: CertsConfig, names: Sequence[str]) -> None:
    """Checks that nothing is replaced by accident.

    Raises:
        IssueError: files of a name are there, and not to be replaced.
    """
    found = [path.name for name in names for path in list_files(config.out, name) if path.exists()]
    if found and not config.force:
        raise IssueError(
            f"{config.out} has {', '.join(found)}: --force replaces them (the authority stays); more clients get other "
            "names with --client"
        )


def read_authority(folder: Path) -> Authority:
    """Reads the authority of a folder.

    Raises:
        IssueError: it cannot be used.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    files = list_files(folder, AUTHORITY)
    hint = f"give another --out, or remove {files[0]} and {files[1]} to begin with a new authority"
    try:
        certificate = x509.load_pem_x509_certificate(read_regular(files[0], MOST_BYTES))
        key = load_pem_private_key(read_regular(files[1], MOST_BYTES), None)
    except (OSError, ValueError, TypeError) as error:
        why = getattr(error, "strerror", None) or "is damaged, or has a passphrase"
        raise IssueError(f"the authority in {folder} cannot be read ({why}): {hint}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        raise IssueError(f"certificate and key of the authority in {folder} do not belong together: {hint}")
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise IssueError(
            f"the authority in {folder} ended on {show_time(certificate.not_valid_after_utc.timestamp())}: {hint}"
        )
    return Authority(certificate, key)


def make_authority(folder: Path) -> Authority:
    """Makes an authority and writes its files. It signs certificates, not other authorities."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = make_name(f"StrokeServe authority {now:%Y-%m-%d}")
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(make_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_pair(list_files(folder, AUTHORITY), certificate, key)
    return Authority(certificate, key)


def make_pair(
    folder: Path, name: str, authority: Authority, names: Sequence[str], end: datetime, *, is_server: bool
) -> None:
    """Makes a certificate and its key, and writes both.

    Args:
        folder: where to.
        name: of the files.
        authority: signs it.
        names: what it holds for; the first is its common name.
        end: of its validity.
        is_server: it is for servers; otherwise for clients. Neither can take the other's part.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if is_server else ExtendedKeyUsageOID.CLIENT_AUTH
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    alternatives: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(one))
        if is_address(one)
        else x509.RFC822Name(one)
        if "@" in one
        else x509.DNSName(one)
        for one in names
    ]
    certificate = (
        x509.CertificateBuilder(
            authority.certificate.subject, make_name(names[0]), key.public_key(), x509.random_serial_number()
        )
        .not_valid_before(datetime.now(UTC) - EARLIER)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(make_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    write_pair(list_files(folder, name), certificate, key)


def make_name(common_name: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name[:MOST_NAME_CHARACTERS])])


def make_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """What a key is for: an authority's signs certificates, any other one handshakes."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def write_pair(files: tuple[Path, Path], certificate: x509.Certificate, key: PrivateKey) -> None:
    """Writes a certificate and its key; a server that has them in use takes them as soon as both are there."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    write_whole(files[1], key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    write_whole(files[0], certificate.public_bytes(Encoding.PEM), 0o644)


def write_whole(path: Path, data: bytes, mode: int) -> None:
    """Writes a file under another name and renames it, so that there is never a part of it; it has its mode from the
    first moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def describe(folder: Path, hosts: Sequence[str], clients: Sequence[str], end: datetime) -> str:
    """What was made, and the commands that use it."""

    def path(name: str) -> str:
        return shlex.quote(str(folder / name))

    made = ", ".join([*((f"server ({', '.join(hosts)})",) if hosts else ()), *clients])
    lines = [f"made in {folder}: {made}; valid until {show_time(end.timestamp())}"]
    if hosts:
        listen = "" if set(hosts) <= {*HOSTS, "::1"} else " --host 0.0.0.0"
        lines += [
            "start the server:",
            f"  python -m server{listen} --tls-cert {path('server.pem')} --tls-key {path('server.key')} "
            f"--tls-client-ca {path('ca.pem')}",
        ]
    if clients:
        where = hosts[0] if hosts else "HOST"
        lines += ["ask it, with copies of ca.pem and of a client's two files:"]
        lines += [
            f"  python -m client --server {where}:50051 --tls-ca {path('ca.pem')} --tls-cert {path(f'{client}.pem')} "
            f"--tls-key {path(f'{client}.key')} SCAN.png"
            for client in clients
        ]
    lines.append(f"{path('ca.key')} makes more of them, for anybody who has it: keep it away from server and clients")
    return "\n".join(lines)
