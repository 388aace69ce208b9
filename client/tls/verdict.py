"""Sentences about certificates: what is wrong, on whose side, and what to do. ``client.tls.probe`` has the table."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

from .._config import TLSConfig
from .._errors import AuthenticationError, ServerUnavailableError, StrokeClientError
from .certificate import Certificate, parse_certificate, split_pem

Explanation = tuple[type[StrokeClientError], str, str]
"""Error class, reason and sentence."""

_MOST_NAMES = 5
"""Names of a certificate that a message lists."""


def explain_tls_required(target: str, certificate: Certificate | None, *, wants_certificate: bool) -> Explanation:
    """A plaintext client met a TLS server."""
    issuer = "" if certificate is None else f", issued by {_quote_issuer(certificate)}"
    more = ", and this client's certificate, for which it asks (--tls-cert, --tls-key)" if wants_certificate else ""
    sentence = (
        f"the server at {target} speaks TLS and this client does not: name the authority of its certificate{issuer} "
        f"(--tls-ca, TLSConfig(ca=...)){more}"
    )
    return ServerUnavailableError, "TLS_REQUIRED", sentence


def explain_no_tls(target: str) -> Explanation:
    """A TLS client met a server that answered in something else."""
    sentence = (
        f"what answers at {target} does not speak TLS and this client does: check the port and whether the server is "
        "set up for TLS, or leave the TLS settings out (--tls-..., tls=...) where plain text is meant"
    )
    return ServerUnavailableError, "TLS_NOT_SPOKEN", sentence


def explain_server_certificate(
    details: str, target: str, certificate: Certificate | None, tls: TLSConfig, host: str
) -> Explanation:
    """gRPC did not accept the server's certificate; its text says why, the certificate says what it is."""
    now = datetime.now(UTC)
    what = f"the certificate of the server at {target}"
    if "certificate has expired" in details:
        if certificate is not None and now <= certificate.not_after:  # then it is one further up the chain
            what = f"the certificate of an authority of the server at {target}"
            certificate = None
        since = "" if certificate is None else f" on {_show_time(certificate.not_after)}"
        sentence = f"{what} expired{since}: its operator has to renew it{_doubt_clock(now)}"
        return AuthenticationError, "TLS_SERVER_EXPIRED", sentence
    if "not yet valid" in details:
        since = "only later" if certificate is None else f"only from {_show_time(certificate.not_before)} on"
        sentence = f"{what} is valid {since}: wait or have it made anew{_doubt_clock(now)}"
        return AuthenticationError, "TLS_SERVER_NOT_YET_VALID", sentence
    if "CERTIFICATE_VERIFY_FAILED" not in details:
        wanted = tls.server_name or host
        names = "other names" if certificate is None else _list_names(certificate)
        sentence = (
            f"{what} is for {names}, not for {wanted!r}: connect by a name that it holds, or state the one to expect "
            "(--tls-name, TLSConfig(server_name=...))"
        )
        return AuthenticationError, "TLS_SERVER_WRONG_NAME", sentence
    if certificate is not None and certificate.is_self_signed:
        sentence = (
            f"{what} is self-signed: if it is the right one, name it as its own authority (--tls-ca, TLSConfig(ca=...))"
        )
        return AuthenticationError, "TLS_SERVER_UNKNOWN_CA", sentence
    issuer = "an authority" if certificate is None else _quote_issuer(certificate)
    known = "the public authorities" if tls.ca is None else f"those given ({_list_authorities(tls)})"
    if issuer in known:
        known += "; of that name there is one with another key, as after a renewal"
    sentence = (
        f"{what} was issued by {issuer}, which is not among {known}: name the certificate of its authority (--tls-ca, "
        "TLSConfig(ca=...)), or, if nobody here knows that authority, find out which server this is"
    )
    return AuthenticationError, "TLS_SERVER_UNKNOWN_CA", sentence


def explain_client_certificate(alert: str, target: str, tls: TLSConfig) -> Explanation:
    """The server ended the connection after the handshake, with an alert or without a word, as gRPC servers do."""
    own = _read_own(tls)
    now = datetime.now(UTC)
    if tls.certificate is None:
        if alert and not _is_about_certificate(alert):
            return _explain_alert(alert, target)
        sentence = (
            f"the server at {target} asks for a client certificate and this client has none: give the one that its "
            "operator issued, with its key (--tls-cert and --tls-key, TLSConfig(certificate=..., key=...))"
        )
        return AuthenticationError, "TLS_CLIENT_CERTIFICATE_MISSING", sentence
    if own is not None and not own.not_before <= now <= own.not_after:
        held = (
            f"expired on {_show_time(own.not_after)}"
            if now > own.not_after
            else f"is valid only from {_show_time(own.not_before)} on"
        )
        sentence = (
            f"this client's certificate ({own.subject or 'without a name'}) {held}, and the server at {target} does "
            f"not accept it: have it renewed (--tls-cert, --tls-key){_doubt_clock(now)}"
        )
        return AuthenticationError, "TLS_CLIENT_CERTIFICATE_EXPIRED", sentence
    if alert and not _is_about_certificate(alert):
        return _explain_alert(alert, target)
    if "CERTIFICATE_EXPIRED" in alert:
        sentence = (
            f"the server at {target} says that this client's certificate has expired: have it renewed (--tls-cert, "
            f"--tls-key), or set the clock of the server{_doubt_clock(now)}"
        )
        return AuthenticationError, "TLS_CLIENT_CERTIFICATE_EXPIRED", sentence
    issuer = "its authority" if own is None else f"its issuer {_quote_issuer(own)}"
    said = f" ({alert})" if alert else ""
    sentence = (
        f"the server at {target} does not accept this client's certificate{said}: most likely it does not know "
        f"{issuer}; use one of an authority that its operator accepts (--tls-cert, --tls-key)"
    )
    return AuthenticationError, "TLS_CLIENT_CERTIFICATE_REFUSED", sentence


def _explain_alert(alert: str, target: str) -> Explanation:
    sentence = (
        f"the server at {target} and this client agree on no kind of TLS ({alert}): it must offer TLS 1.2 or 1.3 "
        "with a usual cipher; ask its operator"
    )
    return ServerUnavailableError, "TLS_FAILED", sentence


def _is_about_certificate(alert: str) -> bool:
    return any(word in alert for word in ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "DECRYPT_ERROR"))


def _read_own(tls: TLSConfig) -> Certificate | None:
    blocks = split_pem(tls.certificate) if isinstance(tls.certificate, bytes) else []
    return parse_certificate(ssl.PEM_cert_to_DER_cert(blocks[0].decode("ascii"))) if blocks else None


def _list_authorities(tls: TLSConfig) -> str:
    blocks = split_pem(tls.ca) if isinstance(tls.ca, bytes) else []
    found = (parse_certificate(ssl.PEM_cert_to_DER_cert(block.decode("ascii"))) for block in blocks[:_MOST_NAMES])
    names = [repr(certificate.subject) for certificate in found if certificate is not None]
    return ", ".join(names + ["..."] * (len(blocks) > _MOST_NAMES))


def _quote_issuer(certificate: Certificate) -> str:
    return repr(certificate.issuer) if certificate.issuer else "an authority without a name"


def _list_names(certificate: Certificate) -> str:
    names = [repr(name) for name in certificate.names[:_MOST_NAMES]]
    return ", ".join(names + ["..."] * (len(certificate.names) > _MOST_NAMES)) or "no name"


def _show_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _doubt_clock(now: datetime) -> str:
    return f" (this machine's clock says {_show_time(now)})"
