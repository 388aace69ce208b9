"""Which studies the files of a folder are of. Files are told by what is in them, never by their names."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from client.files.dicom import START_BYTES, is_dicom_start
from gateway.receive.contexts import KEPT
from gateway.receive.instance import Instance, InstanceError, read_instance

MOST_FILE_BYTES = 2_000_000_000
"""A larger file is no image of a study; the client refuses much smaller ones, and says so."""


class FolderError(Exception):
    """The folder has nothing that can be judged; the message says why, and names no file."""


@dataclass
class Study:
    """The files of one study."""

    uid: str
    images: dict[str, Path] = field(default_factory=dict)
    """CT images by their SOPInstanceUIDs."""

    not_kept: Counter[str] = field(default_factory=Counter)
    """How many other objects there are, by their series."""

    @property
    def digest(self) -> str:
        """SHA-256 of the UIDs of the images: the same while the same images are there."""
        return hashlib.sha256("\n".join(sorted(self.images)).encode()).hexdigest()


@dataclass
class FoundStudies:
    """What a folder holds."""

    studies: dict[str, Study] = field(default_factory=dict)
    """Those with a CT image, by their StudyInstanceUIDs."""

    left_out: Counter[str] = field(default_factory=Counter)
    """How many files belong to none of them, by the reason."""


def find_studies(folder: Path, most_files: int) -> FoundStudies:
    """Looks through a folder and all below it; links are not followed.

    Raises:
        FolderError: it cannot be read, has more files, or no CT image.
    """
    found = FoundStudies()
    for count, path in enumerate(_walk(folder), start=1):
        if count > most_files:
            raise FolderError(f"there are more than {most_files} files: judge folders of a study each, or --most-files")
        instance = _read(path, found.left_out)
        if instance is None:
            continue
        study = found.studies.setdefault(instance.study, Study(instance.study))
        if instance.sop_class not in KEPT:
            study.not_kept[instance.series] += 1
        elif instance.sop in study.images:
            found.left_out["REPEATED"] += 1
        else:
            study.images[instance.sop] = path
    without = {uid: study for uid, study in found.studies.items() if not study.images}
    for uid, study in without.items():
        found.left_out["NOT_CT"] += study.not_kept.total()
        del found.studies[uid]
    if not found.studies:
        held = ", ".join(f"{count} {reason}" for reason, count in sorted(found.left_out.items()))
        raise FolderError(f"there is no CT image in it ({held or 'it is empty'})")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    """Every file, in an order that is the same each time.

    Raises:
        FolderError: a folder cannot be read: half a study is not judged.
    """

    def fail(error: OSError) -> None:
        raise FolderError(f"it cannot be read: {error.strerror}")

    for parent, below, names in os.walk(folder, onerror=fail):
        below.sort()
        links = [name for name in below if os.path.islink(os.path.join(parent, name))]
        for name in sorted([*names, *links]):
            yield Path(parent, name)


def _read(path: Path, left_out: Counter[str]) -> Instance | None:
    """What a file is; None, and a count, for one that is no object of a study.

    Raises:
        FolderError: it may be an image, and cannot be read.
    """
    try:
        # NONBLOCK: a pipe without a writer would not be opened ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink() or not path.is_file():
            left_out["LINK_OR_DEVICE"] += 1
            return None
        raise FolderError(f"a file of it cannot be read: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        reason = _find_fault(file, status)
        if not reason:
            try:
                return read_instance(file)
            except InstanceError:
                reason = "DICOM_UNREADABLE"
    left_out[reason] += 1
    return None


def _find_fault(file: BinaryIO, status: os.stat_result) -> str:
    """Why a file is not looked at as DICOM; empty: it is."""
    if not stat.S_ISREG(status.st_mode):
        return "LINK_OR_DEVICE"
    if not is_dicom_start(file.read(START_BYTES)):
        return "NOT_DICOM"
    file.seek(0)
    return "TOO_LARGE" if status.st_size > MOST_FILE_BYTES else ""
