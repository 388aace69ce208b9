"""The folder of the user whom this process runs as, where there is one.

A container that was given any number for a user has neither HOME nor an entry in the list of users, and everything that
expands ``~`` raises. Nothing that a home is good for is worth an end: what would be kept there is not kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def find_home(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Returns the home; None where there is none. A relative one would be another folder after each ``cd``."""
    if (home := environment.get("HOME")) is None:
        try:
            import pwd

            home = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError):  # another system; a number without a user
            return None
    return Path(home) if os.path.isabs(home) else None


def find_cache(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Returns the folder for caches of this user (XDG base directories); None where there is none."""
    if os.path.isabs(environment.get("XDG_CACHE_HOME", "")):  # the standard: a relative one is not looked at
        return Path(environment["XDG_CACHE_HOME"])
    home = find_home(environment)
    return home and home / ".cache"
