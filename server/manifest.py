"""``manifest.json`` beside a model file: what its bytes must be and what it must answer on this very box.

Nothing else in the chain would notice one flipped bit in a weight: ONNX Runtime loads it silently. So the converter
writes, and the server verifies before it serves: the SHA-256 of each file, and golden vectors, that is inputs that
anyone can make again from a seed, with the probabilities that the model gave for them where it was made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.errors import ModelFileError

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
TARGETS = ("x86-vnni", "x86", "arm64")
"""Processors that a variant can be made for: quantisation that is fast on one can be slow or inexact on another."""

MANIFEST_SCHEMA = 1
LARGEST_TOLERANCE = 0.1
"""A manifest that allows more verifies nothing."""

GOLDEN_GRID = 8
"""Cells a side of the coarse pattern in a golden input."""


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

    def to_document(self) -> dict[str, Any]:
        """The entry in ``manifest.json``; what is not set is left out."""
        document: dict[str, Any] = {"sha256": self.sha256, "size": self.size, "tolerance": self.tolerance}
        if self.target:
            document["target"] = self.target
        if self.probabilities:
            document["probabilities"] = [list(row) for row in self.probabilities]
        if self.gate:
            document["gate"] = dict(self.gate)
        return document

    @classmethod
    def from_document(cls, document: Any) -> FileRecord:
        """Reads what ``to_document`` wrote; lets the errors of a wrong type through."""
        return cls(
            str(document["sha256"]),
            int(document["size"]),
            float(document["tolerance"]),
            str(document.get("target", "")),
            tuple(tuple(float(p) for p in row) for row in document.get("probabilities", ())),
            dict(document.get("gate", {})),
        )


@dataclass(frozen=True)
class GoldenVector:
    """A seed of ``make_golden_input`` and the probabilities, in label order, that belong to it."""

    seed: int
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Manifest:
    """Contents of ``manifest.json``."""

    files: Mapping[str, FileRecord]
    golden: tuple[GoldenVector, ...]
    parity: Mapping[str, float]
    """Differences from the source model that the converter measured, by name; for people."""

    def list_golden(self, name: str) -> tuple[GoldenVector, ...]:
        """The golden vectors with the answers that the file ``name`` must give."""
        own = self.files[name].probabilities
        if not own:
            return self.golden
        return tuple(GoldenVector(vector.seed, answer) for vector, answer in zip(self.golden, own, strict=True))

    def to_json(self) -> str:
        """Returns the text of ``manifest.json``."""
        document = {
            "schema": MANIFEST_SCHEMA,
            "files": {name: record.to_document() for name, record in self.files.items()},
            "golden": [{"seed": vector.seed, "probabilities": list(vector.probabilities)} for vector in self.golden],
            "parity": dict(self.parity),
        }
        return json.dumps(document, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Reads what ``to_json`` wrote.

        Raises:
            ValueError: it is no such document; the text says why.
        """
        document: Any = json.loads(text)
        try:
            if document["schema"] != MANIFEST_SCHEMA:
                raise ValueError(f"its schema is {document['schema']!r}, this server knows {MANIFEST_SCHEMA}")
            files = {str(name): FileRecord.from_document(entry) for name, entry in document["files"].items()}
            golden = tuple(
                GoldenVector(int(entry["seed"]), tuple(float(p) for p in entry["probabilities"]))
                for entry in document["golden"]
            )
            parity = {str(name): float(value) for name, value in document["parity"].items()}
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"a part is missing or of the wrong type ({error!r})") from error
        if not all(0 <= vector.seed < 2**32 for vector in golden):
            raise ValueError("a seed is not in [0, 2**32)")
        if not all(0 <= record.tolerance <= LARGEST_TOLERANCE for record in files.values()):
            raise ValueError(f"a tolerance is not in [0, {LARGEST_TOLERANCE}]")
        if MODEL_FILE not in files or not golden:
            raise ValueError(f"it needs an entry for {MODEL_FILE} and at least one golden vector")
        if not all(len(record.probabilities) in (0, len(golden)) for record in files.values()):
            raise ValueError("a file's probabilities are not as many as the golden vectors")
        return cls(files, golden, parity)


def make_golden_input(seed: int, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Makes the input of a golden vector: uint8 [height, width, channels], all channels alike, as in a grey image.

    A coarse pattern under fine noise, so that early and late layers both have something to answer. NumPy guarantees the
    stream of ``RandomState`` for ever (NEP 19), which it does not for its newer generators.
    """
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 200, (GOLDEN_GRID, GOLDEN_GRID), dtype=np.uint8)
    rows, columns = (np.arange(side) * GOLDEN_GRID // side for side in (height, width))
    grey = coarse[np.ix_(rows, columns)] + random.randint(0, 56, (height, width), dtype=np.uint8)
    return np.ascontiguousarray(np.repeat(grey[:, :, np.newaxis], channels, axis=2))


def sha256_hex(data: bytes) -> str:
    """SHA-256 as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Reads ``manifest.json`` of a model folder.

    Raises:
        ModelFileError: reasons MODEL_NOT_FOUND, MANIFEST_MISSING, MANIFEST_INVALID.
    """
    path = folder / MANIFEST_FILE
    if not folder.is_dir():
        raise ModelFileError("MODEL_NOT_FOUND", f"{folder}: there is no such model folder; {HOW_TO_MAKE}")
    try:
        return Manifest.from_json(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelFileError(
            "MANIFEST_MISSING", f"{path}: missing, so the model cannot be verified; {HOW_TO_MAKE}"
        ) from None
    except OSError as error:
        raise ModelFileError("MANIFEST_INVALID", f"{path}: cannot be read ({error.strerror}); {HOW_TO_MEND}") from None
    except (ValueError, RecursionError) as error:
        raise ModelFileError("MANIFEST_INVALID", f"{path}: not a manifest: {error}; {HOW_TO_MEND}") from None


def read_verified(folder: Path, name: str, manifest: Manifest) -> bytes:
    """Reads one file of a model folder and checks it against the manifest.

    The bytes returned are the bytes that were hashed: nothing can change them between check and use.

    Raises:
        ModelFileError: reasons MODEL_FILE_MISSING, MODEL_FILE_TRUNCATED, MODEL_FILE_ALTERED.
    """
    path, record = folder / name, manifest.files[name]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            "MODEL_FILE_MISSING", f"{path}: cannot be read ({error.strerror}); {HOW_TO_MEND}"
        ) from None
    if len(data) < record.size:
        raise ModelFileError(
            "MODEL_FILE_TRUNCATED",
            f"{path}: truncated, {len(data):,} of {record.size:,} bytes are there; {HOW_TO_MEND}",
        )
    digest = sha256_hex(data)
    if digest != record.sha256:
        raise ModelFileError(
            "MODEL_FILE_ALTERED",
            f"{path}: altered, its SHA-256 is {digest[:12]}… and {MANIFEST_FILE} says {record.sha256[:12]}…; "
            f"{HOW_TO_MEND}",
        )
    return data


HOW_TO_MAKE = "make one with 'python -m converter MODEL -o models/NAME/VERSION'"
HOW_TO_MEND = "copy the model folder again from where it was made, or convert the model again (python -m converter)"
