"""Who a client is: the names in its certificate, and for how long one look at them counts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from client import AuthenticationError, RetryConfig, StrokeClient
from server.config import ServerConfig
from server.lifecycle import app
from server.security.identity import read_names
from tests.certificates import CA, HOSPITAL, ROGUE, chain, credentials, issue_client, issue_server, key, settings
from tests.fakes import encode, make_slice, wait_until

ONCE = RetryConfig(max_attempts=1)


def test_names_of_a_client_are_told_by_kind() -> None:
    """Those that no list and no log line could hold are left out."""
    context = {
        "x509_common_name": [b"Station 3"],
        "peer_dns": [b"station-3", b"bad\nname", b"\xff"],
        "peer_email": [b"station-3@hospital.example"],
        "peer_uri": [b"spiffe://hospital/station-3"],
        "peer_ip": [b"10.0.0.3"],
        "transport_security_type": [b"ssl"],
    }

    assert read_names(context) == (
        "uri:spiffe://hospital/station-3",
        "dns:station-3",
        "email:station-3@hospital.example",
        "ip:10.0.0.3",
        "cn:Station 3",
    )
    assert read_names({}) == ()


def test_grpc_tells_the_names_in_this_form() -> None:
    """Asked of a real connection; without a certificate there are none."""
    seen: list[tuple[str, ...]] = []

    def answer(request: bytes, context: Any) -> bytes:
        seen.append(read_names(context.auth_context()))
        return b""

    handler = grpc.method_handlers_generic_handler("a", {"b": grpc.unary_unary_rpc_method_handler(answer)})
    own = HOSPITAL.issue_cert("station-3@hospital.example", "ward.example", "10.0.0.7", common_name="station-3")
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, handlers=[handler])
        ports = [
            server.add_secure_port("127.0.0.1:0", credentials(issue_server(), asks=asks)) for asks in (True, False)
        ]
        server.start()
        for port in ports:
            secrets = grpc.ssl_channel_credentials(CA, key(own), chain(own))
            with grpc.secure_channel(f"localhost:{port}", secrets) as channel:
                channel.unary_unary("/a/b")(b"", timeout=20, wait_for_ready=True)
        server.stop(None).wait(10)

    assert seen == [("dns:ward.example", "email:station-3@hospital.example", "ip:10.0.0.7", "cn:station-3"), ()]


def test_client_is_looked_at_again_after_a_while(tiny_models: Path, tmp_path: Path) -> None:
    """A connection does not outlive for ever the certificate, or the authority, by which it was made. That it is made
    anew fails no call."""
    pair, own = issue_server(), issue_client()
    for name, data in (("cert", chain(pair)), ("key", key(pair)), ("ca", CA)):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
    files = {"tls_cert": tmp_path / "cert", "tls_key": tmp_path / "key", "tls_client_ca": tmp_path / "ca"}
    target = f"unix:{tmp_path}/s"
    application = app.Application(ServerConfig(models=tiny_models, host=target, connection_age=1, **files))
    with ThreadPoolExecutor(1) as pool, StrokeClient(target, tls=settings(own), retry=ONCE, timeout=20) as client:
        exit_code = pool.submit(application.run)
        client.wait_until_ready()
        image = encode(make_slice())
        for _ in range(100):
            client.predict(image)
        (tmp_path / "ca").write_bytes(ROGUE.cert_pem.bytes())
        for reload in application._reloads:
            reload()

        def is_refused() -> bool:
            try:
                client.predict(image)
            except AuthenticationError as error:
                return error.reason == "TLS_CLIENT_CERTIFICATE_REFUSED"
            return False

        wait_until(is_refused)
        application.stop()
        assert exit_code.result(30) == 0
