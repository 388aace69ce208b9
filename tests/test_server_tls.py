"""TLS of the server: real processes, real certificates, and what each caller is told."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from client import AuthenticationError, RetryConfig, StrokeClient, StrokeClientError, TLSConfig
from client.cli.health import list_alarms
from server.security.bundle import shake_hands
from server.security.issue import main as issue
from tests.certificates import FUTURE, HOSPITAL, PAST, ROGUE, chain, issue_client, issue_server, key
from tests.client_kinds import KINDS
from tests.fakes import ServerProcess, encode, make_slice, run_module, run_server, wait_until

IMAGE = encode(make_slice())
ONCE = RetryConfig(max_attempts=1)
ROTATIONS = 4


@dataclass
class Site:
    """A server whose certificates were made by ``python -m server certs``."""

    server: ServerProcess
    folder: Path
    authority: trustme.CA

    @property
    def target(self) -> str:
        return self.server.address

    def settings(self, own: trustme.LeafCert | str = "client", **more: Any) -> TLSConfig:
        """Of a client that trusts the site's authority; ``own``: its certificate, or the name of its files."""
        if isinstance(own, str):
            pair: tuple[Any, Any] = (self.folder / f"{own}.pem", self.folder / f"{own}.key")
        else:
            pair = (chain(own), key(own))
        return TLSConfig(**{"ca": self.folder / "ca.pem", "certificate": pair[0], "key": pair[1], **more})

    def reload(self) -> None:
        self.server.process.send_signal(signal.SIGHUP)

    def find_served(self) -> str:
        """The certificate that is shown at the moment, in PEM form."""
        host, _, port = self.target.rpartition(":")
        return ssl.get_server_certificate((host, int(port)))


