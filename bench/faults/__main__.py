"""``make faults``: injects faults into real servers on this machine, and says which promises were kept.

Prints a line for each fault: what was done, what was promised, what was seen. Exits with 1 when a promise was broken;
its history is saved then. ``--soak`` holds a load instead, and prints what grows.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.faults.matrix import FAULTS
from bench.faults.page import publish
from bench.faults.rig import Fault, Rig, Scale, Shared
from bench.faults.soak import soak
from bench.report.machine import describe_machine, say
from server.flags import LineParser, parse_settings, require, setting
from server.process.children import run_main

SMOKE_ROOM = 5.0
"""Times of a smoke run, which others may disturb."""


@dataclass(frozen=True)
class FaultOptions:
    """What is injected, and how it is judged."""

    smoke: bool = setting(False, "the short forms of some faults, in less than two minutes")
    only: tuple[str, ...] = setting((), "faults by name, such as kill,term", separator=",")
    seed: int = setting(0, "repeats a run; 0: another one each time", least=0, most=2**32 - 1)
    models: Path = setting(Path("models"), "folder of the model to serve")
    images: Path = setting(Path("samples"), "folder of images to send")
    room: float = setting(
        0.0, "times may be so many times as long as promised; 0: 1, in a smoke run 5", least=0, most=1000
    )
    soak: float = setting(0.0, "hold a load for so many minutes instead, and print what grows", least=0, most=100_000)
    out: Path | None = setting(
        None, "folder for reliability.md and .json; with --only the rows of other faults stay (default: only print)"
    )
    histories: Path = setting(Path("build/faults"), "folder for the histories of broken promises", metavar="DIR")
    json: bool = setting(False, "print JSON")

    def __post_init__(self) -> None:
        unknown = set(self.only) - {fault.name for fault in FAULTS}
        known = ", ".join(fault.name for fault in FAULTS)
        require(not unknown, "only", f"must be some of {known}; got {', '.join(sorted(unknown))}")

    def choose_faults(self) -> list[Fault]:
        """What is injected, in its order."""
        if self.only:
            return [fault for fault in FAULTS if fault.name in self.only]
        return [fault for fault in FAULTS if fault.in_smoke or not self.smoke]


def inject(fault: Fault, scale: Scale, shared: Shared, histories: Path) -> dict[str, Any]:
    """Injects a fault in a folder of its own, and returns what came of it."""
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"strokeserve-{fault.name}-"))
    try:
        rig = Rig(fault, folder, scale, shared)
        try:
            fault.inject(rig)
        except Exception as error:
            rig.check(False, f"it could not be done to its end: {type(error).__name__}: {error}")
        verdict = rig.judge()
        if not verdict.is_kept:
            histories.mkdir(parents=True, exist_ok=True)
            rig.history.save(histories / f"{fault.name}.jsonl")
            for log in folder.glob("server-*.log"):
                shutil.copy(log, histories / f"{fault.name}-{log.name}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "name": fault.name,
        "done": fault.done,
        "promise": fault.promise,
        "state": verdict.state,
        "seen": verdict.describe(),
        "findings": [asdict(finding) for finding in verdict.findings],
        "skipped": verdict.skipped,
        "seconds": round(time.monotonic() - started, 1),
        "seed": scale.seed,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Injects faults. Returns 0 when every promise was kept, otherwise 1."""
    parser = LineParser("python -m bench.faults", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, FaultOptions, argv)
    seed = options.seed or random.SystemRandom().randrange(1, 2**32)
    scale = Scale(
        is_smoke=options.smoke,
        room=options.room or (SMOKE_ROOM if options.smoke else 1.0),
        seed=seed,
        models=options.models,
        images=options.images,
    )
    say(f"seed {seed}" + (f", times may be {scale.room:g} times as long as promised" if scale.room != 1 else ""))
    if options.soak:
        return soak(scale, options.soak, as_json=options.json)
    results = []
    shared = Shared()
    for fault in options.choose_faults():
        result = inject(fault, scale, shared, options.histories)
        results.append(result)
        line = f"{result['name']:<14}{result['state']:<8}{result['done']}; promised: {result['promise']}"
        say(f"{line}; seen: {result['seen']} ({result['seconds']:g} s)")
    section = {"machine": describe_machine(), "room": scale.room, "faults": results}
    text = publish(section, options.out)
    print(json.dumps(section, indent=1) if options.json else text)
    return 0 if all(result["state"] != "BROKEN" for result in results) else 1


if __name__ == "__main__":
    run_main(main)
