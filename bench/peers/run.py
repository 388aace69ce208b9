"""A peer as a process: installed, started, known to answer, stopped with all that it started."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.peers.catalogue import Peer, Setting
from bench.processes import ROOT, Service, find_ports, list_tree
from bench.serving.targets import connect_http
from server.process.children import run, start

START_SECONDS = 90
STOP_SECONDS = 10


@dataclass(frozen=True)
class Side:
    """A peer as it is measured: with a model file, a decoder and a setting."""

    peer: Peer
    model: Path
    setting: Setting
    pixels: str = "pillow"


def install(peer: Peer) -> None:
    """Makes the peer's environment from its pinned requirements, unless it is there already."""
    wanted = peer.folder / "requirements.txt"
    installed = peer.build / "requirements.txt"
    if installed.exists() and installed.read_bytes() == wanted.read_bytes():
        return
    shutil.rmtree(peer.environment, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(peer.environment)], check=True)
    pip = [str(peer.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "-r", str(wanted)], check=True)
    shutil.copyfile(wanted, installed)  # the last step, so that a broken installation is not taken for a whole one


@contextmanager
def run_peer(side: Side, image: bytes) -> Iterator[tuple[Service, float]]:
    """Runs a peer; yields it when it has answered, with the seconds that this took from its start."""
    port, web_port, metrics_port = find_ports(3)
    workers, threads = side.setting
    settings = {
        "PEER_MODEL": str(side.model),
        "PEER_PORT": str(port),
        "PEER_WORKERS": str(workers),
        "PEER_THREADS": str(threads),
        "PEER_PIXELS": side.pixels,
        "PEER_PRECISION": side.peer.precision,
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "BENTOML_CONFIG_OPTIONS": "api_server.logging.access.enabled=false",
        "BENTOML_DO_NOT_TRACK": "True",
        "MLSERVER_GRPC_PORT": str(port),
        "MLSERVER_HTTP_PORT": str(web_port),
        "MLSERVER_METRICS_PORT": str(metrics_port),
        # One worker means to MLServer a second process beside its own; none is faster where one process is wanted.
        "MLSERVER_PARALLEL_WORKERS": str(workers if workers > 1 else 0),
        "MLSERVER_DEBUG": "false",
    }
    ready = f"127.0.0.1:{web_port if side.peer.target == 'mlserver' else port}"
    with (side.peer.build / "server.log").open("w") as log:
        started = time.monotonic()
        process = start(
            side.peer.command(port),
            cwd=side.peer.build,
            env={**os.environ, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while not answers(side.peer, ready, image):
                if process.poll() is not None or time.monotonic() > started + START_SECONDS:
                    raise RuntimeError(f"{side.peer.title} did not start: see {log.name}")
                time.sleep(0.01)
            yield Service(process.pid, f"127.0.0.1:{port}"), time.monotonic() - started
        finally:
            stop(process)


def answers(peer: Peer, address: str, image: bytes) -> bool:
    """Whether a peer judges an image; for MLServer, whether it says that it would."""
    try:
        if peer.target == "http":
            with connect_http(address) as call:
                call(image)
            return True
        connection = http.client.HTTPConnection(address, timeout=5)
        connection.request("GET", "/v2/models/stroke/ready")
        ready = connection.getresponse().status == 200
        connection.close()
        return ready
    except (OSError, http.client.HTTPException, RuntimeError):
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all that it started, gently at first."""
    tree = list_tree(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for member in tree:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