@pytest.fixture(scope="module")
def site(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for all tests here; each leaves it with a good pair of its authority."""
    folder = tmp_path_factory.mktemp("site") / "certs"
    assert issue(["--out", str(folder)]) == 0
    authority = trustme.CA.from_pem((folder / "ca.pem").read_bytes(), (folder / "ca.key").read_bytes())
    with run_server(tiny_models, *flags(folder), "--tls-client-ca", str(folder / "ca.pem")) as server:
        yield Site(server, folder, authority)


def flags(folder: Path) -> tuple[str, ...]:
    return ("--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key"))


def fail(target: str, tls: TLSConfig | None) -> StrokeClientError:
    """The error of a prediction that cannot succeed."""
    with StrokeClient(target, tls=tls, retry=ONCE, timeout=10) as client, pytest.raises(StrokeClientError) as caught:
        client.predict(IMAGE)
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_prove_who_they_are(site: Site, kind: str) -> None:
    """Single images, streams, models and health, all encrypted."""
    client = KINDS[kind](site.target, tls=site.settings())

    assert client.call("predict", IMAGE).label in ("normal", "stroke")
    assert [result.label for result in client.predict_many([IMAGE, IMAGE])]
    assert [model.name for model in client.call("list_models")] == ["tiny"]
    assert client.call("check_health").name == "SERVING"


REFUSED: dict[str, tuple[Callable[[Site], TLSConfig | None], str]] = {
    "plain text": (lambda site: None, "TLS_REQUIRED"),
    "no certificate": (lambda site: TLSConfig(ca=site.folder / "ca.pem"), "TLS_CLIENT_CERTIFICATE_MISSING"),
    "expired": (
        lambda site: site.settings(issue_client(site.authority, **PAST)),
        "TLS_CLIENT_CERTIFICATE_EXPIRED",
    ),
    "not yet valid": (
        lambda site: site.settings(issue_client(site.authority, **FUTURE)),
        "TLS_CLIENT_CERTIFICATE_EXPIRED",
    ),
    "of another authority": (lambda site: site.settings(issue_client(ROGUE)), "TLS_CLIENT_CERTIFICATE_REFUSED"),
    "of a server": (lambda site: site.settings("server"), "TLS_CLIENT_CERTIFICATE_REFUSED"),
    "another name": (lambda site: site.settings(server_name="box-7.example"), "TLS_SERVER_WRONG_NAME"),
    "another authority": (
        lambda site: site.settings(ca=HOSPITAL.cert_pem.bytes()),
        "TLS_SERVER_UNKNOWN_CA",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_who_cannot_be_let_in_learns_why(site: Site, case: str) -> None:
    """By the client's own sentence; the server's log does not grow with strangers."""
    lines = len(site.server.log)
    make, reason = REFUSED[case]

    assert fail(site.target, make(site)).reason == reason
    assert len(site.server.log) == lines


def test_tls_client_of_a_plain_server(site: Site, tiny_server: ServerProcess) -> None:
    """It learns that the server does not speak TLS."""
    assert fail(tiny_server.address, site.settings()).reason == "TLS_NOT_SPOKEN"


@pytest.mark.parametrize(("validity", "reason"), [(PAST, "TLS_SERVER_EXPIRED"), (FUTURE, "TLS_SERVER_NOT_YET_VALID")])
def test_certificate_that_does_not_hold_is_an_alarm_and_named_by_the_client(
    tiny_models: Path, tmp_path: Path, validity: dict[str, object], reason: str
) -> None:
    """The server starts, since its clock may be the wrong one. On a socket, which TLS protects as well."""
    pair = issue_server(**validity)  # type: ignore[arg-type]
    (tmp_path / "server.pem").write_bytes(chain(pair))
    (tmp_path / "server.key").write_bytes(key(pair))
    (tmp_path / "server.key").chmod(0o600)
    with run_server(tiny_models, *flags(tmp_path), "--host", f"unix:{tmp_path}/s") as server:
        error = fail(server.address, TLSConfig(ca=HOSPITAL.cert_pem.bytes()))
        alarms = [line for line in server.log if " ERROR " in line]

    assert (type(error), error.reason) == (AuthenticationError, reason)
    assert len(alarms) == 1
    assert "the certificate of the server (localhost)" in alarms[0]


WEAK: dict[str, Callable[[ssl.SSLContext], object]] = {
    "TLS 1.0": lambda context: limit(context, ssl.TLSVersion.TLSv1),
    "TLS 1.1": lambda context: limit(context, ssl.TLSVersion.TLSv1_1),
    "CBC": lambda context: choose(context, "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384"),
    "no encryption": lambda context: choose(context, "ECDHE-ECDSA-NULL-SHA"),
    "no proof of who it is": lambda context: choose(context, "AECDH-AES128-SHA"),
}


def limit(context: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    context.minimum_version = context.maximum_version = version


def choose(context: ssl.SSLContext, ciphers: str) -> None:
    limit(context, ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")


def make_lax(protocol: int) -> ssl.SSLContext:
    """One end that agrees to everything."""
    context = ssl.SSLContext(protocol)
    context.set_ciphers("ALL:eNULL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    if protocol == ssl.PROTOCOL_TLS_CLIENT:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def agree(site: Site, context: ssl.SSLContext) -> str:
    """Returns the version that the server and a client with a good certificate agree on; empty: none."""
    context.load_cert_chain(site.folder / "client.pem", site.folder / "client.key")
    host, _, port = site.target.rpartition(":")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain) as secure,
        ):
            return secure.version() or ""
    except (ssl.SSLError, ConnectionError):
        return ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", WEAK)
def test_weak_encryption_is_refused(site: Site, case: str) -> None:
    """Versions before TLS 1.2, and ciphers that are no longer trusted. A server that agrees to everything agrees to
    these: it is ours who refuses."""
    weak, lax = make_lax(ssl.PROTOCOL_TLS_CLIENT), make_lax(ssl.PROTOCOL_TLS_SERVER)
    WEAK[case](weak)
    lax.load_cert_chain(site.folder / "server.pem", site.folder / "server.key")
    shake_hands(lax, weak)

    assert agree(site, weak) == ""


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_what_is_of_today_is_spoken(site: Site, version: str) -> None:
    """For clients that are older than TLS 1.3, too."""
    context = make_lax(ssl.PROTOCOL_TLS_CLIENT)
    limit(context, ssl.TLSVersion[version.replace(".", "_")])

    assert agree(site, context) == version


def test_certificates_rotate_under_load(site: Site) -> None:
    """No call fails while both files are replaced, one after the other and in either order: neither on connections that
    there are nor on new ones, and new ones see the new certificate. SIGHUP hurries; without it the files are seen."""
    failed: list[StrokeClientError] = []
    done, calls = threading.Event(), itertools.count()

    def call(*, anew: bool) -> None:
        with StrokeClient(site.target, tls=site.settings(), retry=ONCE, timeout=20) as lasting:
            while not done.is_set():
                try:
                    if anew:
                        with StrokeClient(site.target, tls=site.settings(), retry=ONCE, timeout=20) as client:
                            client.predict(IMAGE)
                    else:
                        lasting.predict(IMAGE)
                except StrokeClientError as error:
                    failed.append(error)
                next(calls)

    def wait_for_calls(count: int = 20) -> None:
        until = next(calls) + count
        wait_until(lambda: next(calls) > until)

    threads = [threading.Thread(target=call, kwargs={"anew": anew}) for anew in (True, True, False)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(ROTATIONS):
            pair = issue_server(site.authority)
            steps = [
                lambda pair=pair: replace(site.folder / "server.pem", chain(pair)),
                lambda pair=pair: replace(site.folder / "server.key", key(pair)),
            ]
            for step in steps[:: -1 if turn % 2 else 1]:
                step()
                wait_for_calls()
                if turn < ROTATIONS - 1:  # the last is found without being asked
                    site.reload()
            wait_until(lambda pair=pair: site.find_served().split() == chain(pair).decode().split())
            wait_for_calls()
    finally:
        done.set()
        for thread in threads:
            thread.join()

    assert failed == []


def replace(path: Path, data: bytes) -> None:
    """Puts a file in the place of another at once; only its owner may read it."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(data)
    temporary.chmod(0o600)
    os.replace(temporary, path)


def test_bad_pair_keeps_the_old_one_and_is_logged_once(site: Site) -> None:
    """However many connections are made meanwhile, and health has an alarm; when it is mended, the log says so."""
    good, served = (site.folder / "server.pem").read_bytes(), site.find_served()
    lines = len(site.server.log)
    replace(site.folder / "server.pem", chain(issue_server(site.authority)))
    wait_until(lambda: len(site.server.log) > lines)

    for _ in range(3):
        with StrokeClient(site.target, tls=site.settings(), retry=ONCE) as client:
            assert list_alarms(client, time.monotonic() + 10) == ("certificates",)
    assert site.find_served() == served
    said = [line for line in site.server.log[lines:] if "certificates" in line]
    assert len(said) == 1
    assert re.search(
        r"ERROR .*server\.pem and --tls-key .*server\.key do not belong together.*those in use stay", said[0]
    )

    replace(site.folder / "server.pem", good)
    site.reload()
    wait_until(lambda: "in use is the certificate of the server" in site.server.log[-1])
    with StrokeClient(site.target, tls=site.settings(), retry=ONCE) as client:
        assert list_alarms(client, time.monotonic() + 10) == ()


def test_key_that_others_read_is_refused_at_the_start(site: Site, tiny_models: Path, tmp_path: Path) -> None:
    """In one line, with the command that helps."""
    copy = tmp_path / "server.key"
    copy.write_bytes((site.folder / "server.key").read_bytes())
    copy.chmod(0o644)

    result = run_module(
        *("server", "--models", str(tiny_models), "--port", "0"),
        *("--tls-cert", str(site.folder / "server.pem"), "--tls-key", str(copy)),
    )

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert f"chmod 600 {copy}" in line


def test_other_machines_get_no_plain_text_unless_that_is_said(tiny_models: Path) -> None:
    """The error says what it would mean, and the three ways out."""
    result = run_module("server", "--models", str(tiny_models), "--port", "0", "--host", "0.0.0.0")

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "anybody on the way can read and change images" in line
    assert all(way in line for way in ("--tls-cert", "--host 127.0.0.1", "--insecure"))

    with run_server(tiny_models, "--host", "0.0.0.0", "--insecure") as server:
        assert server.address.startswith("0.0.0.0:")
