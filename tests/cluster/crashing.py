"""``python -m tests.cluster.crashing INPUT OUT MODELS``: ``python -m cluster score`` whose decoder has a fault, so that
some files kill the process that judges them, as a crafted file would.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from cluster.archive.command import score
from cluster.archive.judge import Job, Judge
from cluster.archive.settings import ScoreConfig
from cluster.bench.patience import be_patient
from server.config import ServerConfig

DEADLY = b"deadly"
"""With what such files end; decoders pass it over."""

PARTITION_FILES = 8


class CrashingJudge(Judge):
    """Dies of a segmentation fault at deadly files."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        detect = self._detector.detect_here

        def detect_or_die(data: bytes, *rest: Any) -> Any:
            if data.endswith(DEADLY):
                os.kill(os.getpid(), signal.SIGSEGV)
            return detect(data, *rest)

        self._detector.detect_here = detect_or_die  # type: ignore[method-assign]


if __name__ == "__main__":
    be_patient()
    source, out, models = sys.argv[1:4]
    config = ScoreConfig(input=source, out=out, json=True, partition_files=PARTITION_FILES, workers=2)
    sys.exit(score(config, ServerConfig(models=Path(models), cache="off"), CrashingJudge))
