"""Clients that others wrote, unmodified, each in an environment of its own: ``make install-neighbours``.

What they need would not go together with this project's packages, nor with each other's.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "build" / "neighbours"


def find_program(neighbour: str, program: str = "python") -> Path:
    """Returns a program of a neighbour's environment.

    Args:
        neighbour: a name in ``requirements/neighbours``, without its ending.
        program: its file name, such as ``python``.

    Raises:
        FileNotFoundError: it is not installed; the message says what installs it.
    """
    path = FOLDER / neighbour / "bin" / program
    if not path.exists():
        raise FileNotFoundError(f"{neighbour} is not in build/neighbours: make install-neighbours puts it there")
    return path
