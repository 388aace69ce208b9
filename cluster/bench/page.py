"""The figures of docs/ray.md: one JSON document of sections, and the tables that are made from it.

The page's text is written by hand; what stands between its marks is replaced.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.machine.processors import count_processors

FIGURES, PAGE = "ray.json", "ray.md"
Render = Callable[[Mapping[str, Any]], str]


def publish(name: str, section: Mapping[str, Any], render: Render, out: Path | None) -> str:
    """Puts a section into the figures and the page of a folder, and returns it as Markdown.

    Args:
        name: of the section, which stands in the page's marks, too.
        section: what was measured.
        render: makes Markdown of it.
        out: the folder; None writes nothing.
    """
    text = render(section)
    if out is not None:
        path = out / FIGURES
        document = json.loads(path.read_text("utf-8")) if path.exists() else {}
        document[name] = {"date": datetime.now(UTC).date().isoformat(), "processors": count_processors(), **section}
        write(path, json.dumps(document, indent=1, sort_keys=True) + "\n")
        page = (out / PAGE).read_text("utf-8")
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        write(out / PAGE, re.sub(f"{begin}.*?{end}", lambda _: f"{begin}{text}\n{end}", page, flags=re.DOTALL))
    return text


def write(path: Path, text: str) -> None:
    """Replaces a file as a whole."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_text(text, "utf-8")
    staged.replace(path)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
