"""``make demo``: starts the server on a free port, classifies the samples with the client, and stops the server.

It is not in ``samples/``, where the client would count it as a file that was left out.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Returns 0 when the server started, all samples were answered and the server stopped cleanly."""
    server = subprocess.Popen(
        [sys.executable, "-m", "server", "--port", "0", "--log-level", "warning"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    with server.stdout:
        banner = server.stdout.readline().strip()  # empty when it could not start; it has said why
        if not banner:
            return server.wait()
        print(banner, flush=True)
        address = banner.rsplit(" ", 1)[1]
        answered = subprocess.run([sys.executable, "-m", "client", "samples", "--server", address], cwd=ROOT).returncode
        server.send_signal(signal.SIGTERM)
        return answered or server.wait()


if __name__ == "__main__":
    sys.exit(main())
