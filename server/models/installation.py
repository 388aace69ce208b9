"""Putting a model folder into place: for programs that make models. The server itself writes none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from server.models.runtime import load_model


def install(files: Mapping[str, bytes], out: Path, *, force: bool = False) -> None:
    """Writes a model folder aside, loads it as the server would, and moves it into place by a rename.

    With ``force`` there are two renames, and for a moment between them no model.

    Args:
        files: bytes by name, the manifest included.
        out: ``models/<name>/<version>``.
        force: it may replace what is there.

    Raises:
        ModelFileError: what was written does not load.
        OSError: the folder cannot be written. Either way what was there before is there.
    """
    # Hidden, so that no server takes it for a version; same name and version, so that it loads from there.
    staging = out.parent.parent / f".staging-{os.getpid()}"
    staged = staging / out.parent.name / out.name
    try:
        staged.mkdir(parents=True)
        for name, data in files.items():
            with (staged / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        load_model(staged)
        out.parent.mkdir(parents=True, exist_ok=True)
        if force and out.exists():
            out.rename(staging / "replaced")
        staged.rename(out)
    finally:
        # Also on Ctrl-C: what was there before comes back, and is never deleted with the staging folder.
        if (staging / "replaced").exists() and not out.exists():
            (staging / "replaced").rename(out)
        shutil.rmtree(staging, ignore_errors=True)
