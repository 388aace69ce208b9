"""Files of TLS: proven before they are used, exchanged while the server runs, and never worse than what was there."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from server.security import certificates
from server.security.bundle import (
    CertificateError,
    TLSFiles,
    find_unusable_kind,
    is_open_to_others,
    read_bundle,
)
from server.security.certificates import Certificates, describe
from tests.certificates import CA, DAY, FUTURE, HOSPITAL, NOW, PAST, chain, issue_client, issue_server, key


@pytest.fixture
def files(tmp_path: Path) -> TLSFiles:
    """A good pair, and the authority of clients."""
    found = TLSFiles(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem")
    (tmp_path / "ca.pem").write_bytes(CA)
    write(found, issue_server())
    return found


def write(files: TLSFiles, pair: trustme.LeafCert) -> None:
    """Puts a pair in the place of the one that is there."""
    files.certificate.write_bytes(chain(pair))
    write_key(files, key(pair))


def write_key(files: TLSFiles, data: bytes, mode: int = 0o600) -> None:
    files.key.write_bytes(data)
    files.key.chmod(mode)


def write_ca(files: TLSFiles, data: bytes) -> None:
    assert files.client_ca is not None
    files.client_ca.write_bytes(data)


def lock(data: bytes) -> bytes:
    """The key under a passphrase."""
    loaded = load_pem_private_key(data, None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def fresh(start: int, end: int) -> trustme.LeafCert:
    """A pair for a server that holds from ``start`` to ``end``, in days from now."""
    return issue_server(not_before=NOW + timedelta(start), not_after=NOW + timedelta(end))


BROKEN: dict[str, tuple[Callable[[TLSFiles], object], str]] = {
    "no certificate": (lambda files: files.certificate.unlink(), "--tls-cert .*cannot be read: No such file"),
    "a folder": (lambda files: (files.key.unlink(), files.key.mkdir()), "--tls-key .*it is a folder"),
    "empty": (lambda files: files.certificate.write_bytes(b""), "--tls-cert .*not in PEM form"),
    "half a certificate": (
        lambda files: files.certificate.write_bytes(chain(issue_server())[:300]),
        "--tls-cert .*no whole certificate",
    ),
    "half a key": (lambda files: write_key(files, key(issue_server())[:100]), "cannot be used: .*whole"),
    "another key": (lambda files: write_key(files, key(issue_server())), "do not belong together"),
    "a key with a passphrase": (lambda files: write_key(files, lock(files.key.read_bytes())), "without a passphrase"),
    "a certificate for a key": (lambda files: write_key(files, CA), "--tls-key .*holds no private key"),
    "a key that others read": (lambda files: files.key.chmod(0o644), "--tls-key .*mode 644.*chmod 600"),
    "a key that the group reads": (lambda files: files.key.chmod(0o640), "--tls-key .*mode 640.*chmod 600"),
    "no authority": (lambda files: write_ca(files, b"hello"), "--tls-client-ca .*not in PEM form"),
    "half an authority": (lambda files: write_ca(files, CA + CA[:200]), "--tls-client-ca .*no whole certificate"),
    "a damaged authority": (lambda files: write_ca(files, CA.replace(b"\nMII", b"\nAII")), "--tls-client-ca .*damaged"),
    "a client for an authority": (lambda files: write_ca(files, chain(issue_client())), "not one of an authority"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_used_is_named_and_what_is_in_use_stays(
    case: str, files: TLSFiles, caplog: pytest.LogCaptureFixture
) -> None:
    """A sentence that says which file and why, at the start as while it runs; the content is in no sentence."""
    own = Certificates(files)
    before = own.describe()
    break_it, sentence = BROKEN[case]
    break_it(files)

    with pytest.raises(CertificateError, match=sentence) as refusal:
        Certificates(files)
    own.reload()

    assert own.describe() == before
    assert own.alarm == str(refusal.value)
    assert "\n" not in own.alarm
    assert [record.getMessage() for record in caplog.records] == [f"certificates: {own.alarm}; those in use stay"]


@pytest.mark.parametrize(("days", "sentence"), [((-9, -1), "ended on"), ((1, 9), "holds only from")])
def test_pair_that_does_not_hold_now_is_an_alarm_at_the_start_and_refused_later(
    days: tuple[int, int], sentence: str, files: TLSFiles, caplog: pytest.LogCaptureFixture
) -> None:
    """At the start there is nothing better, and the clock may be wrong; later there is."""
    good = Certificates(files)
    write(files, fresh(*days))

    assert sentence in Certificates(files).alarm
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    before = good.describe()
    good.reload()

    assert good.describe() == before
    assert sentence in good.alarm


def test_pair_of_tomorrow_is_taken_tomorrow(files: TLSFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to touch the files again."""
    own = Certificates(files)
    write(files, fresh(1, 9))
    own.reload()
    assert own.alarm
    clock = certificates.time.time
    monkeypatch.setattr(certificates.time, "time", lambda: clock() + 2 * 86_400)

    own.look()
    assert own.alarm
    monkeypatch.setattr(certificates, "RETRY_SECONDS", 0.0)
    own.look()

    assert not own.alarm
    assert own.describe()[0].not_before > clock()


