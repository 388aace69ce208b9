"""What a training needs to go on after a crash, in one file that is written after each epoch and never half written.

A training that goes on from it gives the numbers of one that was never interrupted: weights, optimiser with its place
on the learning-rate schedule, random states, best weights so far, and the history that early stopping looks at. The
order of the images needs nothing: it follows from the seed and the epoch.
"""

from __future__ import annotations

import errno
import os
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

CHECKPOINT = "checkpoint.npz"
FEATURES_HEADER = "features.json"
"""What a cache of features says of itself (``training.fit.features``)."""
PREVIOUS = "checkpoint-before.npz"
"""The one before, for the case that the last one cannot be read."""

NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""How network shares and the like say that they know no fsync; a disk that fails or is full says something else."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training at the end of an epoch."""

    history: NDArray[np.float64]
    """[epochs, figures]: a row per finished epoch."""

    steps: int
    """Batches so far."""

    best_epoch: int
    """Number of the best epoch so far, from 1; 0 before there is one."""

    variables: Sequence[NDArray[np.generic]]
    """Of network and optimiser, in Keras's order."""

    best_weights: Sequence[NDArray[np.float32]]
    """Of the network at the best epoch."""


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes ``CHECKPOINT`` so that at every moment there is a whole one on disk, through a power cut too.

    Raises:
        TrainingError: it cannot be written, as on a full disk; the checkpoint before is untouched.
    """
    arrays = {f"variable{index}": array for index, array in enumerate(checkpoint.variables)}
    arrays |= {f"best{index}": array for index, array in enumerate(checkpoint.best_weights)}
    numbers = np.array([checkpoint.steps, checkpoint.best_epoch])
    path, new = folder / CHECKPOINT, folder / "checkpoint.new"
    try:
        with new.open("wb") as file:
            np.savez(file, allow_pickle=False, history=checkpoint.history, numbers=numbers, **arrays)
            file.flush()
            sync_file(file.fileno())
        if path.exists():
            path.replace(folder / PREVIOUS)
        new.replace(path)
        sync_folder(folder)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise TrainingError(f"{path} cannot be written: {error.strerror or error}") from None


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Reads the last whole checkpoint of a folder, None where there is none; says so where one is damaged."""
    for name in (CHECKPOINT, PREVIOUS):
        try:
            # NumPy would leave a file open that it opens itself and cannot read.
            with (folder / name).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = dict(file)
            steps, best_epoch = arrays["numbers"].tolist()
        except FileNotFoundError:
            continue
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            print(f"{folder / name} is damaged; the training goes on from before it", file=sys.stderr)
            continue
        return Checkpoint(
            arrays["history"], steps, best_epoch, list_arrays(arrays, "variable"), list_arrays(arrays, "best")
        )
    return None


def remove_checkpoints(folder: Path) -> None:
    """Removes what only an unfinished training needs."""
    for name in (CHECKPOINT, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def list_arrays(arrays: dict[str, NDArray[np.generic]], prefix: str) -> list[NDArray[Any]]:
    """Returns ``<prefix>0``, ``<prefix>1`` and so on."""
    names = [name for name in arrays if name.rstrip("0123456789") == prefix]
    return [arrays[f"{prefix}{index}"] for index in range(len(names))]


def sync_file(descriptor: int) -> None:
    """Puts an open file or folder on the disk, where the file system can: a share may not know how.

    Raises:
        OSError: the disk fails, or has no room.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def sync_folder(folder: Path) -> None:
    """Puts a folder's names on the disk, so that a power cut cannot undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)
