"""TLS for HTTP, from the very certificates that gRPC shows and asks for, and renewed with them."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from server.security.bundle import Bundle, load_pair

if TYPE_CHECKING:  # which is for gRPC, too
    from server.security.certificates import Certificates


class RenewedContext:
    """Settings of TLS that follow the certificates. For one event loop."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self._bundle = certificates.bundle
        self._context = make_context(self._bundle)

    def find(self) -> ssl.SSLContext:
        """For the next connection. Sessions of TLS are not resumed beyond a renewal: a client whose authority has gone
        has to show its certificate, which is then refused."""
        bundle = self._certificates.bundle
        if bundle is not self._bundle:
            self._bundle, self._context = bundle, make_context(bundle)
        return self._context


def make_context(bundle: Bundle) -> ssl.SSLContext:
    """TLS 1.2 or 1.3 with OpenSSL's choice of ciphers; clients must show a certificate where there are authorities."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load_pair(context, bundle.certificate, bundle.key)
    if bundle.client_ca is not None:
        context.load_verify_locations(cadata=bundle.client_ca.decode("ascii", errors="ignore"))
        context.verify_mode = ssl.CERT_REQUIRED
    return context
