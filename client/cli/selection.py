"""From the arguments of the command line to the images that they name."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image to judge, or the reason why an argument names none."""

    name: str
    """What the output calls it: the path as the user gave it, ``-`` for standard input."""

    image: str | BinaryIO | None = None
    """What the client reads; None when ``fault`` says why there is nothing to read."""

    fault: str = ""
    """A sentence, empty when there is an image."""

    @property
    def key(self) -> str:
        """The same for all spellings of one path; links are not followed."""
        return self.name if self.name == "-" else os.path.abspath(self.name)


def list_images(arguments: list[str], *, recursive: bool) -> list[ListedImage]:
    """Returns the images that ``arguments`` name, in the order of the arguments, each once however often it is named.

    A file is taken whatever its name; in folders the PNG and JPEG files that are not hidden, in sorted order. An
    argument with ``*``, ``?`` or ``[`` that is no file stands for the files and folders that it matches, sorted, as if
    the shell had expanded it; with ``recursive``, ``**`` matches any number of folders.
    """
    seen: set[str] = set()
    images = []
    for entry in _list_all(arguments, recursive=recursive):
        if (key := entry.key) not in seen:
            seen.add(key)
            images.append(entry)
    return images


def _list_all(arguments: Iterable[str], *, recursive: bool) -> Iterator[ListedImage]:
    for argument in arguments:
        if argument == "-":
            stdin = sys.stdin.buffer if sys.stdin is not None else None
            yield ListedImage("-", stdin, "" if stdin else "standard input is closed")
        elif os.path.isdir(argument):
            yield from _list_folder(argument, recursive=recursive)
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            yield from _list_matches(argument, recursive=recursive)
        else:
            yield ListedImage(argument, argument)


def _list_matches(pattern: str, *, recursive: bool) -> Iterator[ListedImage]:
    found = False
    # A NUL character is no part of any path, and glob would raise.
    for match in sorted(glob.glob(pattern, recursive=recursive)) if "\0" not in pattern else ():
        # `scans/*` matches folders beside files; that one of them has no image is no fault of the user's.
        for entry in _walk_folder(match, recursive=recursive) if os.path.isdir(match) else [ListedImage(match, match)]:
            found = True
            yield entry
    if not found:
        advice = " (** needs --recursive)" if "**" in pattern and not recursive else ""
        yield ListedImage(pattern, fault=f"no image matches this pattern{advice}")


def _list_folder(folder: str, *, recursive: bool) -> Iterator[ListedImage]:
    found = False
    for entry in _walk_folder(folder, recursive=recursive):
        found = True
        yield entry
    if not found:
        advice = "" if recursive else " (--recursive looks into the folders below)"
        yield ListedImage(folder, fault=f"no PNG or JPEG file in this folder{advice}")


def _walk_folder(folder: str, *, recursive: bool) -> Iterator[ListedImage]:
    faults: list[OSError] = []
    # os.walk hides folders that cannot be read unless it is given somewhere to tell.
    for path, below, files in os.walk(folder, onerror=faults.append):
        below[:] = sorted(name for name in below if recursive and not name.startswith("."))
        for name in sorted(files):
            file = os.path.join(path, name)
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES) and _is_readable_kind(file):
                yield ListedImage(file, file)
    for fault in faults:
        yield ListedImage(str(fault.filename), fault=f"the folder cannot be read: {fault.strerror}")


def _is_readable_kind(file: str) -> bool:
    # A pipe or socket would block for ever; a dangling link is listed, so that reading it fails with its name.
    return os.path.isfile(file) or not os.path.exists(file)
