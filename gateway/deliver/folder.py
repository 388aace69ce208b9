"""Results into a folder: DICOM objects and texts, for whatever else a site has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.deliver.destination import DeliveryError, ResultFile
from gateway.queue.files import write_whole

PREFIX_LENGTH = 16


@dataclass(frozen=True)
class FolderDestination:
    """A folder that is there."""

    path: Path

    @property
    def name(self) -> str:
        """The folder."""
        return f"folder {self.path}"

    def send(self, files: Sequence[ResultFile]) -> None:
        """Writes all files, each of which appears when all of it is there. The same results get the same names.

        Raises:
            DeliveryError: one of them cannot be written.
        """
        prefix = hashlib.sha256(b"".join(file.data for file in files)).hexdigest()[:PREFIX_LENGTH]
        try:
            for file in files:
                write_whole(self.path / f"{prefix}-{file.name}", file.data)
        except OSError as error:
            raise DeliveryError(f"a file cannot be written: {error.strerror}") from None
