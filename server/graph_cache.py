"""Optimised graphs on disk, so that a large model need not be optimised at every start.

What is optimised depends on the runtime's version and on the processor, so both are in the name, with the digest of
the model it was made from. The digest of what was written is in the name too: a file that was damaged is found out,
removed and made again. It is never the only check: the golden vectors are asked after the load, whatever was loaded.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from server.processors import describe_processor

logger = logging.getLogger(__name__)

LARGE_MODEL_BYTES = 4 * 1024 * 1024
"""Between what was measured: the CNN of 0.7 MB gains nothing; with ResNet-50 a server starts 0.1 s sooner and with
26 MB less as int8 (24 MB), 0.8 s sooner and with 99 MB less as fp32 (94 MB)."""

GRAPH_FILE = "graph.onnx"
WEIGHTS_FILE = f"{GRAPH_FILE}.weights"


class GraphCache:
    """The place of one model's optimised graph below a cache folder."""

    def __init__(self, root: Path, runtime: str, digest: str) -> None:
        """Args:
        root: the cache folder; need not exist.
        runtime: name and version of the runtime.
        digest: SHA-256 of the model file.
        """
        self._root = root / "graphs"
        self._key = hashlib.sha256(f"{runtime} {describe_processor()} {digest}".encode()).hexdigest()[:32]

    def find(self) -> Path | None:
        """Returns the graph's file, or None when there is none or only a damaged one, which is removed."""
        for folder in self._root.glob(f"{self._key}-*"):
            try:
                if hash_files(folder) == folder.name.rpartition("-")[2]:
                    return folder / GRAPH_FILE
            except OSError:
                pass
            logger.warning("an optimised graph in the cache is damaged: making it again")
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def build(self, write: Callable[[Path], None]) -> Path | None:
        """Makes the graph's file; None, and a line in the log, when it cannot be kept.

        Args:
            write: writes the graph to the path that it is given, and weights beside it.
        """
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            staged = self._root / f".staging-{uuid.uuid4().hex}"
            staged.mkdir(mode=0o700)
        except OSError as error:
            logger.warning("no cache: %s cannot be written (%s)", self._root, error.strerror)
            return None
        try:
            write(staged / GRAPH_FILE)
            (staged / WEIGHTS_FILE).touch()
            folder = self._root / f"{self._key}-{hash_files(staged)}"
            os.rename(staged, folder)
        except Exception as error:  # the runtime's exception types are private; a full disk is one of the reasons
            logger.warning("no cache: the optimised graph could not be kept (%s)", type(error).__name__)
            shutil.rmtree(staged, ignore_errors=True)
            return self.find()  # another server may have been faster
        return folder / GRAPH_FILE


def hash_files(folder: Path) -> str:
    """One digest over both files of a graph."""
    digests = []
    for name in (GRAPH_FILE, WEIGHTS_FILE):
        with (folder / name).open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()
