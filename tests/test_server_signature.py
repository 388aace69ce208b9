"""Only models are served that a trusted key has signed, where that is asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from converter.cli import main as convert
from server.errors import ModelFileError
from server.models.runtime import load_model
from server.models.signature import SIGNATURE_FILE, read_trusted
from tests.fakes import rewrite_manifest, run_module, write_model


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A model that a key in ``trusted`` has signed."""
    folder = write_model(tmp_path / "models")
    make_key(tmp_path, "a")
    assert convert(["sign", str(folder), "--key", str(tmp_path / "a.pem")]) == 0
    return folder


def make_key(root: Path, name: str) -> None:
    """A pair of keys, of which ``trusted`` gets the public one."""
    assert convert(["key", "--out", str(root / f"{name}.pem")]) == 0
    (root / "trusted").mkdir(exist_ok=True)
    shutil.copy(root / f"{name}.pub.pem", root / "trusted")


def find_reason(folder: Path, trusted: Path) -> str:
    """Why a model is refused; empty when it is served."""
    try:
        load_model(folder, trusted=read_trusted(trusted))
    except ModelFileError as error:
        return error.reason
    return ""


def test_signed_model_is_served(signed: Path, tmp_path: Path) -> None:
    """With a key that is trusted, whatever other keys are there."""
    make_key(tmp_path, "b")

    assert find_reason(signed, tmp_path / "trusted") == ""


def test_model_without_a_signature_is_refused(tmp_path: Path) -> None:
    """The sentence names the command that signs."""
    folder = write_model(tmp_path / "models")
    make_key(tmp_path, "a")

    with pytest.raises(ModelFileError, match="python -m converter sign") as refusal:
        load_model(folder, trusted=read_trusted(tmp_path / "trusted"))
    assert refusal.value.reason == "SIGNATURE_MISSING"


def test_signature_of_a_key_that_is_not_trusted_any_more_is_refused(signed: Path, tmp_path: Path) -> None:
    """Taking a key out of the folder is enough."""
    make_key(tmp_path, "b")
    (tmp_path / "trusted" / "a.pub.pem").unlink()

    assert find_reason(signed, tmp_path / "trusted") == "SIGNATURE_UNTRUSTED"


def test_keys_are_rotated_without_a_time_between(signed: Path, tmp_path: Path) -> None:
    """A model has a signature of the old key and one of the new; then the old key goes."""
    make_key(tmp_path, "b")
    assert convert(["sign", str(signed), "--key", str(tmp_path / "b.pem")]) == 0
    assert find_reason(signed, tmp_path / "trusted") == ""
    (tmp_path / "trusted" / "a.pub.pem").unlink()

    assert find_reason(signed, tmp_path / "trusted") == ""


def test_signing_twice_with_a_key_is_signing_once(signed: Path, tmp_path: Path) -> None:
    """A file does not grow for ever."""
    before = (signed / SIGNATURE_FILE).read_text()
    assert convert(["sign", str(signed), "--key", str(tmp_path / "a.pem")]) == 0

    assert (signed / SIGNATURE_FILE).read_text() == before  # Ed25519 is deterministic


def alter_manifest(folder: Path) -> Path:
    rewrite_manifest(folder, lambda document: document["parity"].update(image_difference=0.5))
    return folder


def move_to_another_version(folder: Path) -> Path:
    return folder.rename(folder.with_name("2"))


def replace_signature(folder: Path) -> Path:
    document = json.loads((folder / SIGNATURE_FILE).read_text())
    document["signatures"][0]["signature"] = "A" * 86 + "=="
    (folder / SIGNATURE_FILE).write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize("change", [alter_manifest, move_to_another_version, replace_signature])
def test_what_was_altered_after_signing_is_refused(
    change: Callable[[Path], Path], signed: Path, tmp_path: Path
) -> None:
    """Whoever may write the folder can make every digest right, but not the signature."""
    assert find_reason(change(signed), tmp_path / "trusted") == "SIGNATURE_WRONG"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema": 2, "signatures": []}',
        '{"schema": 1, "signatures": []}',
        '{"schema": 1, "signatures": [1]}',
        '{"schema": 1, "signatures": [{"algorithm": "rsa", "key": "", "signature": ""}]}',
        '{"schema": 1, "signatures": [{"algorithm": "ed25519", "key": "", "signature": "é"}]}',
        "[" * 10_000,
        " " * 100_000,
    ],
)
def test_file_that_is_none_of_signatures_is_refused(text: str, signed: Path, tmp_path: Path) -> None:
    """Whatever is in it."""
    (signed / SIGNATURE_FILE).write_text(text)

    assert find_reason(signed, tmp_path / "trusted") == "SIGNATURE_INVALID"


@pytest.mark.parametrize("kind", ["none", "private", "garbage", "other kind", "missing folder"])
def test_keys_that_cannot_be_used_are_named(kind: str, signed: Path, tmp_path: Path) -> None:
    """A server does not start without the keys that it was to have: a typing error must not switch signatures off."""
    trusted = tmp_path / "trusted"
    path = trusted / "a.pub.pem"
    if kind in ("none", "missing folder"):
        path.unlink()
    if kind == "missing folder":
        trusted.rmdir()
    if kind == "private":
        path.write_bytes((tmp_path / "a.pem").read_bytes())
    if kind == "garbage":
        path.write_bytes(b"garbage")
    if kind == "other kind":
        public = generate_private_key(SECP256R1()).public_key()
        path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    assert find_reason(signed, trusted) == "SIGNATURE_KEYS_INVALID"


def test_server_that_wants_a_signature_does_not_start_without(tmp_path: Path) -> None:
    """It says so in one line, and exits with 1."""
    write_model(tmp_path / "models")
    make_key(tmp_path, "a")

    keys = ("--require-signature", str(tmp_path / "trusted"))
    result = run_module("server", "--models", str(tmp_path / "models"), "--port", "0", *keys)

    assert result.returncode == 1
    assert "[SIGNATURE_MISSING]" in result.stderr.splitlines()[-1]


def test_private_key_is_for_nobody_else_and_none_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second call would make every signature so far worthless."""
    make_key(tmp_path, "a")

    assert (tmp_path / "a.pem").stat().st_mode & 0o777 == 0o600
    assert convert(["key", "--out", str(tmp_path / "a.pem")]) == 1
    assert "a.pem" in capsys.readouterr().err


def test_verify_says_what_a_server_would(signed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of each file, and of the signature; in one line where it would be refused."""
    keys = ["--require-signature", str(tmp_path / "trusted")]
    assert convert(["verify", str(signed), *keys, "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["ok"] is True
    assert said["signed_by"] == str(tmp_path / "trusted" / "a.pub.pem")
    assert [one["file"] for one in said["files"]] == ["model.onnx"]

    (signed / "model.onnx").write_bytes(b"other")
    assert convert(["verify", str(signed), *keys]) == 1
    assert "[MODEL_FILE_TRUNCATED]" in capsys.readouterr().err


def test_damaged_model_is_not_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A signature says that somebody has looked."""
    folder = write_model(tmp_path / "models")
    make_key(tmp_path, "a")
    (folder / "model.onnx").write_bytes(b"other")

    assert convert(["sign", str(folder), "--key", str(tmp_path / "a.pem")]) == 1
    assert not (folder / SIGNATURE_FILE).exists()
