"""``docs/reliability.md``: the table of faults, promises and what was seen, written by ``make faults``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.report.machine import format_machine
from bench.report.tables import render_table

HEAD = """\
# What is done to it, and what it does

`make faults` runs real servers on this machine's loopback, injects each fault of the table while callers go on sending
images, and judges what was seen. It exits with an error when a promise is broken, and keeps the history of all calls
then. `make faults-smoke` is the short form that `make test` runs, and `make soak MINUTES=30` holds a load and prints
what grows. This page is written by `make faults`.

Every call is written down, and a checker reads the whole history afterwards, in the manner of Jepsen: each call ends
exactly once and within its deadline + 250 ms; every answer is, to the bit, what the same model gives for the same bytes
beside the server, under the call's own id; nothing answers that was not declared good; and versions never go back
unless they are rolled back. The checker refuses forged histories (`tests/test_bench_fault_checker.py`).
"""

TAIL = """\
The seed repeats what was done: `python -m bench.faults --seed N --only NAME`. A part that a machine cannot do
(no right to mount, no C compiler) says so instead of being left out.
"""


def publish(section: dict[str, Any], out: Path | None) -> str:
    """Returns the table, and writes page and figures into a folder, where there is one. Faults of an earlier run that
    were not injected again keep their rows there."""
    text = render(section)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        file = out / "reliability.json"
        if file.exists():
            section = renew(json.loads(file.read_text("utf-8")), section)
            text = render(section)
        file.write_text(json.dumps(section, indent=1) + "\n", "utf-8")
        (out / "reliability.md").write_text("\n".join([HEAD, text, TAIL]), "utf-8")
    return text


def renew(before: dict[str, Any], section: dict[str, Any]) -> dict[str, Any]:
    """A section with the faults of an earlier one that it has not, in the order of that."""
    now = {fault["name"]: fault for fault in section["faults"]}
    merged = [now.pop(fault["name"], fault) for fault in before["faults"]]
    return {**section, "faults": [*merged, *now.values()]}


def render(section: dict[str, Any]) -> str:
    """Machine, seed and table as Markdown."""
    faults = section["faults"]
    counts = {state: sum(one["state"] == state for one in faults) for state in ("kept", "BROKEN", "skipped")}
    summary = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    head = f"{format_machine(section['machine'], ' for server and callers together')}; {summary}."
    if section["room"] != 1:
        head += f" Times were allowed to be {section['room']:g} times as long as promised: others used the machine."
    rows = [
        (
            f"`{one['name']}` {escape(one['done'])}",
            escape(one["promise"]),
            escape(one["seen"]),
            one["state"],
            str(one["seed"]),
        )
        for one in faults
    ]
    table = render_table(("done", "promised", "seen", "", "seed"), rows).replace("---:", "---")
    return f"{head}\n\n{table}\n"


def escape(text: str) -> str:
    """A text that stays within its cell."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
