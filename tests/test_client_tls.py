"""TLS of the client, against real servers with every kind of broken certificate: each is named, with its cure."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from client import AuthenticationError, RetryConfig, ServerUnavailableError, StrokeClient, StrokeClientError, TLSConfig
from client.tls.probe import explain_connection
from client.tls.verdict import explain_client_certificate
from tests.certificates import (
    CA,
    FUTURE,
    HOSPITAL,
    PAST,
    ROGUE,
    chain,
    credentials,
    issue_client,
    issue_server,
    key,
    settings,
)
from tests.client_fakes import RecordingServicer, serve

ONCE = RetryConfig(max_attempts=1)
"""A broken certificate does not mend itself: no need to wait for repetitions."""


def fail(target: str, tls: TLSConfig | bool | None, **options: object) -> StrokeClientError:
    """Returns the error of a prediction that cannot succeed."""
    with (
        StrokeClient(target, tls=tls, retry=ONCE, timeout=10, **options) as client,
        pytest.raises(StrokeClientError) as caught,
    ):
        client.predict(b"image")
    return caught.value


def test_both_sides_prove_who_they_are(tmp_path: Path) -> None:
    """Mutual TLS from files: the server sees the client's name, and a token travels with the call."""
    own = issue_client()
    (tmp_path / "ca.pem").write_bytes(CA)
    (tmp_path / "own.pem").write_bytes(chain(own))
    (tmp_path / "own.key").write_bytes(key(own))
    tls = TLSConfig(ca=tmp_path / "ca.pem", certificate=str(tmp_path / "own.pem"), key=tmp_path / "own.key")
    servicer = RecordingServicer()

    with (
        serve(servicer, credentials=credentials(issue_server(), asks=True)) as server,
        StrokeClient(f"localhost:{server.port}", tls=tls, token="open-sesame") as client,
    ):
        assert client.predict(b"stroke image").label == "stroke"
        assert next(client.predict_many([b"stroke image"])).label == "stroke"

    assert servicer.metadata[0]["authorization"] == "Bearer open-sesame"


def test_name_of_the_certificate_may_differ_from_the_host() -> None:
    """A box that is reached by its number is known by the name in its certificate; a list by one name for all."""
    certificate = credentials(issue_server(HOSPITAL, "boxes.ward.example"))
    with serve(credentials=certificate) as first, serve(credentials=certificate) as second:
        for target in (first.target, f"{first.target},{second.target}"):
            with StrokeClient(target, tls=settings(server_name="boxes.ward.example")) as client:
                client.predict(b"image")


def test_tls_on_a_socket_of_this_machine(tmp_path: Path) -> None:
    """The certificate of a server behind a Unix socket holds ``localhost``."""
    path = f"unix:{tmp_path}/stroke.sock"
    with serve(credentials=credentials(issue_server()), address=path):
        with StrokeClient(path, tls=settings()) as client:
            assert client.predict(b"stroke image").label == "stroke"
        assert fail(path, None).reason == "TLS_REQUIRED"
        assert "not for 'box'" in str(fail(path, settings(server_name="box")))


