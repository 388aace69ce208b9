"""How long Ray waits for its own parts, where others use the machine, too: by default it gives up after seconds."""

from __future__ import annotations

import os

TIMES = {
    "RAY_raylet_start_wait_time_s": 300,
    "RAY_agent_register_timeout_ms": 300_000,
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": 120,
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": 120,
}
"""By the names of Ray's environment variables."""


def be_patient() -> None:
    """For this process and those that it starts. Before Ray is imported."""
    for name, time in TIMES.items():
        os.environ.setdefault(name, str(time))
