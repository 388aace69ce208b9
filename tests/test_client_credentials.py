"""Certificates and keys of the client: checked when it is made, never shown."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from client import StrokeClient, TLSConfig
from client.tls.certificate import parse_certificate
from tests.certificates import CA, DAY, NOW, chain, issue_client, issue_server, key, settings


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
