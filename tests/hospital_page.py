"""Commands of docs/hospital.md, for the tests that run them."""

from __future__ import annotations

import re
import shlex

from tests.fakes import ROOT

PAGE = (ROOT / "docs" / "hospital.md").read_text("utf-8")


def find_command(start: str) -> list[str]:
    """The command of the page that begins so, behind its interpreter."""
    (found,) = re.findall(rf"^\$ \S*({re.escape(start)}.*)$", PAGE, re.MULTILINE)
    return shlex.split(found)
