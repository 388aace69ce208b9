"""What a burst of large images leaves behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from proto import stroke_pb2 as pb
from tests.fakes import ServerProcess, encode, make_slice, run_server, wait_until

pytestmark = pytest.mark.timed

LARGE = np.tile(np.arange(250, dtype=np.uint8), (5000, 20))
"""25 megapixel, the most that is accepted."""


def read_rss(server: ServerProcess) -> float:
    """Resident memory in MB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text("ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_of_large_images_is_given_back(tiny_models: Path) -> None:
    """Hours after one careless export the server does not sit on a decoded image for each of its threads."""
    large = [encode(LARGE), encode(np.repeat(LARGE[:, :, np.newaxis], 3, axis=2), "JPEG"), encode(LARGE, "JPEG")]
    with run_server(tiny_models) as server, server.stub() as stub, ThreadPoolExecutor(8) as callers:

        def ask(image: bytes) -> str:
            return str(stub.Predict(pb.PredictRequest(image=image), timeout=120).label)

        list(callers.map(ask, [encode(make_slice())] * 50))
        before = read_rss(server)
        assert len(list(callers.map(ask, large * 4))) == 12

        wait_until(lambda: read_rss(server) < before + 40)
