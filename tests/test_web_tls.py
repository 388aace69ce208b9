"""TLS of HTTP: the certificates of gRPC, names of clients, and renewal without a restart."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.certificates import HOSPITAL, ROGUE, chain, issue_client, issue_server, key
from tests.fakes import encode, make_slice, wait_until
from tests.web_calls import WebServer, serve_web

IMAGE = encode(make_slice(200))


def trust(authority: trustme.CA, own: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """The settings of a client."""
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    if own is not None:
        own.configure_cert(context)
    return context


@dataclass
class Files:
    """The files of a server."""

    folder: Path

    def write(self, authority: trustme.CA, clients: trustme.CA) -> None:
        """Puts others in their place."""
        pair = issue_server(authority)
        for name, content in (
            ("server.pem", chain(pair)),
            ("server.key", key(pair)),
            ("clients.pem", clients.cert_pem.bytes()),
        ):
            (self.folder / name).write_bytes(content)
            (self.folder / name).chmod(0o600)

    @property
    def settings(self) -> dict[str, Path]:
        return {"tls_cert": self.folder / "server.pem", "tls_key": self.folder / "server.key"}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    found = Files(tmp_path)
    found.write(HOSPITAL, HOSPITAL)
    return found


@pytest.fixture
def encrypted(tiny_models: Path, tmp_path: Path, files: Files) -> Iterator[WebServer]:
    """A server that asks clients for certificates."""
    context = trust(HOSPITAL, issue_client())
    clients = tmp_path / "clients.pem"
    with serve_web(tiny_models, tmp_path, context, **files.settings, tls_client_ca=clients) as server:
        yield server


def fails(web: WebServer, context: ssl.SSLContext) -> bool:
    """Whether a client gets no answer."""
    stranger = WebServer(web.port, web.socket, web.application, web.thread, context)
    connection = stranger.connect()
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status != 200
    except (OSError, ssl.SSLError):
        return True
    finally:
        connection.close()


def test_images_are_judged_over_tls(tiny_models: Path, tmp_path: Path, files: Files) -> None:
    """Without certificates of clients, as a browser comes; TLS 1.1 is refused, and who trusts another authority."""
    with serve_web(tiny_models, tmp_path, trust(HOSPITAL), **files.settings) as web:
        assert web.application._web_address == f"https://127.0.0.1:{web.port}/"
        assert web.post_image(IMAGE).outcome == (200, "stroke")
        assert fails(web, trust(ROGUE))


def test_clients_show_certificates_whose_names_are_logged(
    encrypted: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    """None, or one of another authority, is no connection; nothing of that is in the log."""
    caplog.set_level("INFO")
    assert encrypted.post_image(IMAGE, "?id=known").status == 200
    lines = len(caplog.records)

    assert fails(encrypted, trust(HOSPITAL))
    assert fails(encrypted, trust(HOSPITAL, issue_client(ROGUE)))
    assert any("id=known" in line and "client=email:station-3@hospital.example" in line for line in caplog.messages)
    assert len(caplog.records) == lines


def test_list_of_clients_holds_for_http(tiny_models: Path, tmp_path: Path, files: Files) -> None:
    """By the names of the certificate, at each request."""
    (tmp_path / "allowed").write_text("station-4\n")
    settings = {**files.settings, "tls_client_ca": tmp_path / "clients.pem", "allow_clients": tmp_path / "allowed"}
    with serve_web(tiny_models, tmp_path, trust(HOSPITAL, issue_client()), **settings) as web:
        assert web.post_image(IMAGE).outcome == (403, "CLIENT_NOT_ALLOWED")
        assert web.ask("GET", "/health/live").status == 200
        (tmp_path / "allowed").write_text("station-3\n")
        wait_until(lambda: web.post_image(IMAGE).status == 200)


def test_certificates_are_renewed_without_a_restart(encrypted: WebServer, files: Files) -> None:
    """The server's and the authority of its clients: new connections see the new ones, the open one goes on."""
    connection = encrypted.connect()
    connection.request("GET", "/health/live")
    assert connection.getresponse().read()
    before = trust(HOSPITAL, issue_client())
    files.write(ROGUE, ROGUE)
    certificates = encrypted.application._certificates
    assert certificates is not None
    certificates.reload()

    assert not fails(encrypted, trust(ROGUE, issue_client(ROGUE)))
    assert fails(encrypted, trust(ROGUE, issue_client(HOSPITAL)))
    assert fails(encrypted, before)
    connection.request("GET", "/health/live")
    assert connection.getresponse().status == 200
    connection.close()


def test_session_is_not_resumed_beyond_a_renewal(encrypted: WebServer, files: Files) -> None:
    """A ticket of before would let a client in whose authority has gone."""
    context = trust(HOSPITAL, issue_client())
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # whose tickets Python's client can show
    session, _ = shake_hands(encrypted, context, None)
    assert shake_hands(encrypted, context, session)[1], "it is resumed as long as nothing has changed"
    files.write(HOSPITAL, ROGUE)
    certificates = encrypted.application._certificates
    assert certificates is not None
    certificates.reload()

    with pytest.raises((ssl.SSLError, OSError)):
        shake_hands(encrypted, context, session)


def shake_hands(web: WebServer, context: ssl.SSLContext, session: Any) -> tuple[Any, bool | None]:
    """The session of a connection, and whether it is the one that was offered."""
    with web.dial() as plain, context.wrap_socket(plain, server_hostname="localhost", session=session) as made:
        made.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert made.recv(100).startswith(b"HTTP/1.1 200")
        return made.session, made.session_reused


def test_plain_text_ends_the_connection(encrypted: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    """Without an answer, and without a line in the log."""
    with encrypted.dial() as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(ConnectionResetError):
            assert b"HTTP" not in plain.recv(1000)
    assert encrypted.post_image(IMAGE).status == 200
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
