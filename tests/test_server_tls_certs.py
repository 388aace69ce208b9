"""``python -m server certs``: an authority and pairs of it that work at once, and that nothing replaces by accident."""

from __future__ import annotations

import shlex
import ssl
import stat
import sys
from pathlib import Path

import pytest
from cryptography import x509

from server.security.bundle import TLSFiles, read_bundle, shake_hands
from server.security.issue import main


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def connect(folder: Path, client: str, server: str = "server", name: str = "localhost") -> None:
    """Shakes hands in memory, each side with its pair and the authority.

    Raises:
        ssl.SSLError: one does not trust the other.
    """
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for context, own in ((theirs, client), (ours, server)):
        context.load_cert_chain(folder / f"{own}.pem", folder / f"{own}.key")
        context.load_verify_locations(folder / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    shake_hands(ours, theirs, name)


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Returns the one line that says why nothing was made."""
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_folder_holds_what_server_and_client_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys are closed to others; the commands that are printed name the files that were made."""
    folder = tmp_path / "my certs"

    assert main(["--out", str(folder), "--host", "box-7.example", "10.0.0.7", "--client", "pacs", "a@b.example"]) == 0

    names = {"ca", "server", "pacs", "a@b.example"}
    assert {path.name for path in folder.iterdir()} == {f"{name}.{end}" for name in names for end in ("pem", "key")}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.key")} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    said = capsys.readouterr().out
    assert f"python -m server --host 0.0.0.0 --tls-cert '{folder}/server.pem' --tls-key '{folder}/server.key'" in said
    assert "python -m client --server box-7.example:50051 --tls-ca" in said
    words = [word for line in said.splitlines() if line.startswith("  python") for word in shlex.split(line)]
    named = {Path(word) for word in words if word.endswith((".pem", ".key"))}
    assert named == set(folder.iterdir()) - {folder / "ca.key"}
    for client in ("pacs", "a@b.example"):
        connect(folder, client, name="10.0.0.7")


def test_certificates_say_what_they_are_for(tmp_path: Path) -> None:
    """A client's cannot stand for a server, nor the other way round; names are where gRPC finds them."""
    main(["--out", str(tmp_path), "--client", "pacs", "a@b.example"])

    found = read_bundle(TLSFiles(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem"))
    assert found.server.names == ("localhost", "127.0.0.1")
    names = read(tmp_path / "a@b.example.pem").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.RFC822Name) == ["a@b.example"]
    for client, server in (("pacs", "pacs"), ("server", "server")):
        with pytest.raises(ssl.SSLError, match="unsuitable certificate purpose"):
            connect(tmp_path, client, server, name="pacs" if client == "pacs" else "localhost")


def test_nothing_is_replaced_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even in part; with ``--force`` pairs are made anew, by the same authority."""
    main(["--out", str(tmp_path)])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert "has server.pem, server.key, client.pem, client.key: --force" in refuse(capsys, "--out", str(tmp_path))
    assert "has client.pem" in refuse(capsys, "--out", str(tmp_path), "--client", "new", "client")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert main(["--out", str(tmp_path), "--host", "localhost", "--force"]) == 0

    changed = {name for name, data in before.items() if (tmp_path / name).read_bytes() != data}
    assert changed == {"server.pem", "server.key"}
    connect(tmp_path, "client")


def test_more_clients_are_of_the_same_authority(tmp_path: Path) -> None:
    """Only what is named is made where there is an authority."""
    main(["--out", str(tmp_path)])

    assert main(["--out", str(tmp_path), "--client", "station-4", "--days", "10"]) == 0

    connect(tmp_path, "station-4")
    one = read(tmp_path / "station-4.pem")
    assert (one.not_valid_after_utc - one.not_valid_before_utc).days == 10


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda folder: (folder / "ca.key").unlink(), "cannot be read (No such file"),
        (lambda folder: (folder / "ca.key").write_text("no key"), "is damaged, or has a passphrase"),
        (
            lambda folder: (folder / "ca.key").write_bytes((folder / "server.key").read_bytes()),
            "do not belong together",
        ),
    ],
)
def test_broken_authority_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: object, sentence: str
) -> None:
    """Clients that trust it would trust nothing any more."""
    main(["--out", str(tmp_path)])
    change(tmp_path)  # type: ignore[operator]
    capsys.readouterr()

    line = refuse(capsys, "--out", str(tmp_path), "--client", "new")

    assert sentence in line
    assert "to begin with a new authority" in line
    assert not (tmp_path / "new.pem").exists()


def test_certificates_end_no_later_than_their_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer life would be none; an authority that has ended makes nothing."""
    monkeypatch.setattr("server.security.issue.AUTHORITY_DAYS", 20)
    main(["--out", str(tmp_path), "--days", "365"])

    ends = {read(tmp_path / f"{name}.pem").not_valid_after_utc for name in ("ca", "server", "client")}

    assert len(ends) == 1


def test_ended_authority_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so."""
    monkeypatch.setattr("server.security.issue.AUTHORITY_DAYS", 0)
    main(["--out", str(tmp_path), "--days", "1"])
    capsys.readouterr()

    assert "ended on" in refuse(capsys, "--out", str(tmp_path), "--client", "new")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--client", "../etc/x"), "--client"),
        (("--client", "ca"), "--client"),
        (("--client", ".hidden"), "--client"),
        (("--host", "box:50051"), "--host"),
        (("--host", "two words"), "--host"),
        (("--days", "0"), "--days"),
    ],
)
def test_names_that_cannot_be_are_named(
    tmp_path: Path, arguments: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file is written outside the folder, and none of the authority's."""
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), *arguments])

    assert f"error: {named} must be" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_missing_library_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server does without it."""
    monkeypatch.setitem(sys.modules, "cryptography", None)

    assert "pip install cryptography" in refuse(capsys, "--out", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
