"""``models/active.json``: which versions are active, so that a restart serves what was served before.

    {"schema": 1,
     "models": {"stroke-cnn": {"stable": {"version": "2", "digest": "4f1c…"},
                               "history": [{"version": "1", "digest": "9a70…"}],
                               "canary": {"version": "3", "digest": "e07b…", "percent": 5.0},
                               "shadow": null}}}

It is there as a whole or as it was before, whenever the power fails. A version stands in it with the digest of its
release (``server.models.repository.identify``): other bytes under the same version are not what was active.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.errors import ModelFileError
from server.machine.bounded_file import read_regular
from server.models.contract import is_identifier
from server.models.manifest import is_sha256
from server.models.strict_json import check_keys, is_whole, parse_strictly, read_number

ACTIVE_FILE = "active.json"
STAGED_FILE = ".active.json.new"
"""One name, so that what a kill leaves behind is written over and does not pile up."""

SCHEMA = 1
MOST_BYTES = 1024 * 1024
MOST_MODELS = 100
MOST_HISTORY = 16
"""Entries that can be gone back through; older ones are forgotten."""

LOCK_SECONDS = 2.0
"""Another server of the same folder writes for milliseconds."""


@dataclass(frozen=True)
class Release:
    """One version, as certain bytes."""

    version: str
    digest: str
    """See ``server.models.repository.identify``."""


@dataclass(frozen=True)
class Canary:
    """A release that answers a share of the images."""

    release: Release
    percent: float
    """Of the images, above 0 and below 100."""


@dataclass(frozen=True)
class ActiveModel:
    """What is active under one name."""

    stable: Release
    history: tuple[Release, ...] = ()
    """What was stable before, oldest first."""

    canary: Canary | None = None
    shadow: Release | None = None

    @property
    def known(self) -> tuple[Release, ...]:
        """All releases that are in it."""
        others = [self.canary.release if self.canary else None, self.shadow]
        return (self.stable, *self.history, *(one for one in others if one is not None))

    def follow(self, release: Release) -> ActiveModel:
        """With another stable release; the one before it goes into the history. What was on trial beside that one is so
        no longer: a canary could be older, and a shadow was compared with another model."""
        return ActiveModel(release, (*self.history, self.stable)[-MOST_HISTORY:])

    def go_back(self) -> ActiveModel:
        """With the stable release before, of which there must be one; trials end, too."""
        return ActiveModel(self.history[-1], self.history[:-1])

    def to_document(self) -> dict[str, Any]:
        """The entry in the file."""
        canary = self.canary
        return {
            "stable": vars(self.stable),
            "history": [vars(release) for release in self.history],
            "canary": {**vars(canary.release), "percent": canary.percent} if canary else None,
            "shadow": vars(self.shadow) if self.shadow else None,
        }

    @classmethod
    def from_document(cls, document: Any) -> ActiveModel:
        """Reads what ``to_document`` wrote.

        Raises:
            ValueError: it is no such document.
        """
        check_keys(document, {"stable", "history", "canary", "shadow"})
        history, canary, shadow = document["history"], document["canary"], document["shadow"]
        if not isinstance(history, list) or len(history) > MOST_HISTORY:
            raise ValueError(f"a history is no list of at most {MOST_HISTORY} entries")
        trial = None
        if canary is not None:
            check_keys(canary, {"version", "digest", "percent"})
            percent = read_number(canary["percent"])
            if not 0 < percent < 100:
                raise ValueError("a percent is not above 0 and below 100")
            trial = Canary(parse_release({key: canary[key] for key in ("version", "digest")}), percent)
        return cls(
            parse_release(document["stable"]),
            tuple(map(parse_release, history)),
            trial,
            None if shadow is None else parse_release(shadow),
        )


@dataclass(frozen=True)
class Active:
    """Contents of the file."""

    models: Mapping[str, ActiveModel] = field(default_factory=dict)
    """By name."""

    def to_json(self) -> str:
        """The text of the file."""
        models = {name: self.models[name].to_document() for name in sorted(self.models)}
        return json.dumps({"schema": SCHEMA, "models": models}, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Active:
        """Reads what ``to_json`` wrote.

        Raises:
            ValueError: it is no such document; the text says why.
        """
        document = parse_strictly(text)
        check_keys(document, {"schema", "models"})
        if not is_whole(document["schema"]) or document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {str(document['schema'])[:20]!r}, this server knows {SCHEMA}")
        models = document["models"]
        if not isinstance(models, dict) or len(models) > MOST_MODELS or not all(map(is_identifier, models)):
            raise ValueError(f"its models are not at most {MOST_MODELS}, by their names")
        return cls({name: ActiveModel.from_document(entry) for name, entry in models.items()})


def parse_release(document: Any) -> Release:
    """Reads a version with its digest.

    Raises:
        ValueError: it is none.
    """
    check_keys(document, {"version", "digest"})
    if not is_identifier(document["version"]) or not is_sha256(document["digest"]):
        raise ValueError("a version or its digest is not one")
    return Release(document["version"], document["digest"])


def read_active(root: Path) -> Active:
    """Reads the file of a models folder; without one nothing is active.

    Raises:
        ModelFileError: reason ACTIVE_INVALID. What was active is then not known, and nothing else is served for it.
    """
    path = root / ACTIVE_FILE
    try:
        return Active.from_json(read_regular(path, MOST_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return Active()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EINVAL) and not path.exists():  # the folder itself is not a possible one
            return Active()
        why = f"cannot be read ({error.strerror})"
    except ValueError as error:
        why = f"does not say which versions are active: {error}"
    raise ModelFileError(
        "ACTIVE_INVALID",
        f"{path}: {why}; bring it back from a copy, or say what to serve: --model NAME/VERSION",
    )


def change_active(root: Path, name: str, change: Callable[[ActiveModel | None], ActiveModel]) -> ActiveModel:
    """Changes what is active under one name, and returns it; it is on the disk by then.

    Args:
        root: the models folder.
        name: of the model.
        change: makes the new entry of the one that is there, if any. Raises what it likes: then nothing is changed.

    Raises:
        ModelFileError: reasons ACTIVE_INVALID, and ACTIVE_NOT_WRITABLE: nothing was changed.
    """
    try:
        with lock_folder(root) as folder:
            active = read_active(root)
            entry = change(active.models.get(name))
            write(folder, Active({**active.models, name: entry}).to_json())
    except OSError as error:
        raise ModelFileError(
            "ACTIVE_NOT_WRITABLE",
            f"{root / ACTIVE_FILE}: cannot be written ({error.strerror}), and without it a restart would serve "
            "something else; let the server's user write to the models folder",
        ) from None
    return entry


@contextmanager
def lock_folder(root: Path) -> Iterator[int]:
    """Opens the models folder, which no other server changes meanwhile, and gives its descriptor.

    Raises:
        OSError: it cannot be opened, or another server does not let go of it.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise OSError(errno.EAGAIN, "another server is writing it") from None
                time.sleep(0.02)
            except OSError:  # a file system without locks
                break
        yield folder
    finally:
        os.close(folder)


def write(folder: int, text: str) -> None:
    """Writes the file, so that it is there as a whole or as it was.

    Args:
        folder: descriptor of the models folder.
        text: of the file.

    Raises:
        OSError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(STAGED_FILE, flags, 0o644, dir_fd=folder), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(STAGED_FILE, ACTIVE_FILE, src_dir_fd=folder, dst_dir_fd=folder)
    with suppress(OSError):  # it is there, if not for sure after a failure of the power
        os.fsync(folder)
