"""The certificates that the server shows and asks for: replaced while it runs, watched until they end.

gRPC asks for new ones at each handshake, and gets them from memory. A thread looks at the files: two looks that see the
same files are needed before they are read, so that of a pair that is copied file by file the half is not taken for the
whole. What cannot be used leaves those in use as they are: it is logged once, and an alarm until it is mended.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque

import grpc

from server.security.bundle import Bundle, CertificateError, TLSFiles, Validity, read_bundle, show_time

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
RETRY_SECONDS = 60.0
"""How often what cannot be used is tried again although no file has changed: it may hold from some day on."""

DAY_SECONDS = 86_400
ALARM_DAYS = 7
MOST_NAMES = 5
"""Of a certificate that the summary lists."""

WARN_DAYS = (30, 7, 1)
"""When it is said how long a certificate still holds."""


class Certificates:
    """Those of one server.

    Attributes:
        files: where they come from.
        failures: how often other files could not be used, for metrics.
    """

    def __init__(self, files: TLSFiles) -> None:
        """Reads the files.

        Raises:
            CertificateError: they cannot be used. One that does not hold yet or any more is no reason not to start,
                since the clock may be wrong: it is an alarm.
        """
        self.files = files
        self.failures = 0
        self._fault = ""
        self._tried, self._tried_at = look_at(files), time.monotonic()
        self._seen = self._tried
        self._bundle = read_bundle(files)
        self._offers: deque[grpc.ServerCertificateConfiguration] = deque(maxlen=1)
        self._said: dict[Validity, int] = {}
        self._reading = threading.Lock()
        self._closed = threading.Event()
        self.warn_of_ends()

    def make_credentials(self) -> grpc.ServerCredentials:
        """What gRPC listens with: TLS 1.2 or 1.3 with its own choice of ciphers."""
        asks = self.files.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(configure(self._bundle), self._fetch, asks)

    def watch(self) -> None:
        """Looks at the files from now on, in a thread of its own."""
        threading.Thread(target=self._watch, name="certificates", daemon=True).start()

    def close(self) -> None:
        """Ends the watch."""
        self._closed.set()

    @property
    def bundle(self) -> Bundle:
        """What the files in use hold; another object once others are in use."""
        return self._bundle

    def describe(self) -> tuple[Validity, ...]:
        """Those in use: the server's own first, then the authorities of clients."""
        return (self._bundle.server, *self._bundle.authorities)

    @property
    def alarm(self) -> str:
        """What an operator has to mend, in a sentence; empty: nothing."""
        return self._fault or next(filter(None, map(find_fault, list_needed(self._bundle))), "")

    def needs_person(self) -> bool:
        """Whether there is an alarm, or one ends within a week; of one that is short-lived, its last quarter."""
        now = time.time()
        return bool(self.alarm) or any(
            one.not_after - now < min(ALARM_DAYS * DAY_SECONDS, (one.not_after - one.not_before) / 4)
            for one in list_needed(self._bundle)
        )

    @property
    def summary(self) -> str:
        """A line about what is in use and what clients need for it."""
        server = self._bundle.server
        also = ", --tls-cert and --tls-key" if self.files.client_ca is not None else ""
        return (
            f"TLS: certificate for {', '.join(server.names[:MOST_NAMES]) or server.subject} until "
            f"{show_time(server.not_after)}; clients need --tls-ca{also}"
        )

    def reload(self) -> None:
        """Reads the files now, whatever has been seen of them, and says what came of it. For SIGHUP; never raises."""
        with self._reading:
            self._try(look_at(self.files), is_asked=True)

    def look(self) -> None:
        """Reads the files if they have changed and are settled, or if it is time to try again. Never raises."""
        with self._reading:
            signature = look_at(self.files)
            is_settled, self._seen = signature == self._seen, signature
            is_due = bool(self._fault) and time.monotonic() - self._tried_at > RETRY_SECONDS
            if is_settled and (signature != self._tried or is_due):
                self._try(signature)
            self.warn_of_ends()

    def warn_of_ends(self) -> None:
        """Logs once that a certificate ends soon, and once that it has ended."""
        for one in list_needed(self._bundle):
            days = (one.not_after - time.time()) / DAY_SECONDS
            level = sum(days <= limit for limit in (*WARN_DAYS, 0))
            if fault := find_fault(one):
                level = len(WARN_DAYS) + 1
            if level > self._said.get(one, 0):
                if fault:
                    logger.error("certificates: %s", fault)
                else:
                    logger.warning("certificates: %s holds until %s", title(one), show_time(one.not_after))
            self._said[one] = level

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            self.look()

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC at each handshake; None: nothing is new."""
        try:
            return self._offers.pop()
        except IndexError:
            return None

    def _try(self, signature: Signature, *, is_asked: bool = False) -> None:
        self._tried, self._tried_at = signature, time.monotonic()
        try:
            bundle = read_bundle(self.files)
            if bundle != self._bundle:
                check_time(bundle)
        except Exception as error:  # an error of ours must not end the watch either
            fault = str(error) if isinstance(error, CertificateError) else f"{type(error).__name__}: {error}"
            is_new, self._fault = fault != self._fault, fault
            if is_new:
                self.failures += 1
            if is_new or is_asked:
                logger.error("certificates: %s; those in use stay", fault)
            return
        is_mended, self._fault = bool(self._fault), ""
        if bundle != self._bundle:
            self._bundle = bundle
            self._offers.append(configure(bundle))
            self._said.clear()
        elif not (is_asked or is_mended):
            return  # the files were only touched
        logger.info("certificates: in use is %s until %s", title(bundle.server), show_time(bundle.server.not_after))


Signature = tuple[tuple[int, ...] | None, ...]
"""By which files are told from those before: times, sizes, numbers and modes; None for one that is not there."""


def look_at(files: TLSFiles) -> Signature:
    """Looks at the files without opening them."""
    return tuple(sign(path) for path in map(os.fspath, files.list_paths()))


def sign(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    # Also the time of the last change of mode or owner: a key may be closed to others without being written.
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_dev, found.st_ino)


def configure(bundle: Bundle) -> grpc.ServerCertificateConfiguration:
    """What gRPC takes."""
    return grpc.ssl_server_certificate_configuration([(bundle.key, bundle.certificate)], bundle.client_ca)


def describe(files: TLSFiles) -> tuple[Validity, ...]:
    """Reads files that no server need be using: the server's certificate first, then the authorities of clients.

    Raises:
        CertificateError: they cannot be used.
    """
    bundle = read_bundle(files)
    return (bundle.server, *bundle.authorities)


def check_time(bundle: Bundle) -> None:
    """Checks that certificates hold now, before they take the place of others.

    Raises:
        CertificateError: one does not.
    """
    for one in list_needed(bundle):
        if fault := find_fault(one):
            raise CertificateError(fault)


def list_needed(bundle: Bundle) -> list[Validity]:
    """Those without which nobody can call. Of several authorities one may end when another has taken its place."""
    return [bundle.server, *sorted(bundle.authorities, key=lambda one: one.not_after)[-1:]]


def find_fault(one: Validity) -> str:
    """Why a certificate does not hold now, in a sentence; empty when it does."""
    now = time.time()
    if now > one.not_after:
        return f"{title(one)} ended on {show_time(one.not_after)}: renew it (this clock says {show_time(now)})"
    if now < one.not_before:
        return f"{title(one)} holds only from {show_time(one.not_before)} on (this clock says {show_time(now)})"
    return ""


def title(one: Validity) -> str:
    """A certificate in words."""
    kind = "the certificate of the server" if one.role == "server" else "that of the clients' authority"
    return f"{kind} ({one.subject})" if one.subject else kind
