"""Performers that kill themselves at a step, for tests of restarts: ``python -m tests.perform_driver``.

For each line of standard input (a JSON list of queue, URL and step) a process is forked, so that all is loaded once;
what ended it is printed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.perform import claim, task, worklist
from gateway.perform.service import Performer
from gateway.perform.settings import PerformConfig
from gateway.queue import files
from tests.gateway_box import make_written
from tests.perform_box import ReadyClient

STEPS: dict[str, tuple[Any, str, int, bool]] = {
    "claim half written": (files.os, "replace", 1, False),
    "claim written and not made": (worklist.Worklist, "change_state", 1, False),
    "claimed and not noted": (worklist.Worklist, "change_state", 1, True),
    "claimed": (claim.Claims, "write", 2, True),
    "image half written": (files.os, "replace", 4, False),
    "images there": (task, "ask", 1, False),
    "judged and not written": (task, "make_folder", 2, False),
    "results half written": (task, "move_folder", 1, False),
    "results written and not noted": (task, "move_folder", 1, True),
    "results noted": (claim.Claims, "write", 4, True),
    "stored and not remembered": (task.Task, "_send", 1, True),
    "remembered and not noted": (task.Endings, "remember", 1, True),
    "ready and not ended": (worklist.Worklist, "change_state", 2, False),
    "ended and not forgotten": (worklist.Worklist, "change_state", 2, True),
    "half forgotten": (files.shutil, "rmtree", 2, False),
}
"""Function by its owner, at which of its calls, and whether the process ends after it; otherwise in its place."""


def kill_at(step: str) -> None:
    """Has the process end as by a power cut when it comes to a step."""
    owner, name, number, is_after = STEPS[step]
    original: Callable[..., object] = getattr(owner, name)
    calls = iter(range(1, 1000))

    def end(*arguments: object, **options: object) -> object:
        is_it = next(calls) == number
        done = original(*arguments, **options) if is_after or not is_it else None
        if is_it:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(owner, name, end)


def perform(queue: str, url: str, step: str) -> int:
    """What a process does that is to be killed."""
    config = PerformConfig(worklist=url, queue=Path(queue), label="STROKE", once=True, least_free_mb=1)
    performer = Performer(config, ReadyClient(), make_written)  # type: ignore[arg-type]
    kill_at(step)
    return performer.run()


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.dup2(2, 1)
            os._exit(perform(*json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
