"""From the arguments of the command line to the images that they name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class ListedImage:
    """One image to judge, or the reason why an argument names none."""

    name: str
    """What the output calls it: the path as the user gave it, ``-`` for standard input."""

    image: str | BinaryIO | None = None
    """What the client reads; None when ``fault`` says why there is nothing to read."""

    fault: str = ""
    """A sentence, empty when there is an image."""


def list_images(arguments: list[str], *, recursive: bool) -> list[ListedImage]:
    """Returns the images that ``arguments`` name, in the order of the arguments, folders in sorted order.

    A file is taken whatever its name; in folders the PNG and JPEG files that are not hidden.
    """
    images = []
    for argument in arguments:
        if argument == "-":
            stdin = sys.stdin.buffer if sys.stdin is not None else None
            images.append(ListedImage("-", stdin, "" if stdin else "standard input is closed"))
        elif os.path.isdir(argument):
            images.extend(_list_folder(argument, recursive=recursive))
        else:
            images.append(ListedImage(argument, argument))
    return images


def _list_folder(folder: str, *, recursive: bool) -> Iterator[ListedImage]:
    faults: list[OSError] = []
    found = False
    # os.walk hides folders that cannot be read unless it is given somewhere to tell.
    for path, below, files in os.walk(folder, onerror=faults.append):
        below[:] = sorted(name for name in below if recursive and not name.startswith("."))
        for name in sorted(files):
            file = os.path.join(path, name)
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES) and _is_readable_kind(file):
                found = True
                yield ListedImage(file, file)
    for fault in faults:
        yield ListedImage(str(fault.filename), fault=f"the folder cannot be read: {fault.strerror}")
    if not found and not faults:
        advice = "" if recursive else " (--recursive looks into the folders below)"
        yield ListedImage(folder, fault=f"no PNG or JPEG file in this folder{advice}")


def _is_readable_kind(file: str) -> bool:
    # A pipe or socket would block for ever; a dangling link is listed, so that reading it fails with its name.
    return os.path.isfile(file) or not os.path.exists(file)
