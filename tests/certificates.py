"""Certificates for tests: authorities, servers and clients of every kind, made anew in each run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import trustme

from client import TLSConfig

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
PAST = {"not_before": NOW - 9 * DAY, "not_after": NOW - DAY}
FUTURE = {"not_before": NOW + DAY, "not_after": NOW + 9 * DAY}

HOSPITAL = trustme.CA(organization_name="Hospital CA")
ROGUE = trustme.CA(organization_name="Rogue CA")
CA = HOSPITAL.cert_pem.bytes()


def issue_server(authority: trustme.CA = HOSPITAL, *names: str, **validity: datetime) -> trustme.LeafCert:
    return authority.issue_cert(*(names or ("localhost", "127.0.0.1")), **validity)


def issue_client(authority: trustme.CA = HOSPITAL, **validity: datetime) -> trustme.LeafCert:
    return authority.issue_cert("station-3@hospital.example", common_name="station-3", **validity)


def chain(certificate: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in certificate.cert_chain_pems)


def key(certificate: trustme.LeafCert) -> bytes:
    return certificate.private_key_pem.bytes()


def credentials(certificate: trustme.LeafCert, *, asks: bool = False) -> grpc.ServerCredentials:
    """Of a server; ``asks``: for a client certificate of the hospital's authority."""
    return grpc.ssl_server_credentials([(key(certificate), chain(certificate))], CA if asks else None, asks)


def settings(own: trustme.LeafCert | None = None, **more: str) -> TLSConfig:
    if own is None:
        return TLSConfig(ca=CA, **more)
    return TLSConfig(ca=CA, certificate=chain(own), key=key(own), **more)
