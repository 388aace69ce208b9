"""Where results of a folder go: files that are whole, and ``result.json``, which names what is complete."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.queue.files import PART, remove_folder, sync_folder, write_whole

RESULT = "result.json"


class OutputError(Exception):
    """The folder cannot be used; the message says why."""


class Output:
    """A folder of results, for this process alone; use ``open_output``.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._part = root / f".results{PART}"
        remove_folder(self._part)  # of a process that was ended
        self.studies: list[dict[str, Any]] = _read_studies(root)
        """Entries of the studies whose results are there."""

    def put(self, files: Mapping[str, bytes], entry: dict[str, Any], head: Mapping[str, Any]) -> None:
        """Writes the results of a study, in place of those that were there.

        Args:
            files: contents by name.
            entry: what result.json has of the study.
            head: what it has beside studies.

        Raises:
            OSError: they cannot be written, naming the folder; then nothing has changed.
        """
        uid = entry["study_instance_uid"]
        before = [one for one in self.studies if one["study_instance_uid"] == uid]
        studies = [one for one in self.studies if one["study_instance_uid"] != uid] + [entry]
        try:
            self._part.mkdir()
            for name, data in files.items():
                write_whole(self._part / name, data)
            write_whole(self._part / RESULT, json.dumps({**head, "studies": studies}, indent=1).encode())
            for name in [*files, RESULT]:  # which comes last: what it names is there
                os.replace(self._part / name, self._root / name)
            sync_folder(self._root)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._root)) from error
        finally:
            remove_folder(self._part)
        self.studies = studies
        for name in {name for one in before for name in list_names(one)} - files.keys():
            (self._root / name).unlink(missing_ok=True)

    def has(self, entry: Mapping[str, Any]) -> bool:
        """Whether all files are there that an entry names."""
        return all((self._root / name).is_file() for name in list_names(entry))


@contextmanager
def open_output(root: Path) -> Iterator[Output]:
    """Opens a folder, and makes it where there is none; one that was made and got nothing goes again.

    Raises:
        OutputError: it cannot be written to.
        BlockingIOError: another process writes there.
    """
    is_new = not root.exists()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)  # results name the patient as the images do
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OutputError(f"{root}: {error.strerror}") from None
    try:
        if not os.access(root, os.W_OK | os.X_OK):
            raise OutputError(f"{root}: Permission denied")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(error.errno, "another process writes there", str(root)) from None
        yield Output(root)
    finally:
        os.close(descriptor)
        if is_new and not any(root.iterdir()):
            root.rmdir()


def list_names(entry: Mapping[str, Any]) -> list[str]:
    """Names of the files of a study."""
    return [str(file["name"]) for file in entry["files"]]


def _read_studies(root: Path) -> list[dict[str, Any]]:
    """The studies of a result.json; none where there is none that this program has written."""
    try:
        document = json.loads((root / RESULT).read_bytes())
        studies = [dict(one) for one in document["studies"]]
        is_own = all("study_instance_uid" in one and _are_plain(list_names(one)) for one in studies)
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return studies if is_own else []


def _are_plain(names: list[str]) -> bool:
    """Whether names stay within a folder."""
    return all(name == os.path.basename(name) and not name.startswith(".") for name in names)
