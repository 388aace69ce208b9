"""The folder of a run: unfinished under ``<name>.partial``, complete under its name, and never written over.

What an unfinished one holds is enough to go on: the flags and the data it belongs to (``run.json``), the split, and the
checkpoint of the training that was under way.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from server.flags import flag_of
from training.errors import TrainingError
from training.fit.checkpoint import CHECKPOINT, FEATURES_HEADER, PREVIOUS, sync_file, sync_folder
from training.settings.train import TrainConfig

RECORD = "run.json"
METRICS = "metrics.json"
WORTH_KEEPING = (CHECKPOINT, PREVIOUS, FEATURES_HEADER, METRICS)
"""A failed run whose folder has none of these anywhere leaves nothing."""

NOT_COMPARED = ("data", "out", "resume")
"""Where things are may change between a run and its continuation; the data are compared by their fingerprint."""


@contextmanager
def open_run_folder(config: TrainConfig) -> Iterator[Path]:
    """Yields ``<out>.partial``, new or to go on with, and renames it to ``out`` at the end.

    A failure keeps it if there is something to go on from; SIGTERM is such a failure.

    Raises:
        TrainingError: the run is there already, or is unfinished and ``--resume`` is not given, or has other flags.
    """
    folder = find_partial(config.out)
    if config.out.exists():
        raise TrainingError(f"{config.out} exists; name another run folder, or remove it")
    if folder.exists() and not config.resume:
        raise TrainingError(f"{folder} is an unfinished run; go on with --resume, or remove it to start anew")
    check_flags(config, folder)
    if config.resume:
        print(f"{folder}: going on" if folder.exists() else "no unfinished run: starting anew", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with stop_on_sigterm():
            yield folder
    except BaseException:
        if any(path.name in WORTH_KEEPING for path in folder.rglob("*")):
            print(f"\nkept so far: {folder}; the same command with --resume goes on from there", file=sys.stderr)
        else:
            shutil.rmtree(folder)
        raise
    finish_folder(folder, config.out)


def find_partial(out: Path) -> Path:
    """Returns where a run is until it is complete."""
    return out.with_name(out.name + ".partial")


def finish_folder(folder: Path, out: Path) -> None:
    """Gives a complete folder its name, once all of it is on the disk: a power cut cannot leave half of it."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                sync_file(file.fileno())
    folder.rename(out)
    sync_folder(out.parent)


def is_finished(config: TrainConfig) -> bool:
    """Tells whether ``--resume`` finds the run complete.

    Raises:
        TrainingError: it is complete, with other flags.
    """
    if not config.resume or not (config.out / RECORD).exists():
        return False
    check_flags(config, config.out)
    print(f"{config.out} is finished: nothing to go on with", file=sys.stderr)
    return True


def check_flags(config: TrainConfig, folder: Path) -> None:
    """Compares the flags with those that a folder was begun with, where it says so.

    Raises:
        TrainingError: naming the first flag that differs.
    """
    recorded = read_record(folder).get("flags", {})
    for name, value in list_flags(config).items():
        before = recorded.get(name, value)
        if before != value and [before] != value:  # earlier versions recorded one positive label as a text
            raise TrainingError(
                f"{flag_of(name)} is {value} here and was {before} in {folder}; --resume needs the same flags"
            )


def record_run(config: TrainConfig, folder: Path, fingerprint: str) -> None:
    """Writes what a continuation has to agree with, or compares with what is there.

    Raises:
        TrainingError: the data are others than those that the run was begun with.
    """
    before = read_record(folder).get("data_fingerprint")
    if before is None:
        new = folder / "run.json.new"
        record = {"flags": list_flags(config), "data_fingerprint": fingerprint}
        new.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        new.replace(folder / RECORD)
    elif before != fingerprint:
        raise TrainingError(f"{config.data} is not what {folder} was begun with; --resume needs the same images")


def read_record(folder: Path) -> dict[str, Any]:
    """Returns what ``run.json`` says, nothing where there is none: the run was stopped before it was written."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return record


def list_flags(config: TrainConfig) -> dict[str, Any]:
    """Returns the flags that a continuation has to share, as JSON gives them back."""
    names = [field.name for field in fields(config) if field.name not in NOT_COMPARED]
    values = asdict(config)
    flags: dict[str, Any] = json.loads(json.dumps({name: values[name] for name in names}, default=str))
    return flags


@contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Makes SIGTERM end the program like an error, so that what was done is kept and said; exit code 143."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
