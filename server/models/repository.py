"""What lies in ``models/<name>/<version>/``: which versions there are, which of them are whole, which one is meant.

Folders are looked at when somebody asks, never watched: a folder that is being copied is not served by accident. And
nothing leads out of the models folder, neither a name nor a link: what is served is what its owner has put there.
"""

from __future__ import annotations

import itertools
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from server.errors import ModelFileError
from server.models.active import Active, Release, read_active
from server.models.contract import is_identifier
from server.models.manifest import (
    HOW_TO_MAKE,
    HOW_TO_MEND,
    MANIFEST_FILE,
    Manifest,
    check_file,
    digest_text,
    read_manifest,
)

logger = logging.getLogger(__name__)

MOST_ENTRIES = 10_000
"""Of a folder of models: a folder with more of them is another one, and listing it could take minutes."""

MOST_NAMED = 10
"""Models that an error message lists."""


@dataclass(frozen=True)
class Place:
    """The folder of a model that is wanted, and why it is that one."""

    folder: Path
    is_pinned: bool = False
    """Its version was given by ``--model NAME/VERSION``."""

    release: Release | None = None
    """What ``active.json`` says of it; None: it says nothing, or was not asked."""

    instead: str = ""
    """The version that was active before; empty: none is known."""

    skipped: tuple[str, ...] = ()
    """Sentences about newer versions that are not whole."""


def find_wanted(root: Path, wanted: str) -> list[Path]:
    """Returns the folders of the models that ``ModelRegistry.load`` loads, the default first. Raises as it does."""
    return [place.folder for place in find_places(root, wanted, read_active_for(root, wanted))]


def read_active_for(root: Path, wanted: str) -> Active:
    """Returns what was active, so far as that matters: where every version is named, a file that cannot be read does
    not. Raises as ``read_active``."""
    try:
        return read_active(root)
    except ModelFileError as error:
        if not wanted or not all("/" in wish for wish in wanted.split(",")):
            raise
        logger.warning("%s [%s]", error.message, error.reason)
        return Active()


def find_places(root: Path, wanted: str, active: Active) -> list[Place]:
    """Returns where the wanted models lie, the default first.

    Args:
        root: the models folder.
        wanted: see ``ModelRegistry.load``.
        active: what was served last.

    Raises:
        ModelFileError: reasons MODEL_NOT_FOUND, MODEL_AMBIGUOUS, MODEL_OUTSIDE.
    """
    if not wanted:
        return [find_place(root, find_only_name(root), active)]
    places = [find_place(root, wish.strip(), active) for wish in wanted.split(",")]
    return list({place.folder: place for place in reversed(places)}.values())[::-1]  # a model once


def find_only_model(root: Path) -> Path:
    """Returns the folder of the only model below ``root``, of the version that a server would serve."""
    return find_wanted(root, "")[0]


def find_only_name(root: Path) -> str:
    """Returns the name of the only model below ``root``.

    Raises:
        ModelFileError: reasons MODEL_NOT_FOUND, MODEL_AMBIGUOUS.
    """
    names = list_folders(root)
    if not names:
        raise ModelFileError("MODEL_NOT_FOUND", f"{root}: there is no model in this folder; {HOW_TO_MAKE}")
    if len(names) > 1:
        raise ModelFileError(
            "MODEL_AMBIGUOUS",
            f"{root}: holds {list_names(names)}; name the ones to serve, the default first: "
            f"--model {','.join(names[:MOST_NAMED])}",
        )
    return names[0]


def find_place(root: Path, wish: str, active: Active) -> Place:
    """Returns the place of ``NAME/VERSION``; of ``NAME``, that of the version which is active, or the newest."""
    name, slash, version = wish.partition("/")
    if not is_identifier(name) or (slash and not is_identifier(version)):
        raise ModelFileError("MODEL_NOT_FOUND", f"--model {wish[:100]!r}: not of the form NAME or NAME/VERSION")
    if slash:
        place = Place(root / name / version, is_pinned=True)
    elif name in active.models:
        entry = active.models[name]
        instead = entry.history[-1].version if entry.history else ""
        place = Place(root / name / entry.stable.version, release=entry.stable, instead=instead)
    else:
        place = find_newest(root, name)
    check_inside(root, place.folder)
    return place


def find_newest(root: Path, name: str) -> Place:
    """Returns the newest version that is whole; where none is, the newest, whose fault loading it will tell.

    Raises:
        ModelFileError: reasons MODEL_NOT_FOUND, MODEL_AMBIGUOUS.
    """
    versions = sorted(list_folders(root / name), key=sort_version, reverse=True)
    if not versions:
        raise ModelFileError(
            "MODEL_NOT_FOUND",
            f"{root / name}: there is no such model; in {root}: {list_names(list_folders(root)) or 'none'}; "
            f"{HOW_TO_MAKE}",
        )
    skipped = []
    for version in versions:
        if fault := find_fault(root, root / name / version):
            skipped.append(fault)
            continue
        alike = [other for other in versions if sort_version(other) == sort_version(version)]
        if len(alike) > 1:
            raise ModelFileError(
                "MODEL_AMBIGUOUS",
                f"{root / name}: {list_names(sorted(alike))} are the same version; keep one of them, or name it: "
                f"--model {name}/{version}",
            )
        return Place(root / name / version, skipped=tuple(skipped))
    return Place(root / name / versions[0])


