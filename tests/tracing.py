"""Whether the lines that processes of a test reach are counted, and how such a process is told.

Apart from its users, so that those who need this alone load nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path

COVERING = "TESTS_COUNT_LINES"
"""In the environment where lines are counted; tests/coverage_table.py puts it there."""

ROOT = Path(__file__).resolve().parent.parent


def traced() -> dict[str, str]:
    """What the environment of a process needs so that its lines count, too; nothing where they are not counted.

    It is for processes that end in order: one that is killed has written nothing down. In a test marked ``timed`` it is
    empty, as tracing makes a process start a third of a second later, and slower.
    """
    if COVERING not in os.environ:
        return {}
    settings = ROOT / "pyproject.toml"
    return {"COVERAGE_PROCESS_START": str(settings), "COVERAGE_FILE": str(ROOT / "build" / "coverage" / "lines")}
