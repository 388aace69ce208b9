"""TLS of the client, against real servers with every kind of broken certificate: each is named, with its cure."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import trustme

from client import AuthenticationError, RetryConfig, ServerUnavailableError, StrokeClient, StrokeClientError, TLSConfig
from client._certificate import parse_certificate
from client._probe import explain_connection
from client._verdict import explain_client_certificate
from tests.client_fakes import RecordingServicer, serve

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
PAST = {"not_before": NOW - 9 * DAY, "not_after": NOW - DAY}
FUTURE = {"not_before": NOW + DAY, "not_after": NOW + 9 * DAY}

ONCE = RetryConfig(max_attempts=1)
"""A broken certificate does not mend itself: no need to wait for repetitions."""

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
    monkeypatch.setattr("client._probe.look_at", lambda *_, **__: pytest.fail("looked"))

    assert fail("127.0.0.1:1", settings()).reason == "SERVER_UNREACHABLE"


def test_look_at_a_silent_server_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and says nothing holds up the error for the limit at most, several addresses or not."""
    monkeypatch.setattr("client._probe.LIMIT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as other:
        targets = ",".join(f"127.0.0.1:{listener.getsockname()[1]}" for listener in (silent, other))
        with StrokeClient(targets, tls=settings(server_name="box")) as client:
            started = time.monotonic()
            explanation = explain_connection("Socket closed", client._config)

    assert explanation is None
    assert time.monotonic() - started < 0.8


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


def write(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def encrypt(own: trustme.LeafCert) -> bytes:
    from cryptography.hazmat.primitives import serialization as form

    loaded = form.load_pem_private_key(key(own), None)
    return loaded.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"passphrase")
    )


UNUSABLE: dict[str, tuple[Callable[[Path, trustme.LeafCert], TLSConfig], str]] = {
    "missing file": (lambda folder, _: TLSConfig(ca=folder / "none.pem"), r"--tls-ca.*none\.pem.*No such file"),
    "DER for PEM": (lambda folder, _: TLSConfig(ca=write(folder, "ca.der", b"\x30\x82")), r"ca\.der.*PEM"),
    "key for authority": (
        lambda folder, own: TLSConfig(ca=write(folder, "ca.pem", key(own))), r"ca\.pem holds no readable certificate",
    ),
    "damaged authority": (
        lambda folder, _: TLSConfig(ca=write(folder, "ca.pem", CA[:80] + CA[90:])), r"ca\.pem holds no readable",
    ),
    "key of another": (
        lambda folder, own: TLSConfig(certificate=chain(own), key=write(folder, "k.pem", key(issue_client()))),
        r"k\.pem do not belong together",
    ),
    "key with passphrase": (
        lambda _, own: TLSConfig(certificate=chain(own), key=encrypt(own)), "passphrase: store it without",
    ),
    "certificate for key": (lambda _, own: TLSConfig(certificate=chain(own), key=chain(own)), "cannot be used"),
    "certificate alone": (lambda _, own: TLSConfig(certificate=chain(own)), "belong together"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_files_are_refused_at_once(case: str, tmp_path: Path) -> None:
    """A file that cannot be right is a ValueError when the client is made; keys are never quoted."""
    make, pattern = UNUSABLE[case]
    own = issue_client()
    with pytest.raises(ValueError, match=pattern) as caught:
        StrokeClient("localhost", tls=make(tmp_path, own))

    assert "BEGIN" not in str(caught.value) or "-----BEGIN ...-----" in str(caught.value)
    assert key(own).decode().splitlines()[1] not in str(caught.value)


def test_key_needs_no_file_where_the_system_has_no_memory_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Elsewhere than on Linux the key passes through a file that is gone afterwards."""
    monkeypatch.delattr("os.memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    StrokeClient("localhost", tls=settings(issue_client())).close()

    assert list(tmp_path.iterdir()) == []


def test_nothing_secret_is_in_a_representation() -> None:
    """Settings may be logged: neither key, nor certificate, nor token shows."""
    own = issue_client()
    with StrokeClient("localhost", tls=settings(own, server_name="box"), token="open-sesame") as client:
        shown = repr(settings(own, server_name="box")) + repr(client._config)

    assert "server_name='box'" in shown
    assert "open-sesame" not in shown
    assert "BEGIN" not in shown


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x03abc", b"\x30\x80", b"\xff" * 40])
def test_certificate_that_cannot_be_read_is_none(data: bytes) -> None:
    """Anybody may answer at an address: bytes that are no certificate do no harm."""
    assert parse_certificate(data) is None


def test_every_cut_of_a_certificate_is_survived() -> None:
    """A certificate that is cut off anywhere is read or not, and never raises."""
    der = ssl.PEM_cert_to_DER_cert(chain(issue_server()).decode())
    whole = parse_certificate(der)

    assert whole is not None
    assert (whole.issuer, whole.names) == ("Hospital CA", ("localhost", "127.0.0.1"))
    assert not whole.is_self_signed
    assert whole.not_before <= NOW + DAY < whole.not_after
    assert {parse_certificate(der[:length]) for length in range(len(der))} == {None}
