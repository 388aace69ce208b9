"""Audit logs for tests: written by the writer itself, then read, and altered as somebody would who wants to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server.audit import writer
from server.audit.check import Report
from server.audit.family import list_rotated
from server.audit.verify import verify
from server.audit.writer import AuditLog, AuditOptions
from server.core.detector import Detection
from server.core.outcomes import Caller, Outcome
from server.images.checks import Reason
from server.models.runtime import OnnxModel
from tests.fakes import build_tiny_model

CALLER = Caller("ipv4:10.0.0.7:40000", "ward-3")
DIGEST = "ab" * 32
JANUARY = 1_769_860_800.0
"""Noon of 2026-01-31, UTC."""

DAY = 86_400.0


@cache
def tiny_model() -> OnnxModel:
    """A model to be named in lines."""
    return OnnxModel(build_tiny_model(), source="tiny")


def judged(request_id: str = "a", *, reasons: tuple[Reason, ...] = (), **fields: Any) -> Outcome:
    """The outcome of an image that was judged."""
    label = "" if reasons else "stroke"
    detection = Detection(tiny_model(), label, 0.75, (0.25, 0.75), DIGEST, 1, 1, 1, (), reasons)
    return ended(request_id, detection=detection, **fields)


def ended(request_id: str = "a", code: str = "OK", reason: str = "", **fields: Any) -> Outcome:
    """The outcome of an image."""
    now = time.monotonic()
    defaults = {"caller": CALLER, "started": now - 0.0125, "ended": now, "image_sha256": DIGEST, "is_image": True}
    return Outcome(
        method="Predict", request_id=request_id, code=code, reason=reason, is_call=True, **{**defaults, **fields}
    )


@contextmanager
def open_log(path: Path, **options: Any) -> Iterator[AuditLog]:
    """A log that is written; it is closed at the end."""
    log = AuditLog(AuditOptions(path, **options))
    try:
        yield log
    finally:
        log.close()


def write_log(path: Path, count: int = 5, **options: Any) -> None:
    """One run of a server that judges so many images, with ids of the file's name and a number."""
    with open_log(path, **options) as log:
        for number in range(count):
            log.note(judged(f"{path.stem}-{number}"))


def list_files(path: Path) -> list[Path]:
    """The files with lines, in their order. The last may not be there: a server was killed when it had just rotated."""
    return [*(rotated.path for rotated in list_rotated(path)), *([path] if path.exists() else [])]


def read_log(path: Path) -> list[dict[str, Any]]:
    """All lines, from all files."""
    return [json.loads(line) for file in list_files(path) for line in file.read_bytes().splitlines()]


def list_events(path: Path) -> list[str]:
    """What the lines are about."""
    return [line["event"] for line in read_log(path)]


def alter(path: Path, change: Callable[[list[bytes]], object]) -> None:
    """Changes the lines of one file, as an editor would."""
    lines = path.read_bytes().splitlines(keepends=True)
    change(lines)
    path.write_bytes(b"".join(lines))


def list_faults(report: Report) -> list[str]:
    """File, line and fault, as they are printed."""
    return [f"{fault.file}:{fault.line}: {fault.text}" for fault in report.faults]


def find_faults(path: Path) -> list[str]:
    """What verify finds in a log."""
    return list_faults(verify(path))


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Has the log believe that it is another time; monotonic time goes on."""
    monkeypatch.setattr(
        writer, "time", SimpleNamespace(time=lambda: seconds, monotonic=time.monotonic, sleep=time.sleep)
    )
