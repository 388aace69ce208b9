"""``manifest.json`` beside a model file: what its bytes must be and what it must answer on this very box.

Nothing else in the chain would notice one flipped bit in a weight: ONNX Runtime loads it silently. So the converter
writes, and the server verifies before it serves: the SHA-256 of each file, and golden vectors, that is inputs that
anyone can make again from a seed, with the probabilities that the model gave for them where it was made.

The manifest is checked as a whole as well: one flipped bit in the name of a key must not make a variant, or a bound,
disappear. It states the SHA-256 of its own text, and has no key, file or target that is not known here. That finds
damage, not malice: who may write the folder may write all of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.errors import ModelFileError
from server.machine.bounded_file import open_regular, read_regular
from server.models.golden import GoldenVector, read_heatmap_sums, read_probabilities, read_score
from server.models.strict_json import check_keys, is_unicode, is_whole, parse_strictly, read_list, read_number

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
EXPLAIN_FILE = "model.explain.onnx"
TARGETS = ("x86-vnni", "x86", "arm64")
"""Processors that a variant can be made for: quantisation that is fast on one can be slow or inexact on another."""

MANIFEST_SCHEMA = 1
LARGEST_TOLERANCE = 0.1
"""A manifest that allows more verifies nothing."""

MOST_MANIFEST_BYTES = 1024 * 1024
"""The bundled one has 2.5 kB; this is room for many more classes and figures than a model of slices has."""

MOST_MODEL_BYTES = 2**31 - 1
"""Protobuf's own bound of a message."""

CHUNK_BYTES = 1024 * 1024
MOST_GOLDEN = 64
"""Each is a run of the model at every start; the converter writes four."""


@dataclass(frozen=True)
class FileRecord:
    """One file of a model folder."""

    sha256: str
    """64 lower-case hexadecimal digits."""

    size: int
    """In bytes."""

    tolerance: float
    """Largest absolute difference of a probability from the golden vectors that still counts as the same model."""

    target: str = ""
    """Processor that it was made for, one of ``TARGETS``; empty: any."""

    probabilities: tuple[tuple[float, ...], ...] = ()
    """This file's own answers to the golden vectors, in their order, so that a quantised variant is verified as tightly
    as the model it was made from; empty: those of the golden vectors themselves."""

    gate: Mapping[str, Any] = field(default_factory=dict)
    """What the converter's accuracy gate measured; for people."""

    outlier_scores: tuple[float, ...] = ()
    """The same of the scores that the golden vectors have; empty: theirs."""

    heatmap_sums: tuple[float, ...] = ()
    """Of an explain file: those of the rows, then of the columns, of the first golden vector's heatmap."""

    def to_document(self) -> dict[str, Any]:
        """The entry in ``manifest.json``; what is not set is left out."""
        document: dict[str, Any] = {"sha256": self.sha256, "size": self.size, "tolerance": self.tolerance}
        if self.target:
            document["target"] = self.target
        if self.probabilities:
            document["probabilities"] = [list(row) for row in self.probabilities]
        if self.outlier_scores:
            document["outlier_scores"] = list(self.outlier_scores)
        if self.heatmap_sums:
            document["heatmap_sums"] = list(self.heatmap_sums)
        if self.gate:
            document["gate"] = dict(self.gate)
        return document

    @classmethod
    def from_document(cls, document: Any) -> FileRecord:
        """Reads what ``to_document`` wrote.

        Raises:
            ValueError: it is no such document.
        """
        check_keys(
            document,
            {"sha256", "size", "tolerance"},
            {"target", "probabilities", "outlier_scores", "gate", "heatmap_sums"},
        )
        sha256, size, tolerance = document["sha256"], document["size"], read_number(document["tolerance"])
        if not is_sha256(sha256):
            raise ValueError("a sha256 is not 64 lower-case hexadecimal digits")
        if not (is_whole(size) and 0 <= size <= MOST_MODEL_BYTES):
            raise ValueError(f"a size is not a whole number in [0, {MOST_MODEL_BYTES}]")
        if not 0 <= tolerance <= LARGEST_TOLERANCE:
            raise ValueError(f"a tolerance is not in [0, {LARGEST_TOLERANCE}]")
        target = document.get("target", "")
        if "target" in document and target not in TARGETS:
            raise ValueError(f"a target is not one of {', '.join(TARGETS)}")
        probabilities: tuple[tuple[float, ...], ...] = ()
        if "probabilities" in document:
            probabilities = tuple(map(read_probabilities, read_list(document["probabilities"], MOST_GOLDEN)))
        outlier_scores: tuple[float, ...] = ()
        if "outlier_scores" in document:
            outlier_scores = tuple(map(read_score, read_list(document["outlier_scores"], MOST_GOLDEN)))
        heatmap_sums = read_heatmap_sums(document["heatmap_sums"]) if "heatmap_sums" in document else ()
        gate = document.get("gate", {})
        if not isinstance(gate, dict):
            raise ValueError("a gate is not an object")
        return cls(sha256, size, tolerance, target, probabilities, gate, outlier_scores, heatmap_sums)


