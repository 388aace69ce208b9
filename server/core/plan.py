"""How this machine is used: what the profile, the flags and the tuning come to here.

A tuning is what ``python -m server tune`` has found out, kept in a file for ``--profile tuned``.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from server.config import MOST_THREADS, PRECISIONS, ServerConfig
from server.errors import ModelFileError
from server.machine.bounded_file import read_regular
from server.machine.processors import count_processors, describe_processor
from server.models.engines.engine import EngineOptions
from server.models.manifest import read_manifest
from server.models.repository import find_wanted
from server.models.strict_json import parse_strictly

SCHEMA = 1
MOST_BYTES = 64 * 1024
"""A tuning has some 3 kB, most of it the features of the processor."""

TUNED = ("precision", "threads", "busy_threads", "workers")
"""The fields of ``EngineOptions`` that are measured."""


@dataclass(frozen=True)
class Plan:
    """Resolved settings: no ``auto`` is left but in ``options.precision``, which each model's manifest decides."""

    profile: str
    options: EngineOptions
    """How models are run."""

    decoders: int = 0
    """Processes that decode compressed DICOM files, at most; 0: one for each worker."""

    @property
    def workers(self) -> int:
        """Images in work at the same time."""
        return self.options.workers

    def is_busy(self, in_flight: int) -> bool:
        """Whether so many images in flight keep more than half of the workers busy.

        An image that is alone, or nearly, gets ``threads``; many images are the parallelism themselves.
        """
        return 2 * min(in_flight, self.workers) > max(self.workers, 2)


def make_plan(config: ServerConfig, processors: int) -> Plan:
    """Resolves the settings for a machine. What is set by a flag wins over the profile.

    Args:
        config: the settings.
        processors: how many this process may use.

    Raises:
        ModelFileError: ``--profile tuned`` without a tuning that is valid here.
    """
    precision, workers = config.precision, processors
    threads, busy_threads = {"latency": (processors, processors), "throughput": (1, 1)}.get(
        config.profile, (processors, 1)
    )
    if config.profile == "tuned":
        choice = read_tuning(config)
        threads, busy_threads, workers = choice.threads, choice.busy_threads, choice.workers
        # Other models that are served too may have no variant; the one that was tuned has.
        if precision == "auto" and choice.precision == "fp32":
            precision = "fp32"
    if config.threads != "auto":
        threads = int(config.threads)
        busy_threads = 1 if config.profile == "balanced" else threads
    options = EngineOptions(
        precision=precision,
        runtime=config.runtime,
        threads=threads,
        busy_threads=busy_threads,
        workers=config.workers or workers,
        cache=config.cache_folder,
        explains=config.explain,
    )
    return Plan(config.profile, options, config.decoders)


def list_tuned(options: EngineOptions) -> dict[str, str | int]:
    """What a tuning says of a way to run a model."""
    return {name: getattr(options, name) for name in TUNED}


def describe_basis(folder: Path, runtime: str) -> dict[str, Any]:
    """What must not have changed for a tuning to be valid: the model's files, the processor and the runtime.

    Raises:
        ModelFileError: the manifest cannot be read.
    """
    return {
        "files": {name: record.sha256 for name, record in read_manifest(folder).files.items()},
        "processor": describe_processor(),
        "processors": count_processors(),
        "runtime": runtime,
    }


def find_place(config: ServerConfig) -> tuple[Path, Path]:
    """Returns the folder of the first model that is wanted, and the file of its tuning.

    Raises:
        ModelFileError: there is no such model, or reason TUNING_MISSING: there is no cache to keep it in.
    """
    folder = find_wanted(config.models, config.model)[0]
    if config.cache_folder is None:
        why = "--cache off" if config.cache == "off" else "this user has no home folder"
        raise ModelFileError("TUNING_MISSING", f"{why}: a tuning is kept in the cache; give it a folder with --cache")
    return folder, config.cache_folder / f"tuning-{folder.parent.name}-{folder.name}-{config.runtime}.json"


def check_place(path: Path) -> None:
    """Finds out whether the file of a tuning can be written, by writing one beside it.

    Raises:
        ModelFileError: reason TUNING_NOT_WRITABLE.
    """
    stage(path, "-" * 4096).unlink()
    if path.is_dir():
        raise ModelFileError("TUNING_NOT_WRITABLE", f"{path}: a folder is in the way")


def write_tuning(path: Path, basis: Mapping[str, Any], choice: EngineOptions) -> None:
    """Writes the file that ``read_tuning`` reads. It is there as a whole, or as it was before.

    Raises:
        ModelFileError: reason TUNING_NOT_WRITABLE.
    """
    staged = stage(path, json.dumps({"schema": SCHEMA, "basis": basis, "choice": list_tuned(choice)}, indent=2) + "\n")
    try:
        staged.replace(path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise refuse_place(path, error) from None


def stage(path: Path, text: str) -> Path:
    """Writes a file of another name beside ``path``, down to the disk, and returns its path.

    Raises:
        ModelFileError: reason TUNING_NOT_WRITABLE.
    """
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with staged.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise refuse_place(path, error) from None
    return staged


def refuse_place(path: Path, error: OSError) -> ModelFileError:
    """The error for a folder that cannot be written to."""
    why = error.strerror or str(error)
    return ModelFileError(
        "TUNING_NOT_WRITABLE",
        f"{path.parent}: the tuning cannot be written there ({why}); choose a folder with --cache",
    )


def check_tuned(config: ServerConfig, name: str, version: str) -> None:
    """Checks that a server with these settings could be started with another version of its first model: with
    ``--profile tuned`` there must be a tuning for it.

    Raises:
        ModelFileError: reasons TUNING_MISSING and TUNING_OUTDATED.
    """
    if config.profile == "tuned" and name == find_place(config)[0].parent.name:
        read_tuning(replace(config, model=f"{name}/{version}"))


def read_tuning(config: ServerConfig) -> EngineOptions:
    """Returns what was chosen for the first model that is wanted, on this very machine.

    Raises:
        ModelFileError: reasons TUNING_MISSING and TUNING_OUTDATED, besides those of a model that is not there.
    """
    folder, path = find_place(config)
    again = f"run 'python -m server tune --models {config.models} --model {folder.parent.name}/{folder.name}'"
    try:
        document = parse_strictly(read_regular(path, MOST_BYTES))
        if document["schema"] != SCHEMA:
            raise ValueError("schema")
        basis, chosen = document["basis"], document["choice"]
        if set(chosen) != set(TUNED):
            raise ValueError("choice")
        choice = EngineOptions(**chosen)
        numbers = (choice.threads, choice.busy_threads, choice.workers)
        if choice.precision not in PRECISIONS or not all(type(n) is int and 1 <= n <= MOST_THREADS for n in numbers):
            raise ValueError("choice")
    except FileNotFoundError:
        raise ModelFileError(
            "TUNING_MISSING", f"--profile tuned: there is no tuning for this model at {path}; {again}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelFileError("TUNING_OUTDATED", f"{path}: is no tuning of this version; {again} again") from None
    if basis != describe_basis(folder, config.runtime):
        raise ModelFileError(
            "TUNING_OUTDATED", f"{path}: was made for other model files or another processor; {again} again"
        )
    return choice
