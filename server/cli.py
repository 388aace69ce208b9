"""``python -m server``: settings in, exit code out."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from server.config import read_config
from server.memory import return_freed_memory
from server.processors import count_processors


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the server. Returns 0 after a clean stop, 1 when it cannot serve; usage errors exit with 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["tune"]:
        from server.tune import main as tune

        return tune(arguments[1:])
    config = read_config(arguments)
    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("PIL").setLevel(logging.WARNING)  # below that it logs what is in EXIF tags: names, dates
    # gRPC's C core writes its own lines to standard error, also about what we report in one line of ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    return_freed_memory(count_processors())
    from server.app import serve  # here, so that --help and usage errors do not wait for grpc and ONNX Runtime

    return serve(config)
