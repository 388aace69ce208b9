"""``python -m converter key | sign | verify``: who says that a model may be served, and what a server says of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from server.errors import ModelFileError
from server.flags import REQUIRED, LineParser, check_settings, parse_settings, setting
from server.machine.bounded_file import read_regular
from server.models.engines.engine import EngineOptions
from server.models.manifest import EXPLAIN_FILE, read_manifest, read_manifest_bytes
from server.models.signature import (
    MOST_BYTES,
    MOST_SIGNATURES,
    SIGNATURE_FILE,
    check_signature,
    encode_signatures,
    import_cryptography,
    invalid_keys,
    read_signatures,
    read_trusted,
    sign,
)
from server.process.console import complain, say

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

EXIT_FAILED = 1


@dataclass(frozen=True)
class KeyOptions:
    """What ``python -m converter key`` is told."""

    out: Path = setting(REQUIRED, "file for the private key; the public one goes beside it, .pub.pem", metavar="FILE")

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class SignOptions:
    """What ``python -m converter sign`` is told."""

    folder: Path = setting(REQUIRED, "models/NAME/VERSION", positional=True, metavar="DIR")
    key: Path = setting(REQUIRED, "private key, Ed25519 in PEM form without a passphrase", metavar="FILE")

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class VerifyOptions:
    """What ``python -m converter verify`` is told."""

    folder: Path = setting(REQUIRED, "models/NAME/VERSION", positional=True, metavar="DIR")
    require_signature: Path | None = setting(
        None, "folder of public keys (*.pem), one of which must have signed it", metavar="DIR"
    )
    json: bool = setting(False, "print one JSON object")

    def __post_init__(self) -> None:
        check_settings(self)


def run_key(argv: Sequence[str]) -> int:
    """Makes a pair of keys. Returns 0, or 1 when it could not."""
    options = parse_settings(make_parser("key", "Makes a pair of keys to sign models with."), KeyOptions, argv)
    return guard(lambda: make_pair(options.out))


def run_sign(argv: Sequence[str]) -> int:
    """Signs a model. Returns 0, or 1 when it could not."""
    options = parse_settings(make_parser("sign", "Signs a model: its manifest, name and version."), SignOptions, argv)
    return guard(lambda: sign_folder(options))


def run_verify(argv: Sequence[str]) -> int:
    """Says all that a server would say of a model. Returns 0 when it would be served, 1 when not."""
    parser = make_parser("verify", "Loads each file of a model as a server would, and asks its golden vectors.")
    options = parse_settings(parser, VerifyOptions, argv)
    return guard(lambda: verify_folder(options))


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"key": run_key, "sign": run_sign, "verify": run_verify}


def make_parser(name: str, description: str) -> LineParser:
    """The command line of one of the commands."""
    return LineParser(
        prog=f"python -m converter {name}",
        description=description,
        epilog=(
            "examples:\n"
            "  python -m converter key --out signing.pem\n"
            "  python -m converter sign models/stroke-cnn/4 --key signing.pem\n"
            "  python -m converter verify models/stroke-cnn/4 --require-signature trusted/\n\n"
            "Exit codes: 0 done, 1 not done or not to be served (one line says why), 2 usage."
        ),
    )


def guard(command: Callable[[], None]) -> int:
    """Runs a command whose errors are one line each."""
    try:
        command()
    except ModelFileError as error:
        complain(f"converter: error: {error.message} [{error.reason}]")
        return EXIT_FAILED
    except OSError as error:
        complain(f"converter: error: {error.filename}: {error.strerror}")
        return EXIT_FAILED
    return 0


def make_pair(out: Path) -> None:
    """Writes a private key, which nobody else may read, and its public one.

    Raises:
        OSError: a file is there already, or cannot be written.
        ModelFileError: the package is not installed.
    """
    serialization, kinds = import_cryptography()
    key = kinds.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    beside = out.with_suffix(".pub.pem")
    for path, data, mode in ((out, private, 0o600), (beside, public, 0o644)):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
    say(f"{out}: private, to be kept away from servers\n{beside}: public, for their --require-signature folder")


def sign_folder(options: SignOptions) -> None:
    """Adds a signature to a folder, or renews that of the same key.

    Raises:
        ModelFileError: the model is not whole, or the key cannot be used.
        OSError: the signature cannot be written.
    """
    folder, key = options.folder.resolve(), read_private(options.key)
    verify_files(folder)
    path = folder / SIGNATURE_FILE
    added = sign(folder, read_manifest_bytes(folder), key)
    try:
        others = [one for one in read_signatures(path) if one.fingerprint != added.fingerprint]
    except FileNotFoundError:
        others = []
    if len(others) >= MOST_SIGNATURES:
        raise ModelFileError("SIGNATURE_INVALID", f"{path}: has {len(others)} signatures already; remove it first")
    staged = path.with_suffix(".new")
    with open(staged, "w", encoding="ascii") as file:
        file.write(encode_signatures([*others, added]))
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
    say(f"{path}: signed {folder.parent.name} {folder.name} with key {added.fingerprint[:12]}…")


def read_private(path: Path) -> Ed25519PrivateKey:
    """A private key.

    Raises:
        ModelFileError: reason SIGNATURE_KEYS_INVALID.
    """
    serialization, kinds = import_cryptography()
    how = "make one with 'python -m converter key --out FILE'"
    try:
        key = serialization.load_pem_private_key(read_regular(path, MOST_BYTES), None)
    except OSError as error:
        raise invalid_keys(f"{path}: cannot be read ({error.strerror or error}); {how}") from None
    except (ValueError, TypeError):
        raise invalid_keys(f"{path}: is no private key in PEM form without a passphrase; {how}") from None
    if not isinstance(key, kinds.Ed25519PrivateKey):
        raise invalid_keys(f"{path}: is not an Ed25519 key; {how}")
    private: Ed25519PrivateKey = key
    return private


def verify_files(folder: Path) -> list[dict[str, object]]:
    """Loads each file of a model as a server would. Returns what is to be said of each.

    Raises:
        ModelFileError: one would not be served.
    """
    from server.models.runtime import FILES, load_model, measure_golden_difference

    manifest = read_manifest(folder)
    found: list[dict[str, object]] = []
    differences: dict[str, float] = {}
    for precision, name in FILES.items():
        if name in manifest.files:
            model = load_model(folder, replace(EngineOptions(), precision=precision, explains=True))
            differences[name] = measure_golden_difference(model, manifest.list_golden(name))
    if model.explainer is not None:
        record = manifest.files[EXPLAIN_FILE]
        differences[EXPLAIN_FILE] = model.explainer.measure(manifest.golden, record.heatmap_sums)
    for name, difference in differences.items():
        record = manifest.files[name]
        found.append(
            {
                "file": name,
                "sha256": record.sha256,
                "size": record.size,
                "golden_difference": difference,
                "tolerance": record.tolerance,
                "labels": list(model.spec.labels),
                "threshold": model.spec.threshold,
            }
        )
    return found


def verify_folder(options: VerifyOptions) -> None:
    """Says what a server would say.

    Raises:
        ModelFileError: it would not serve the model.
    """
    folder = options.folder.resolve()
    files = verify_files(folder)
    signer = ""
    if options.require_signature is not None:
        trusted = read_trusted(options.require_signature)
        signer = str(check_signature(folder, read_manifest_bytes(folder), trusted).path)
    if options.json:
        say(json.dumps({"ok": True, "files": files, "signed_by": signer or None}))
        return
    lines = [f"{options.folder}: {folder.parent.name} {folder.name} would be served"]
    lines += [
        f"  {one['file']}: {one['size']:,} bytes, sha256 {str(one['sha256'])[:12]}…, golden vectors differ by "
        f"{one['golden_difference']:.2g} (allowed: {one['tolerance']:g})"
        for one in files
    ]
    lines.append(f"  signature: {f'by {signer}' if signer else 'not asked for'}")
    say("\n".join(lines))
