"""The files of a study in the order in which they are sent, with what each is called on the wire: never its name, which
may name a patient."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from .._errors import InvalidRequestError
from .._types import ImageInput, ImageWarning, Source
from ..files.folder import LeftOut, walk_folder
from ..files.order import natural_key
from .types import StudyInput

_MOST_ID = 128
"""Characters of an id that the server takes."""


@dataclass(frozen=True)
class StudyFile:
    """One file."""

    image: ImageInput
    index: int
    """Position among those that were given, from 0."""

    id: str


class StudyFiles:
    """The files of a study. They may be gone through again where ``is_repeatable``.

    Paths are put in natural order, as far as they come before anything else; whatever else there is comes behind them,
    as it comes. Ids are numbers of six digits, so that they sort in that order as text and as numbers.

    Args:
        images: a folder, with all below it; one file; files; or files by their ids.

    Raises:
        InvalidRequestError: the folder cannot be read (FOLDER_UNREADABLE), or an id cannot be sent (REQUEST_REFUSED).
    """

    def __init__(self, images: StudyInput) -> None:
        self.source: Source = ""
        """The folder; empty where there is none."""

        self.warnings: tuple[ImageWarning, ...] = ()
        """What the folder holds beside slices."""

        self._ids: list[str] = []
        self._rest: Iterable[tuple[int, ImageInput]] = ()
        self._paths: list[tuple[int, str | os.PathLike[str]]] = []
        self.is_repeatable = True
        """Whether the files can be read again."""

        if isinstance(images, str | os.PathLike) and os.path.isdir(images):
            self.source = images
            self._take(self._list_folder(images))
        elif isinstance(images, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(images, "read"):
            self._take([images])  # type: ignore[list-item]  # all that can be read is one image
        elif isinstance(images, Mapping):
            self._ids = _check_ids(images)
            self._rest = list(enumerate(images.values()))
            self.is_repeatable = not any(hasattr(image, "read") for image in images.values())
        elif isinstance(images, Iterable):
            self._take(images)
        else:
            raise TypeError(f"a study is a folder, files or their bytes, not {type(images).__name__}")

    @property
    def count(self) -> int | None:
        """How many there are; None: that is not known before the end."""
        return len(self._paths) + len(self._rest) if isinstance(self._rest, Collection) else None

    def __iter__(self) -> Iterator[StudyFile]:
        for number, (index, image) in enumerate(chain(self._paths, self._rest)):
            yield StudyFile(image, index, self._ids[number] if self._ids else f"{number + 1:06d}")

    def _take(self, images: Iterable[ImageInput]) -> None:
        """Takes the paths that come first, in order, and what follows them."""
        numbered = enumerate(images)
        for index, image in numbered:
            if not isinstance(image, str | os.PathLike):
                self._rest = chain([(index, image)], numbered)
                self.is_repeatable = False  # it comes from what may not come again
                break
            self._paths.append((index, image))
        self._paths.sort(key=lambda path: natural_key(os.fsdecode(path[1])))
        if isinstance(images, Collection):  # which holds them all
            self._rest = list(self._rest)
            self.is_repeatable = not any(hasattr(image, "read") for _, image in self._rest)

    def _list_folder(self, folder: str | os.PathLike[str]) -> list[str]:
        left_out, faults = LeftOut(), list[OSError]()
        found = list(walk_folder(os.fspath(folder), left_out, recursive=True, faults=faults))
        if faults:
            why = f"{faults[0].filename}: {faults[0].strerror}"
            raise InvalidRequestError(f"the folder of the study cannot be read: {why}", "FOLDER_UNREADABLE")
        if others := left_out.describe():
            self.warnings = (ImageWarning("FILES_LEFT_OUT", f"{others}."),)
        return sorted(found, key=natural_key)


def _check_ids(images: Mapping[str, ImageInput]) -> list[str]:
    """Returns the ids of files, when all can be sent."""
    for one in images:
        if not (isinstance(one, str) and 0 < len(one) <= _MOST_ID and one.isascii() and one.isprintable()):
            raise InvalidRequestError(
                f"an id of a slice has 1 to {_MOST_ID} printable ASCII characters, not {one!r}", "REQUEST_REFUSED"
            )
    return list(images)