def test_files_are_read_when_two_looks_have_seen_the_same(files: TLSFiles, caplog: pytest.LogCaptureFixture) -> None:
    """A pair is copied file by file: what is between is neither used nor an alarm."""
    caplog.set_level(logging.INFO)
    own = Certificates(files)
    old, new = own.describe(), fresh(-1, 300)

    files.certificate.write_bytes(chain(new))
    own.look()
    write_key(files, key(new))
    own.look()
    assert (own.describe(), own.alarm) == (old, "")
    own.look()

    assert own.describe() != old
    assert own._fetch() is not None
    assert own._fetch() is None
    assert len(caplog.records) == 1


def test_a_lasting_fault_is_logged_and_counted_once(files: TLSFiles, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is looked at and tried; that it is mended is said, too."""
    caplog.set_level(logging.INFO)
    own, good = Certificates(files), files.certificate.read_bytes()
    files.certificate.write_bytes(chain(issue_server()))
    for _ in range(4):
        own.look()
    files.certificate.touch()
    for _ in range(4):
        own.look()
    assert (own.failures, len(caplog.records)) == (1, 1)

    files.certificate.write_bytes(good)
    own.look()
    own.look()

    assert (own.failures, own.alarm) == (1, "")
    assert caplog.messages[-1].startswith("certificates: in use is the certificate of the server")


def test_an_unexpected_error_does_not_end_the_watch(files: TLSFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an alarm like the others."""
    own = Certificates(files)
    monkeypatch.setattr(certificates, "read_bundle", lambda files: 1 / 0)
    own.reload()

    assert own.alarm == "ZeroDivisionError: division by zero"


def test_end_of_a_certificate_is_announced_once_at_each_step(
    files: TLSFiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """30 days, 7 days and 1 day before; and when it is over."""
    write(files, fresh(-1, 100))
    clock, days = certificates.time.time, 0
    monkeypatch.setattr(certificates.time, "time", lambda: clock() + days * 86_400)
    own = Certificates(files)
    said = {}
    for days in range(102):
        own.warn_of_ends()
        if caplog.records:
            said[100 - days] = [record.levelname for record in caplog.records]
        caplog.clear()

    assert said == {30: ["WARNING"], 7: ["WARNING"], 1: ["WARNING"], 0: ["ERROR"]}


@pytest.mark.parametrize(
    ("life", "left", "expected"), [(90, 8, False), (90, 6.9, True), (90, -1, True), (1, 0.3, False), (1, 0.2, True)]
)
def test_certificate_needs_a_person_in_its_last_week_or_quarter(
    files: TLSFiles, life: float, left: float, expected: bool
) -> None:
    """Days that it holds in all, and that are left. One that lives for a day would otherwise always need one."""
    end = NOW + left * DAY
    write(files, issue_server(not_before=end - life * DAY, not_after=end))

    assert Certificates(files).needs_person() is expected


def test_authority_that_ends_is_no_alarm_once_another_is_there(files: TLSFiles) -> None:
    """Both are given while the clients get new certificates."""
    old = trustme.CA(organization_name="Old CA")
    write_ca(files, CA + old.cert_pem.bytes())

    roles = [(one.role, one.subject) for one in Certificates(files).describe()]

    assert roles == [("server", "localhost"), ("client-ca", "Hospital CA"), ("client-ca", "Old CA")]


def test_files_are_described_without_a_server(files: TLSFiles) -> None:
    """Names and ends, for those who look after a box."""
    write(files, issue_server(HOSPITAL, "box-7.ward.example", "10.0.0.7", **PAST))

    own, authority = describe(files)

    assert (own.role, own.names) == ("server", ("box-7.ward.example", "10.0.0.7"))
    assert datetime.fromtimestamp(own.not_after, UTC) == PAST["not_after"].replace(microsecond=0)
    assert authority.not_after > FUTURE["not_after"].timestamp()


def test_chain_and_text_around_certificates_are_as_tools_write_them(files: TLSFiles) -> None:
    """An authority in between comes behind; ``openssl x509 -text`` writes a page before."""
    between = HOSPITAL.create_child_ca()
    pair = between.issue_cert("localhost")
    write(files, pair)
    files.certificate.write_bytes("Häuser: ein Text\n".encode() + files.certificate.read_bytes())
    write_ca(files, b"# ours\n" + CA)

    bundle = read_bundle(files)

    assert bundle.certificate.count(b"BEGIN CERTIFICATE") == 2
    assert bundle.server.subject == "localhost"


def test_client_certificate_is_not_one_of_a_server(files: TLSFiles, tmp_path: Path) -> None:
    """As in a shell where the client's settings of the same name are set."""
    from server.security.issue import main

    assert main(["--out", str(tmp_path / "made")]) == 0

    with pytest.raises(CertificateError, match="not one for a server: unsuitable certificate purpose"):
        read_bundle(TLSFiles(tmp_path / "made" / "client.pem", tmp_path / "made" / "client.key"))


def test_keys_that_no_client_accepts_are_known() -> None:
    """gRPC would load them, and every call would fail."""
    make = {
        "Ed25519": ed25519.Ed25519PrivateKey.generate(),
        "P-521": ec.generate_private_key(ec.SECP521R1()),
        "": ec.generate_private_key(ec.SECP256R1()),
    }
    for kind, private in make.items():
        for form in {
            PrivateFormat.PKCS8,
            PrivateFormat.TraditionalOpenSSL if kind != "Ed25519" else PrivateFormat.PKCS8,
        }:
            assert find_unusable_kind(private.private_bytes(Encoding.PEM, form, NoEncryption())) == kind


@pytest.mark.parametrize(
    ("mode", "owner", "user", "is_open"),
    [
        (0o600, 1000, 1000, False),
        (0o400, 1000, 1000, False),
        (0o640, 1000, 1000, True),
        (0o604, 1000, 1000, True),
        (0o440, 0, 1000, False),
        (0o460, 0, 1000, True),
        (0o444, 0, 1000, True),
        (0o440, 0, 0, True),
    ],
)
def test_who_may_read_a_key(mode: int, owner: int, user: int, is_open: bool) -> None:
    """The server's user alone; root may lend it to a group, as Kubernetes does with fsGroup and Debian by ssl-cert."""
    status = os.stat_result((0o100000 | mode, 1, 1, 1, owner, 0, 1, 0, 0, 0))

    assert is_open_to_others(status, user) == is_open


def test_links_to_files_are_followed(files: TLSFiles, tmp_path: Path) -> None:
    """Kubernetes and certbot exchange the target of a link."""
    for number in (1, 2):
        (tmp_path / f"v{number}").mkdir()
        write(TLSFiles(tmp_path / f"v{number}" / "c", tmp_path / f"v{number}" / "k"), fresh(-number, 300))
    (tmp_path / "now").symlink_to("v1")
    own = Certificates(TLSFiles(tmp_path / "now" / "c", tmp_path / "now" / "k"))
    before = own.describe()

    (tmp_path / "now.new").symlink_to("v2")
    os.replace(tmp_path / "now.new", tmp_path / "now")
    own.look()
    own.look()

    assert own.describe() != before
