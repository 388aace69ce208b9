"""The manifest as a whole: whatever is damaged, unknown or endless in it is refused, in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.errors import ModelFileError
from server.models.golden import MOST_CLASSES
from server.models.manifest import (
    INT8_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    MOST_GOLDEN,
    MOST_MODEL_BYTES,
    Manifest,
    read_manifest,
)
from tests.fakes import BUNDLED, build_tiny_model, rewrite_manifest, run_module, sign_manifest, write_model

BUNDLED = BUNDLED / MANIFEST_FILE


def drop_digest(text: str) -> str:
    """The manifest as versions wrote it that knew no digest."""
    document = json.loads(text)
    del document["digest"]
    return json.dumps(document, indent=2)


def test_no_flipped_bit_is_passed_over() -> None:
    """Of all bits of the bundled manifest, those in figures for people included."""
    data = BUNDLED.read_bytes()
    Manifest.from_json(data)
    for bit in range(8 * len(data)):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match=r"."):
            Manifest.from_json(bytes(altered))


def test_flipped_bit_in_a_manifest_without_digest_loses_no_variant() -> None:
    """A manifest of before is read, but no flipped key makes its variant, or the target of it, disappear."""
    data = drop_digest(BUNDLED.read_text()).encode()
    whole = Manifest.from_json(data)
    for bit in range(8 * len(data)):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        try:
            manifest = Manifest.from_json(bytes(altered))
        except ValueError:
            continue
        assert manifest.files.keys() == whole.files.keys()
        assert manifest.files[INT8_FILE].target == whole.files[INT8_FILE].target
        assert all(len(record.probabilities) in (0, len(manifest.golden)) for record in manifest.files.values())


def test_other_line_ends_and_indents_are_the_same_manifest() -> None:
    """The digest is of what is said, not of how a tool breaks its lines."""
    text = BUNDLED.read_text()

    assert Manifest.from_json(text.replace("\n", "\r\n")) == Manifest.from_json(text.replace("  ", "\t"))


RECORD = ("files", MODEL_FILE)
VECTOR = ("golden", 0)
BAD_VALUES: list[tuple[tuple[Any, ...], Any]] = [
    (("schema",), True),
    (("schema",), 1.0),
    (("schema",), 10**4000),
    (("note",), "unknown"),
    (("files", "model.int4.onnx"), {}),
    (("files", "../model.onnx"), {}),
    (("files",), []),
    ((*RECORD, "sha256"), "0" * 63),
    ((*RECORD, "sha256"), "G" * 64),
    ((*RECORD, "sha256"), 0),
    ((*RECORD, "size"), True),
    ((*RECORD, "size"), 1.0),
    ((*RECORD, "size"), "1"),
    ((*RECORD, "size"), -1),
    ((*RECORD, "size"), MOST_MODEL_BYTES + 1),
    ((*RECORD, "size"), 10**4000),
    ((*RECORD, "tolerance"), True),
    ((*RECORD, "tolerance"), "0.1"),
    ((*RECORD, "tolerance"), 0.11),
    ((*RECORD, "tolerance"), float("nan")),
    ((*RECORD, "tolerance"), 10**400),
    ((*RECORD, "target"), "vax"),
    ((*RECORD, "target"), ""),
    ((*RECORD, "target"), ["x86"]),
    ((*RECORD, "probabilities"), []),
    ((*RECORD, "probabilities"), [[]]),
    ((*RECORD, "tarqet"), "x86"),
    ((*RECORD, "gate"), "passed"),
    ((*RECORD, "gate"), {"auc": float("inf")}),
    ((*RECORD, "gate"), {"slices": "\ud800"}),
    (("golden",), []),
    (("golden",), {}),
    (("golden",), [{"seed": 1, "probabilities": [0.5, 0.5]}] * (MOST_GOLDEN + 1)),
    ((*VECTOR, "seed"), 2**32),
    ((*VECTOR, "seed"), 1.0),
    ((*VECTOR, "seed"), False),
    ((*VECTOR, "probabilities"), [0.0] * (MOST_CLASSES + 1)),
    ((*VECTOR, "probabilities"), [True, False]),
    ((*VECTOR, "probabilities"), [7.0, -6.0]),
    ((*VECTOR, "probabilities"), ["0.5", "0.5"]),
    (("parity",), []),
    (("parity", "image_difference"), None),
]


@pytest.mark.parametrize(("place", "value"), BAD_VALUES)
def test_what_is_unknown_or_of_the_wrong_type_is_refused(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    """Also where the digest is right, and where there is none; the message is one line."""
    folder = write_model(tmp_path)

    def change(document: dict[str, Any]) -> None:
        part: Any = document
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = value

    rewrite_manifest(folder, change)
    for text in ((folder / MANIFEST_FILE).read_text(), drop_digest((folder / MANIFEST_FILE).read_text())):
        (folder / MANIFEST_FILE).write_text(text)
        with pytest.raises(ModelFileError) as refusal:
            read_manifest(folder)
        assert refusal.value.reason == "MANIFEST_INVALID"
        assert refusal.value.message.isprintable()
        assert len(refusal.value.message) < 500


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"schema": 1, "schema": 1, "files": {}, "golden": [], "parity": {}}',
        b'{"schema": ' + b"1" * 5000 + b"}",
        b'{"a":' * 100_000,
        b" " * (1024 * 1024 + 1),
        b'{"schema": 1e999}',
    ],
    ids=["not UTF-8", "byte order mark", "a key twice", "endless digits", "nested", "too large", "too large a number"],
)
def test_text_that_is_no_plain_json_is_refused(tmp_path: Path, data: bytes) -> None:
    """Without a traceback, and without reading on for ever."""
    folder = write_model(tmp_path)
    (folder / MANIFEST_FILE).write_bytes(data)

    with pytest.raises(ModelFileError) as refusal:
        read_manifest(folder)

    assert refusal.value.reason == "MANIFEST_INVALID"
    assert refusal.value.message.isprintable()


def test_wrong_digest_is_refused(tmp_path: Path) -> None:
    """A figure that was changed by hand is found, also one that is only for people."""
    folder = write_model(tmp_path, int8=build_tiny_model())
    text = (folder / MANIFEST_FILE).read_text()
    (folder / MANIFEST_FILE).write_text(text.replace('"image_difference": 0.0', '"image_difference": 0.1'))

    with pytest.raises(ModelFileError, match="altered"):
        read_manifest(folder)

    document = json.loads((folder / MANIFEST_FILE).read_text())
    (folder / MANIFEST_FILE).write_text(sign_manifest(document))
    assert read_manifest(folder).parity == {"image_difference": 0.1}


def test_server_says_so_in_one_line(tmp_path: Path) -> None:
    """Exit code 1, whatever the manifest holds."""
    folder = write_model(tmp_path)
    (folder / MANIFEST_FILE).write_text('{"schema": 1, "a\\nb": 1, "files": {}, "golden": [], "parity": {}}')

    result = run_module("server", "--models", str(tmp_path), "--port", "0")

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "MANIFEST_INVALID" in line
