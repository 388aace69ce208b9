"""Which images a folder holds, and what is left out: hidden files, other kinds, folders that were not asked for.

The server's side lists by the same rules (``server.images.image_folder``), of which a client has no copy.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator

from .dicom import START_BYTES, is_dicom_file

DICOM_SUFFIX = ".dcm"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", DICOM_SUFFIX)
"""Names of images, whatever is in them: one that is none is refused, and nobody misses its result."""

_DICOM_SUFFIXES = (".ima", ".dicom")
_RESULT_SUFFIX = ".json"
_RESULT_SUFFIXES = tuple(f"{suffix}{_RESULT_SUFFIX}" for suffix in (*IMAGE_SUFFIXES, *_DICOM_SUFFIXES))
"""What a watch writes beside images."""

_SYSTEM_NAMES = frozenset(
    (
        *("__macosx", "icon\r"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
        *("lost+found", "@eadir", "#recycle"),
    )
)
"""Names, in lower case, that macOS, Windows, Linux and network drives give to what is their own."""

HIDDEN = "hidden or system file"
REPEATED = "link to what is listed already"
_NO_DICOM = "file called DICOM that does not begin so"
_DICOM_INDEX = "DICOM directory"
_TIFF = "TIFF file"
_NAMELESS_IMAGE = "image without a suffix"
_NAMELESS = "file without a suffix"
SPECIAL = "pipe, socket or device"
FOLDER = "folder"
_BELOW = "folder that only --recursive looks into"
_PLURALS = {
    REPEATED: "links to what is listed already",
    _NO_DICOM: "files called DICOM that do not begin so",
    _DICOM_INDEX: "DICOM directories",
    _NAMELESS: "files without a suffix",
    _NAMELESS_IMAGE: "images without a suffix",
    SPECIAL: "pipes, sockets or devices",
    _BELOW: "folders that only --recursive looks into",
}
_UNNAMED = (HIDDEN, REPEATED, SPECIAL)
"""Nobody misses a result of these."""

_INDEX_NAME = "dicomdir"
"""What exports on a disc list their files in (PS3.10, 8.6), in lower case: it begins as they do, and is no image."""

_KINDS = {**dict.fromkeys(_DICOM_SUFFIXES, _NO_DICOM), ".tif": _TIFF, ".tiff": _TIFF}
_OTHER_IMAGES = (
    *(".bmp", ".gif", ".webp", ".heic", ".heif", ".avif", ".jfif", ".jp2", ".j2k", ".jpx", ".jls", ".apng", ".jpe"),
    *(".nii", ".gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".mnc", ".img", ".hdr", ".npy", ".npz", ".zip", ".7z", ".tar"),
)
_UNJUDGED = {_NO_DICOM, _TIFF, _NAMELESS_IMAGE, FOLDER, _BELOW, *(f"{suffix} file" for suffix in _OTHER_IMAGES)}
"""What is, or may hold, images that have no result."""

_MOST_NAMES = 3
"""Names of a kind that a sentence has."""


class LeftOut:
    """What folders hold beside the images that are listed.

    Args:
        own: paths of files that the program itself writes, which are not counted.
    """

    def __init__(self, own: Iterable[str] = ()) -> None:
        self._own = {os.path.abspath(path) for path in own}
        self._counts: dict[str, int] = {}
        self.files: dict[str, str] = {}
        """Kinds by path, of what is named."""

    @property
    def unjudged(self) -> dict[str, str]:
        """Those of ``files`` of which somebody may miss a result: no texts, tables or programs."""
        return {path: kind for path, kind in self.files.items() if kind in _UNJUDGED}

    def add(self, kind: str, path: str, count: int = 1) -> None:
        """Takes something of a kind, which stands for ``count`` files."""
        if _is_result(path) or (self._own and os.path.abspath(path) in self._own) or not count:
            return
        if kind not in _UNNAMED:
            if path in self.files:
                return
            self.files[path] = kind
        self._counts[kind] = self._counts.get(kind, 0) + count

    def discard(self, paths: Iterable[str]) -> None:
        """Takes back what has gone, or is listed after all."""
        for path in paths:
            if kind := self.files.pop(path, ""):
                self._counts[kind] -= 1

    def describe(self) -> str:
        """Returns ``left out: 2 TIFF files (a.tif, b.tif), 1 hidden or system file``; empty where nothing was."""
        names: dict[str, list[str]] = {}
        for path, kind in self.files.items():
            names.setdefault(kind, []).append(path)
        parts = []
        for kind, count in sorted(self._counts.items(), key=lambda item: (item[0] in _UNNAMED, item)):
            if count:
                part = f"{count:,} {kind if count == 1 else _PLURALS.get(kind, f'{kind}s')}"
                first = sorted(names.get(kind, []))[:_MOST_NAMES]
                more = ", …" if first and len(names[kind]) > len(first) else ""
                parts.append(f"{part} ({', '.join(first)}{more})" if first else part)
        return f"left out: {', '.join(parts)}" if parts else ""


def walk_folder(folder: str, left_out: LeftOut, *, recursive: bool, faults: list[OSError]) -> Iterator[str]:
    """Yields the images of a folder, folder by folder, each sorted: PNG, JPEG and DICOM files by name, and files whose
    name says nothing and that begin as DICOM files.

    Links are followed. What several lead to is listed once, under its own name where that is below ``folder``, so a
    loop ends; a link to what ``folder`` lies in is not followed. Dangling links are listed: reading them says so.

    Args:
        folder: where to look.
        left_out: takes what is no image.
        recursive: look into the folders below.
        faults: takes what cannot be read.
    """
    root = os.path.realpath(folder)
    seen = {_identify(path) for path in _list_parents(root)}
    listed: list[str] = []
    file_links: list[str] = []
    has_links = False
    tops = deque([folder])
    while tops:
        # os.walk hides folders that cannot be read unless it is given somewhere to tell.
        for path, below, files in os.walk(tops.popleft(), onerror=faults.append):
            if (identity := _identify(path)) in seen:
                left_out.add(REPEATED, path)
                below.clear()
                continue
            seen.add(identity)
            folders = [os.path.join(path, name) for name in sorted(below)]
            below.clear()
            for child in folders:
                name = os.path.basename(child)
                if is_hidden(name):
                    left_out.add(HIDDEN, child, _count_files(child) if recursive else 1)
                elif not recursive:
                    left_out.add(_BELOW, child)
                elif os.path.islink(child):
                    tops.append(child)
                    has_links = True
                else:
                    below.append(name)
            for name in sorted(files):
                child = os.path.join(path, name)
                if is_hidden(name):
                    left_out.add(HIDDEN, child)
                elif not _is_readable_kind(child):  # a pipe or socket would block for ever
                    left_out.add(SPECIAL, child)
                elif not is_image(child):
                    left_out.add(name_kind(child), child)
                elif os.path.islink(child) and os.path.exists(child):
                    file_links.append(child)
                    has_links = True
                else:
                    listed.append(child)
    known = {_identify(path) for path in listed if file_links}
    for link in file_links:
        if (identity := _identify(link)) in known:
            left_out.add(REPEATED, link)
        else:
            known.add(identity)
            listed.append(link)
    yield from sorted(listed, key=lambda path: _sort_key(path, folder)) if has_links else listed


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or a system's own."""
    return name.startswith(".") or name.casefold() in _SYSTEM_NAMES


