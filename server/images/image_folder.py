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

SUFFIXES = (".png", ".jpg", ".jpeg")
SYSTEM_NAMES = frozenset(
    (
        *("__macosx", "icon\r"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
        *("lost+found", "@eadir", "#recycle"),
    )
)
"""Names, in lower case, that macOS, Windows, Linux and network drives give to what is their own."""

HIDDEN = "hidden or system file"
DICOM = "DICOM file"
REPEATED = "link to what is listed already"
DANGLING = "dangling link"
UNREADABLE = "folder that cannot be read"
SPECIAL = "pipe, socket or device"
NAMELESS = "file without a suffix"
PLURALS = {
    NAMELESS: "files without a suffix",
    REPEATED: "links to what is listed already",
    SPECIAL: "pipes, sockets or devices",
    UNREADABLE: "folders that cannot be read",
}
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
DICOM_PREAMBLE = 128
"""Bytes before the letters DICM (PS3.10)."""


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder and what lies beside them."""

    images: tuple[Path, ...]
    """PNG and JPEG files by name, at any depth, sorted; whether they can be decoded is not known."""

    left_out: Mapping[str, int]
    """How many there are of each kind that was left out; the files of a hidden folder count one by one."""

    @property
    def others(self) -> int:
        """Visible files that are left out because they are no images by name."""
        return sum(count for kind, count in self.left_out.items() if kind in (DICOM, NAMELESS) or kind.startswith("."))

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
            elif child.suffix.lower() not in SUFFIXES:
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


def name_kind(path: Path) -> str:
    """Returns what a file that is no image by name is: archives often name DICOM files by numbers alone."""
    suffix = path.suffix.lower()
    if suffix in DICOM_SUFFIXES:
        return DICOM
    if suffix and not suffix[1:].isdigit():
        return f"{suffix} file"
    try:
        with path.open("rb") as file:
            start = file.read(DICOM_PREAMBLE + 4)
    except OSError:
        return NAMELESS
    return DICOM if start[DICOM_PREAMBLE:] == b"DICM" else NAMELESS