def find_fault(root: Path, folder: Path) -> str:
    """Says what a look shows to be wrong with a version's folder, such as that it is half copied; empty: nothing.

    No file of a model is read. Whether they are what they should be, loading them tells.
    """
    try:
        check_inside(root, folder)
        manifest = read_manifest(folder)
        for name, record in manifest.files.items():
            path = folder / name
            check_inside(root, path)
            try:
                found = path.stat()
            except OSError as error:
                return f"{path}: cannot be read ({error.strerror}); {HOW_TO_MEND}"
            if not stat.S_ISREG(found.st_mode):
                return f"{path}: is no regular file; {HOW_TO_MEND}"
            if found.st_size != record.size:
                return f"{path}: {found.st_size:,} of {record.size:,} bytes are there; {HOW_TO_MEND}"
    except ModelFileError as error:
        return error.message
    return ""


def check_inside(root: Path, path: Path) -> None:
    """Checks that nothing on the way to a folder or file is a link that leads out of the models folder.

    Raises:
        ModelFileError: reason MODEL_OUTSIDE.
    """
    try:
        is_inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
    except (OSError, ValueError):  # a null byte, or half a surrogate pair: whoever opens it will say so
        return
    if not is_inside:
        raise ModelFileError(
            "MODEL_OUTSIDE", f"{path}: a link leads out of the models folder {root}; copy what it leads to instead"
        )


@dataclass(frozen=True)
class Found:
    """What a version's folder looks like."""

    version: str
    state: str
    """``WHOLE``, ``HALF_COPIED``, ``ALTERED`` or ``MISSING``."""

    fault: str = ""
    """What is wrong with it; empty when nothing is."""

    digest: str = ""
    """Of its release; empty where its manifest cannot be read."""


WHOLE, HALF_COPIED, ALTERED, MISSING = "whole", "half-copied", "altered", "missing"


def examine(root: Path, name: str, version: str, known: Release | None, *, has_bytes_read: bool = False) -> Found:
    """Looks at a version's folder.

    Args:
        root: the models folder.
        name: of the model.
        version: of it.
        known: what is in memory, or was active, under this version; None: nothing.
        has_bytes_read: the files are read, too, and not only looked at.
    """
    folder = root / name / version
    if not os.path.exists(folder):
        return Found(version, MISSING, f"{folder}: is not there")
    if fault := find_fault(root, folder):
        return Found(version, HALF_COPIED if known is None else ALTERED, fault)
    release = None
    try:
        release, manifest = read_release(root, folder)
        if known is not None and release != known:
            fault = f"{folder}: holds another release than the one that was activated"
            return Found(version, ALTERED, fault, release.digest)
        for file in manifest.files if has_bytes_read else ():
            check_file(folder, file, manifest)
    except ModelFileError as error:
        return Found(version, ALTERED, error.message, release.digest if release is not None else "")
    return Found(version, WHOLE, "", release.digest)


def identify(manifest: Manifest) -> str:
    """The digest by which a release is known: of all that its manifest says, so of every file of it, of the answers
    that it must give, and of how exactly. SHA-256, 64 lower-case hexadecimal digits."""
    return digest_text(manifest.to_json())


def read_release(root: Path, folder: Path) -> tuple[Release, Manifest]:
    """Returns what a version's folder holds, by its manifest.

    Raises:
        ModelFileError: reasons MODEL_OUTSIDE, and those of ``read_manifest``.
    """
    check_inside(root, folder)
    check_inside(root, folder / MANIFEST_FILE)
    manifest = read_manifest(folder)
    for name in manifest.files:
        check_inside(root, folder / name)
    return Release(folder.name, identify(manifest)), manifest


def list_folders(root: Path) -> list[str]:
    """Names of the sub-folders that can be a model or a version, sorted; half-written ones start with a dot.

    Raises:
        ModelFileError: reason MODEL_NOT_FOUND: the folder cannot be read, or has more entries than a folder of models.
    """
    try:
        with os.scandir(root) as found:
            entries = list(itertools.islice(found, MOST_ENTRIES + 1))
            if len(entries) > MOST_ENTRIES:
                raise ModelFileError(
                    "MODEL_NOT_FOUND",
                    f"{root}: has more than {MOST_ENTRIES:,} entries, so it is no folder of models; {HOW_TO_MAKE}",
                )
            return sorted(entry.name for entry in entries if is_identifier(entry.name) and is_folder(entry))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null byte
        return []
    except OSError as error:
        raise ModelFileError("MODEL_NOT_FOUND", f"{root}: cannot be read ({error.strerror})") from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link that leads in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def list_names(names: list[str]) -> str:
    """Names for an error message, the first of them where they are many."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def sort_version(version: str) -> list[tuple[int, int, str]]:
    """Sort key that puts 10 after 9 and 1.10 after 1.9."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in version.split(".")]
