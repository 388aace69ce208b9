"""``make demo``: starts the server on a free port, classifies the samples with the client, and stops the server.

It is not in ``samples/``, where the client would count it as a file that was left out.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from server.process.children import run, run_main, start

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Returns 0 when the server started, all samples were answered and the server stopped cleanly."""
    server = start(
        [sys.executable, "-m", "server", "--port", "0", "--log-level", "warning"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    with server.stdout:
        banner = server.stdout.readline().strip()  # empty when it could not start; it has said why
        if not banner:
            return int(server.wait())
        try:
            print(banner, flush=True)
            address = banner.rsplit(" ", 1)[1]
            answered = run([sys.executable, "-m", "client", "samples", "--server", address], cwd=ROOT).returncode
        finally:
            server.terminate()
            ended = server.wait()
        return int(answered or ended)


if __name__ == "__main__":
    run_main(main)