@dataclass(frozen=True)
class Manifest:
    """Contents of ``manifest.json``."""

    files: Mapping[str, FileRecord]
    golden: tuple[GoldenVector, ...]
    parity: Mapping[str, float]
    """Differences from the source model that the converter measured, by name; for people."""

    reference: Mapping[str, Any] = field(default_factory=dict)
    """How near the answers come to those that the model's author got for the same files, where there are such; for
    people."""

    def list_golden(self, name: str) -> tuple[GoldenVector, ...]:
        """The golden vectors with the answers that the file ``name`` must give."""
        record = self.files[name]
        if not record.probabilities:
            return self.golden
        scores = record.outlier_scores or [vector.outlier_score for vector in self.golden]
        return tuple(
            GoldenVector(vector.seed, answer, score)
            for vector, answer, score in zip(self.golden, record.probabilities, scores, strict=True)
        )

    def to_json(self) -> str:
        """Returns the text of ``manifest.json``, which states its own digest."""
        document = {
            "schema": MANIFEST_SCHEMA,
            "digest": "",
            "files": {name: record.to_document() for name, record in self.files.items()},
            "golden": [vector.to_document() for vector in self.golden],
            "parity": dict(self.parity),
        }
        if self.reference:
            document["reference"] = dict(self.reference)
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
        return text.replace('"digest": ""', f'"digest": "{digest_text(text)}"', 1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Reads what ``to_json`` wrote, also of versions that wrote no digest.

        Raises:
            ValueError: it is no such document, or was altered; the text says why.
        """
        document = parse_strictly(text)
        if not is_unicode(document):
            raise ValueError("a text is not Unicode")
        if isinstance(document, dict) and document.get("schema") != MANIFEST_SCHEMA and "schema" in document:
            raise ValueError(f"its schema is {str(document['schema'])[:20]!r}, this server knows {MANIFEST_SCHEMA}")
        check_keys(document, {"schema", "files", "golden", "parity"}, {"digest", "reference"})
        if not is_whole(document["schema"]):
            raise ValueError("its schema is not a whole number")
        if "digest" in document:
            text = text.decode("utf-8") if isinstance(text, bytes) else text
            if not is_sha256(document["digest"]) or document["digest"] != digest_text(
                text.replace(document["digest"], "", 1)
            ):
                raise ValueError("it is altered, its digest is not that of its text")
        check_keys(document["files"], {MODEL_FILE}, {INT8_FILE, EXPLAIN_FILE})
        files = {name: FileRecord.from_document(entry) for name, entry in document["files"].items()}
        golden = tuple(map(GoldenVector.from_document, read_list(document["golden"], MOST_GOLDEN)))
        answers = [own for record in files.values() for own in (record.probabilities, record.outlier_scores)]
        if not all(len(own) in (0, len(golden)) for own in answers):
            raise ValueError("a file's answers are not as many as the golden vectors")
        parity, reference = document["parity"], document.get("reference", {})
        if not (isinstance(parity, dict) and isinstance(reference, dict)):
            raise ValueError("the parity or the reference is not an object")
        return cls(files, golden, {name: read_number(value) for name, value in parity.items()}, reference)


def digest_text(text: str) -> str:
    """The digest of a manifest whose own digest is left empty. White space does not count, so that a copy with other
    line ends, or one that was indented anew, is the same."""
    return hashlib.sha256("".join(text.split()).encode()).hexdigest()


def is_sha256(value: Any) -> bool:
    """Whether it is a SHA-256 in lower-case hexadecimal digits."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def read_manifest(folder: Path) -> Manifest:
    """Reads ``manifest.json`` of a model folder. Raises as ``read_manifest_bytes`` and ``parse_manifest``."""
    return parse_manifest(folder, read_manifest_bytes(folder))


def read_manifest_bytes(folder: Path) -> bytes:
    """The bytes of ``manifest.json``.

    Raises:
        ModelFileError: reasons MODEL_NOT_FOUND, MANIFEST_MISSING, MANIFEST_INVALID.
    """
    path = folder / MANIFEST_FILE
    try:
        is_there = folder.is_dir()
    except OSError as error:
        raise ModelFileError("MODEL_NOT_FOUND", f"{folder}: cannot be read ({error.strerror})") from None
    if not is_there:
        raise ModelFileError("MODEL_NOT_FOUND", f"{folder}: there is no such model folder; {HOW_TO_MAKE}")
    try:
        return read_regular(path, MOST_MANIFEST_BYTES)
    except FileNotFoundError:
        raise ModelFileError(
            "MANIFEST_MISSING", f"{path}: missing, so the model cannot be verified; {HOW_TO_MAKE}"
        ) from None
    except OSError as error:
        raise ModelFileError("MANIFEST_INVALID", f"{path}: cannot be read ({error.strerror}); {HOW_TO_MEND}") from None


def parse_manifest(folder: Path, text: bytes) -> Manifest:
    """What the bytes of a folder's ``manifest.json`` say.

    Raises:
        ModelFileError: reason MANIFEST_INVALID.
    """
    try:
        return Manifest.from_json(text)
    except ValueError as error:
        path = folder / MANIFEST_FILE
        raise ModelFileError("MANIFEST_INVALID", f"{path}: not a manifest: {error}; {HOW_TO_MEND}") from None


def read_verified(folder: Path, name: str, manifest: Manifest) -> bytes:
    """Reads one file of a model folder and checks it against the manifest.

    The bytes returned are the bytes that were hashed: nothing can change them between check and use.

    Raises:
        ModelFileError: reasons MODEL_FILE_MISSING, MODEL_FILE_TRUNCATED, MODEL_FILE_ALTERED.
    """
    path, record = folder / name, manifest.files[name]
    try:
        data = read_regular(path, record.size)
    except OSError as error:
        raise unreadable_file(path, record, error) from None
    compare(path, record, len(data), hashlib.sha256(data).hexdigest())
    return data


def check_file(folder: Path, name: str, manifest: Manifest) -> None:
    """Checks one file of a model folder, without room in memory for it. Raises as ``read_verified``."""
    path, record = folder / name, manifest.files[name]
    digest, size = hashlib.sha256(), 0
    try:
        descriptor = open_regular(path)
        try:
            while size <= record.size and (chunk := os.read(descriptor, CHUNK_BYTES)):
                digest.update(chunk)
                size += len(chunk)
        finally:
            os.close(descriptor)
        if size > record.size:
            raise OSError(errno.EFBIG, "it is longer")
    except OSError as error:
        raise unreadable_file(path, record, error) from None
    compare(path, record, size, digest.hexdigest())


def unreadable_file(path: Path, record: FileRecord, error: OSError) -> ModelFileError:
    """Of a file that cannot be read, or is longer than it should be."""
    if error.errno == errno.EFBIG:
        return ModelFileError(
            "MODEL_FILE_ALTERED",
            f"{path}: altered, it has more than the {record.size:,} bytes that {MANIFEST_FILE} says; {HOW_TO_MEND}",
        )
    return ModelFileError("MODEL_FILE_MISSING", f"{path}: cannot be read ({error.strerror}); {HOW_TO_MEND}")


def compare(path: Path, record: FileRecord, size: int, digest: str) -> None:
    """Compares what was read with what the manifest says of it. Raises as ``read_verified``."""
    if size < record.size:
        raise ModelFileError(
            "MODEL_FILE_TRUNCATED",
            f"{path}: truncated, {size:,} of {record.size:,} bytes are there; {HOW_TO_MEND}",
        )
    if digest != record.sha256:
        raise ModelFileError(
            "MODEL_FILE_ALTERED",
            f"{path}: altered, its SHA-256 is {digest[:12]}… and {MANIFEST_FILE} says {record.sha256[:12]}…; "
            f"{HOW_TO_MEND}",
        )


HOW_TO_MAKE = "make one with 'python -m converter MODEL -o models/NAME/VERSION'"
HOW_TO_MEND = "copy the model folder again from where it was made, or convert the model again (python -m converter)"
