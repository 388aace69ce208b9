"""``manifest.sig`` beside a manifest: who says that a model may be served. Ed25519 (RFC 8032).

A digest finds damage; a signature finds malice, for who may write the folder cannot sign. It is over the manifest, the
name and version, and so over all files. Several may stand there, so that keys can be replaced one after the other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.errors import ModelFileError
from server.machine.bounded_file import read_regular
from server.models.strict_json import parse_strictly

if TYPE_CHECKING:  # an extra installation
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_FILE = "manifest.sig"
SCHEMA = 1
ALGORITHM = "ed25519"
PURPOSE = "strokeserve model"
"""In what is signed, so that a key's other signatures are none of a model."""

MOST_KEYS = 64
MOST_SIGNATURES = 16
MOST_BYTES = 16 * 1024
"""Of a file of signatures, or a key."""

HOW_TO_SIGN = "sign it with 'python -m converter sign {folder} --key KEY.pem'"


@dataclass(frozen=True)
class TrustedKey:
    """A public key that may sign models."""

    path: Path
    fingerprint: str
    """SHA-256 of its 32 bytes, 64 lower-case hexadecimal digits."""

    key: Ed25519PublicKey


@dataclass(frozen=True)
class Signature:
    """One entry of ``manifest.sig``."""

    fingerprint: str
    """Of the key."""

    signature: bytes


def make_message(name: str, version: str, manifest: bytes) -> bytes:
    """What is signed: name and version of the model, and the SHA-256 of its manifest, which has those of all files."""
    digest = hashlib.sha256(manifest).hexdigest()
    return json.dumps([PURPOSE, SCHEMA, name, version, digest], ensure_ascii=True).encode()


def find_fingerprint(key: Ed25519PublicKey) -> str:
    """By which a key is told from others."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def read_trusted(folder: Path) -> tuple[TrustedKey, ...]:
    """Reads a folder of public keys, each a file ``*.pem``.

    Raises:
        ModelFileError: reason SIGNATURE_KEYS_INVALID: there are none, or one cannot be used.
    """
    serialization, kinds = import_cryptography()
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".pem")
    except OSError as error:
        raise invalid_keys(f"{folder}: cannot be read ({error.strerror})") from None
    if not 1 <= len(paths) <= MOST_KEYS:
        raise invalid_keys(f"{folder}: has {len(paths)} files *.pem; 1 to {MOST_KEYS} public keys must be there")
    trusted = []
    for path in paths:
        try:
            key = serialization.load_pem_public_key(read_regular(path, MOST_BYTES))
        except OSError as error:
            raise invalid_keys(f"{path}: cannot be read ({error.strerror or error})") from None
        except ValueError:
            raise invalid_keys(f"{path}: is no public key in PEM form") from None
        if not isinstance(key, kinds.Ed25519PublicKey):
            raise invalid_keys(f"{path}: is not an Ed25519 key")
        trusted.append(TrustedKey(path, find_fingerprint(key), key))
    return tuple(trusted)


def check_signature(folder: Path, manifest: bytes, trusted: Sequence[TrustedKey]) -> TrustedKey:
    """Checks that a trusted key has signed a model; returns it.

    Args:
        folder: ``models/NAME/VERSION``.
        manifest: the bytes of its manifest, as they are used.
        trusted: the keys.

    Raises:
        ModelFileError: reasons SIGNATURE_MISSING, SIGNATURE_UNTRUSTED, SIGNATURE_WRONG.
    """
    from cryptography.exceptions import InvalidSignature

    path = folder / SIGNATURE_FILE
    hint = HOW_TO_SIGN.format(folder=folder)
    try:
        signatures = read_signatures(path)
    except FileNotFoundError:
        raise ModelFileError(
            "SIGNATURE_MISSING", f"{path}: missing, and only signed models are served; {hint}"
        ) from None
    message = make_message(folder.parent.name, folder.name, manifest)
    known = {one.fingerprint: one for one in trusted}
    named = [(known[one.fingerprint], one.signature) for one in signatures if one.fingerprint in known]
    if not named:
        raise ModelFileError("SIGNATURE_UNTRUSTED", f"{path}: signed with no key that is trusted here; {hint}")
    for key, signature in named:
        try:
            key.key.verify(signature, message)
        except InvalidSignature:
            continue
        return key
    raise ModelFileError(
        "SIGNATURE_WRONG",
        f"{path}: is not that of this manifest, name and version: something was altered after it was signed, or "
        f"moved; {hint}",
    )


def read_signatures(path: Path) -> tuple[Signature, ...]:
    """Reads ``manifest.sig``.

    Raises:
        FileNotFoundError: there is none.
        ModelFileError: reason SIGNATURE_INVALID.
    """
    try:
        document = parse_strictly(read_regular(path, MOST_BYTES))
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        entries = document.get("signatures")
        if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_SIGNATURES:
            raise ValueError(f"it has not 1 to {MOST_SIGNATURES} signatures")
        return tuple(map(read_entry, entries))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelFileError("SIGNATURE_INVALID", f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise ModelFileError("SIGNATURE_INVALID", f"{path}: is no file of signatures: {error}") from None


def read_entry(entry: Any) -> Signature:
    """One signature.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(entry, dict) or set(entry) != {"algorithm", "key", "signature"}:
        raise ValueError("an entry has not algorithm, key and signature")
    if entry["algorithm"] != ALGORITHM or not all(isinstance(value, str) for value in entry.values()):
        raise ValueError(f"an algorithm is not {ALGORITHM}")
    try:
        return Signature(entry["key"], base64.b64decode(entry["signature"], validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("a signature is not in base64") from None


def encode_signatures(signatures: Sequence[Signature]) -> str:
    """The text of ``manifest.sig``."""
    entries = [
        {"algorithm": ALGORITHM, "key": one.fingerprint, "signature": base64.b64encode(one.signature).decode("ascii")}
        for one in signatures
    ]
    return json.dumps({"schema": SCHEMA, "signatures": entries}, indent=2) + "\n"


def sign(folder: Path, manifest: bytes, key: Ed25519PrivateKey) -> Signature:
    """The signature of a model by a key."""
    message = make_message(folder.parent.name, folder.name, manifest)
    return Signature(find_fingerprint(key.public_key()), key.sign(message))


def import_cryptography() -> tuple[Any, Any]:
    """The package's ``serialization``, and its module of Ed25519.

    Raises:
        ModelFileError: reason SIGNATURE_KEYS_INVALID: it is not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError:
        raise invalid_keys(
            "signatures need the package cryptography, which is not installed: make install-signing, or python -m pip "
            "install --require-hashes -r requirements/extras/signing.lock"
        ) from None
    return serialization, ed25519


def invalid_keys(message: str) -> ModelFileError:
    return ModelFileError("SIGNATURE_KEYS_INVALID", message)