SERVERS: dict[str, tuple[Callable[[], trustme.LeafCert], str, tuple[str, ...]]] = {
    "expired": (
        lambda: issue_server(**PAST),
        "TLS_SERVER_EXPIRED",
        (f"{PAST['not_after']:%Y-%m-%d %H:%M} UTC", "renew", "clock"),
    ),
    "not yet valid": (
        lambda: issue_server(**FUTURE),
        "TLS_SERVER_NOT_YET_VALID",
        (f"{FUTURE['not_before']:%Y-%m-%d %H:%M} UTC", "clock"),
    ),
    "rogue": (lambda: issue_server(ROGUE), "TLS_SERVER_UNKNOWN_CA", ("'Rogue CA'", "'Hospital CA'", "--tls-ca")),
    "of a renewed authority": (
        lambda: issue_server(trustme.CA(organization_name="Hospital CA")),
        "TLS_SERVER_UNKNOWN_CA",
        ("another key", "renewal", "--tls-ca"),
    ),
    "of another name": (
        lambda: issue_server(HOSPITAL, "box-7.ward.example"),
        "TLS_SERVER_WRONG_NAME",
        ("'box-7.ward.example'", "'127.0.0.1'", "--tls-name"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SERVERS)
def test_servers_certificate_is_at_fault(case: str) -> None:
    """What is wrong with the server's certificate is said, with what it holds and what to do."""
    make, reason, words = SERVERS[case]
    servicer = RecordingServicer()
    with serve(servicer, credentials=credentials(make())) as server:
        error = fail(server.target, settings())

    assert (type(error), error.reason, error.code) == (AuthenticationError, reason, "UNAVAILABLE")
    assert all(word in str(error) for word in (server.target, *words)), str(error)
    assert servicer.requests == []


def test_own_authority_of_a_hospital_is_not_a_public_one() -> None:
    """``tls=True`` trusts the public authorities; the message says which one to name."""
    with serve(credentials=credentials(issue_server())) as server:
        error = fail(server.target, True)

    assert error.reason == "TLS_SERVER_UNKNOWN_CA"
    assert "'Hospital CA'" in str(error)
    assert "public authorities" in str(error)


CLIENTS: dict[str, tuple[Callable[[], trustme.LeafCert] | None, str, tuple[str, ...]]] = {
    "missing": (None, "TLS_CLIENT_CERTIFICATE_MISSING", ("--tls-cert", "--tls-key")),
    "expired": (
        lambda: issue_client(**PAST),
        "TLS_CLIENT_CERTIFICATE_EXPIRED",
        ("station-3", f"{PAST['not_after']:%Y-%m-%d %H:%M} UTC", "renewed"),
    ),
    "rogue": (lambda: issue_client(ROGUE), "TLS_CLIENT_CERTIFICATE_REFUSED", ("'Rogue CA'", "--tls-cert")),
}


@pytest.mark.parametrize("case", CLIENTS)
def test_clients_certificate_is_at_fault(case: str) -> None:
    """gRPC says "Socket closed" to all of these; the client tells which it is."""
    make, reason, words = CLIENTS[case]
    with serve(credentials=credentials(issue_server(), asks=True)) as server:
        error = fail(server.target, settings(make() if make else None))

    assert (type(error), error.reason, error.code) == (AuthenticationError, reason, "UNAVAILABLE")
    assert all(word in str(error) for word in (server.target, *words)), str(error)


@contextmanager
def serve_openssl(certificate: trustme.LeafCert, *, asks: bool, protocols: tuple[str, ...] = ("h2",)) -> Iterator[str]:
    """A TLS server that is not gRPC's: it says by an alert what it does not like, and then hangs up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    context.set_alpn_protocols(list(protocols))
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=CA.decode())

    def answer() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            plain.settimeout(2)
            try:
                with context.wrap_socket(plain, server_side=True) as secure:
                    secure.recv(100)
            except OSError:
                plain.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("case", CLIENTS)
def test_alert_of_another_servers_tls_is_understood(case: str) -> None:
    """A proxy says by a TLS alert what it does not like: the same reasons come of it."""
    make, reason, _ = CLIENTS[case]
    with serve_openssl(issue_server(), asks=True) as target:
        error = fail(target, settings(make() if make else None))

    assert error.reason == reason


def test_clock_of_the_server_may_be_wrong() -> None:
    """A certificate that holds by this clock and not by the server's: the alert says so."""
    kind, reason, sentence = explain_client_certificate(
        "SSLV3_ALERT_CERTIFICATE_EXPIRED", "box:1", settings(issue_client())
    )

    assert (kind, reason) == (AuthenticationError, "TLS_CLIENT_CERTIFICATE_EXPIRED")
    assert "clock of the server" in sentence


def test_no_common_protocol_is_not_blamed_on_a_certificate() -> None:
    """A server that only knows TLS 1.1 refuses with an alert of its own."""
    kind, reason, sentence = explain_client_certificate("TLSV1_ALERT_PROTOCOL_VERSION", "box:1", settings())

    assert (kind, reason) == (ServerUnavailableError, "TLS_FAILED")
    assert "TLS 1.2" in sentence


def test_web_server_is_not_taken_for_a_stroke_server() -> None:
    """TLS without HTTP/2 is a web server of another kind: the port is wrong, not the certificate."""
    with serve_openssl(issue_server(), asks=False, protocols=("http/1.1",)) as target:
        error = fail(target, settings())

    assert (type(error), error.reason) == (ServerUnavailableError, "NOT_A_GRPC_SERVER")
    assert "port" in str(error)


@pytest.mark.parametrize("asks", [False, True])
def test_plaintext_client_of_a_tls_server(asks: bool) -> None:
    """It learns that TLS is spoken, whose authority to name, and whether a certificate of its own is asked for."""
    with serve(credentials=credentials(issue_server(), asks=asks)) as server:
        error = fail(server.target, None)

    assert (type(error), error.reason) == (ServerUnavailableError, "TLS_REQUIRED")
    assert "'Hospital CA'" in str(error)
    assert "--tls-ca" in str(error)
    assert ("--tls-cert" in str(error)) == asks


def test_tls_client_of_a_plaintext_server() -> None:
    """It learns that the server does not speak TLS; the token was never sent."""
    servicer = RecordingServicer()
    with serve(servicer) as server:
        error = fail(server.target, settings(), token="open-sesame")

    assert (type(error), error.reason) == (ServerUnavailableError, "TLS_NOT_SPOKEN")
    assert "does not speak TLS" in str(error)
    assert servicer.requests == []


def test_one_broken_server_of_a_list_is_named() -> None:
    """With several addresses the one that gRPC tried last is looked at."""
    with (
        serve(credentials=credentials(issue_server(HOSPITAL, **PAST))) as first,
        serve(credentials=credentials(issue_server(HOSPITAL, **PAST))) as second,
    ):
        error = fail(f"{first.target},{second.target}", settings())

    assert error.reason == "TLS_SERVER_EXPIRED"


def test_server_that_is_down_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens: there is nothing to see, and nothing is tried."""
    monkeypatch.setattr("client.tls.probe.look_at", lambda *_, **__: pytest.fail("looked"))

    assert fail("127.0.0.1:1", settings()).reason == "SERVER_UNREACHABLE"


def test_look_at_a_silent_server_is_bounded() -> None:
    """A server that accepts and says nothing holds up the error for the limit at most, several addresses or not."""
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as other:
        targets = ",".join(f"127.0.0.1:{listener.getsockname()[1]}" for listener in (silent, other))
        with StrokeClient(targets, tls=settings(server_name="box")) as client:
            started = time.monotonic()
            explanation = explain_connection("Socket closed", client._config)

    assert explanation is None
    assert time.monotonic() - started < 3.9


def test_look_shows_no_certificate_to_a_server_that_is_not_trusted() -> None:
    """The client's certificate names its station: a server that gRPC turned away does not get it, nor one byte."""
    seen: list[object] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issue_server(ROGUE).configure_cert(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=CA.decode())
    context.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def answer() -> None:
            plain, _ = listener.accept()
            with context.wrap_socket(plain, server_side=True) as secure:
                seen.extend((secure.getpeercert(binary_form=True), secure.recv(100)))

        thread = threading.Thread(target=answer)
        thread.start()
        port = listener.getsockname()[1]
        with StrokeClient(f"127.0.0.1:{port}", tls=settings(issue_client()), token="secret") as client:
            details = f"last error: UNKNOWN: ipv4:127.0.0.1:{port}: Tls handshake failed: CERTIFICATE_VERIFY_FAILED"
            explanation = explain_connection(details, client._config)
        thread.join()

    assert seen == [None, b""]
    assert explanation is not None
    assert explanation[1] == "TLS_SERVER_UNKNOWN_CA"
