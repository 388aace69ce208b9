"""Which images a folder holds, by one rule for the converter, its calibration, training and audit.

What is hidden or put there by a system (``._scan.png``, ``__MACOSX``, ``Thumbs.db``, masks in a hidden folder) is no
slice, whatever its name ends in. Whatever is left out is counted, so that nobody believes in images that nobody read.
"""

from __future__ import annotations

import os
import stat
from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from server.images.dicom.signature import SIGNATURE_BYTES, is_dicom

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm")
"""Names of images, whatever is in them: one that is none is refused when it is decoded."""

DICOM_SUFFIXES = (".ima", ".dicom")
"""Names that others have too, so that what is in the file tells."""

INDEX_NAME = "dicomdir"
"""What exports on a disc list their files in (PS3.10, 8.6), in lower case: it begins as they do, and is no image."""

SYSTEM_NAMES = frozenset(
    (
        *("__macosx", "icon\r"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
        *("lost+found", "@eadir", "#recycle"),
    )
)
"""Names, in lower case, that macOS, Windows, Linux and network drives give to what is their own."""

HIDDEN = "hidden or system file"
NO_DICOM = "file called DICOM that does not begin so"
INDEX = "DICOM directory"
REPEATED = "link to what is listed already"
DANGLING = "dangling link"
UNREADABLE = "folder that cannot be read"
SPECIAL = "pipe, socket or device"
NAMELESS = "file without a suffix"
PLURALS = {
    NO_DICOM: "files called DICOM that do not begin so",
    INDEX: "DICOM directories",
    NAMELESS: "files without a suffix",
    REPEATED: "links to what is listed already",
    SPECIAL: "pipes, sockets or devices",
    UNREADABLE: "folders that cannot be read",
}


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder and what lies beside them."""

    images: tuple[Path, ...]
    """PNG, JPEG and DICOM files by name, and those that begin as DICOM and whose name says nothing, at any depth,
    sorted; whether they can be decoded is not known."""

    left_out: Mapping[str, int]
    """How many there are of each kind that was left out; the files of a hidden folder count one by one."""

    @property
    def others(self) -> int:
        """Visible files that are left out because they are no images by name or content."""
        kinds = (NO_DICOM, NAMELESS)
        return sum(count for kind, count in self.left_out.items() if kind in kinds or kind.startswith("."))

    def describe_left_out(self, kinds: Collection[str] | None = None) -> str:
        """Returns ``left out: 11 hidden or system files, 2 .tif files``; empty where nothing was, or none of ``kinds``.

        Args:
            kinds: which to name; all unless told.
        """
        named = [
            f"{count:,} {kind if count == 1 else PLURALS.get(kind, f'{kind}s')}"
            for kind, count in sorted(self.left_out.items())
            if kinds is None or kind in kinds
        ]
        return f"left out: {', '.join(named)}" if named else ""


def list_folder(folder: Path, *, own: Collection[str] = ()) -> ImageFolder:
    """Lists the images of a folder and of all below it.

    Links are followed. A folder or file that several lead to is listed once, under its own name where that is below
    ``folder``, so a loop ends; a link to what ``folder`` lies in is not followed.

    Args:
        folder: where to look.
        own: names directly in ``folder`` that the caller reads itself: neither listed nor counted.

    Raises:
        OSError: ``folder`` cannot be read.
    """
    left_out: Counter[str] = Counter()
    images: list[Path] = []
    folder_links: deque[Path] = deque()
    file_links: list[Path] = []
    root = folder.resolve()
    seen = {identify(path) for path in root.parents}
    waiting = deque([folder])
    while waiting or folder_links:
        # Links come last: what they lead to may be met under its own name before.
        is_link = not waiting
        path = folder_links.popleft() if is_link else waiting.popleft()
        try:
            if (identity := identify(path)) in seen:
                left_out[REPEATED] += 1
                continue
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            if path == folder:
                raise
            left_out[UNREADABLE] += 1
            continue
        seen.add(identity)
        for entry in entries:
            child = path / entry.name
            if path == folder and entry.name in own:
                continue
            if is_hidden(entry.name):
                left_out[HIDDEN] += count_files(child)
                continue
            try:
                mode = entry.stat().st_mode
            except OSError:
                left_out[DANGLING] += 1
                continue
            if stat.S_ISDIR(mode):
                (folder_links if entry.is_symlink() else waiting).append(child)
            elif not stat.S_ISREG(mode):
                left_out[SPECIAL] += 1
            elif not is_image(child):
                left_out[name_kind(child)] += 1
            else:
                (file_links if entry.is_symlink() else images).append(child)
    listed = {identify(path) for path in images} if file_links else set()
    for link in sorted(file_links):
        if (identity := identify(link)) in listed:
            left_out[REPEATED] += 1
        else:
            listed.add(identity)
            images.append(link)
    return ImageFolder(tuple(sorted(images)), {kind: count for kind, count in left_out.items() if count})


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or a system's own."""
    return name.startswith(".") or name.casefold() in SYSTEM_NAMES


def identify(path: Path) -> tuple[int, int]:
    """Returns what is the same for all names of a file or folder."""
    status = path.stat()
    return status.st_dev, status.st_ino


def count_files(path: Path) -> int:
    """Counts a file as one, and those of a folder at any depth; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return 1
    return sum(len(files) for _, _, files in os.walk(path))


def is_image(path: Path) -> bool:
    """Whether a file is an image: of most files the name tells, of others the first bytes."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if not (suffix in ("", *DICOM_SUFFIXES) or suffix[1:].isdigit()) or path.name.lower() == INDEX_NAME:
        return False
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(SIGNATURE_BYTES))
    except OSError:
        return False


def name_kind(path: Path) -> str:
    """Returns what a file is that is no image. Archives often name files by numbers alone, which are no suffix."""
    suffix = path.suffix.lower()
    if path.name.lower() == INDEX_NAME:
        return INDEX
    if suffix in DICOM_SUFFIXES:
        return NO_DICOM
    return f"{suffix} file" if suffix and not suffix[1:].isdigit() else NAMELESS