def is_image_name(name: str) -> bool:
    """Whether a file of this name, or path, is taken for an image whatever is in it."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_dicom_name(name: str) -> bool:
    """Whether a file of this name, or path, is taken for a DICOM file whatever is in it."""
    return name.lower().endswith(DICOM_SUFFIX)


def may_be_dicom(name: str) -> bool:
    """Whether what is in a file of this name, or path, tells if it is a DICOM file: archives often name them by numbers
    alone."""
    base = os.path.basename(name).lower()
    suffix = os.path.splitext(base)[1]
    return base != _INDEX_NAME and (suffix in ("", *_DICOM_SUFFIXES) or suffix[1:].isdigit())


def is_image(path: str) -> bool:
    """Whether a file is one to be judged. Of most files the name tells, of others the first bytes."""
    return is_image_name(path) or (may_be_dicom(path) and is_dicom_file(path))


def name_kind(path: str) -> str:
    """Returns what a file that is no image is."""
    name = os.path.basename(path).lower()
    if name == _INDEX_NAME:
        return _DICOM_INDEX
    suffix = os.path.splitext(name)[1]
    if suffix and not suffix[1:].isdigit():
        return _KINDS.get(suffix, f"{suffix} file")
    try:
        with open(path, "rb") as file:
            start = file.read(START_BYTES)
    except OSError:
        return _NAMELESS
    if start.startswith((b"II*\x00", b"MM\x00*")):
        return _TIFF
    return _NAMELESS_IMAGE if start.startswith((b"\x89PNG", b"\xff\xd8\xff")) else _NAMELESS


def _is_result(path: str) -> bool:
    """Whether a file is what a watch writes beside images, or beside this image whose name has no suffix."""
    return path.endswith(_RESULT_SUFFIXES) or (
        path.endswith(_RESULT_SUFFIX) and may_be_dicom(image := path.removesuffix(_RESULT_SUFFIX)) and is_image(image)
    )


def _is_readable_kind(file: str) -> bool:
    return os.path.isfile(file) or not os.path.exists(file)


def _list_parents(path: str) -> Iterator[str]:
    while (parent := os.path.dirname(path)) != path:
        yield parent
        path = parent


def _identify(path: str) -> tuple[int, int] | str:
    """Returns what is the same for all names of a file or folder; its path where it cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return path
    return status.st_dev, status.st_ino


def _count_files(folder: str) -> int:
    """Counts the files of a hidden folder at any depth; links are not followed."""
    return 1 if os.path.islink(folder) else sum(len(files) for _, _, files in os.walk(folder))


def _sort_key(path: str, folder: str) -> tuple[tuple[str, ...], str]:
    """The order of a walk: a folder's own files, then the folders below."""
    head, name = os.path.split(os.path.relpath(path, folder))
    return tuple(head.split(os.sep)) if head else (), name
