"""Server processes whose standard output and error are not what a program hopes for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from proto import stroke_pb2_grpc
from tests.fakes import ROOT, wait_until

SERVING = health_pb2.HealthCheckResponse.SERVING


@contextmanager
def run_badly(
    models: Path, socket: Path, *flags: str, shell: str = "", **options: object
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server on a socket file: nothing of what it prints is needed to find it.

    Args:
        models: what it serves.
        socket: where.
        flags: more of its flags.
        shell: redirections as a shell writes them, such as ``>&-``.
        options: of ``subprocess.Popen``.
    """
    command = [sys.executable, "-m", "server", "--models", str(models), "--host", f"unix:{socket}", *flags]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    environment = {**os.environ, **options.pop("env", {})}  # type: ignore[dict-item]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def open_stub(socket: Path) -> Iterator[tuple[stroke_pb2_grpc.StrokeServiceStub, health_pb2_grpc.HealthStub]]:
    """Stubs of a server that has a moment to start."""
    with grpc.insecure_channel(f"unix:{socket}", options=[("grpc.max_reconnect_backoff_ms", 200)]) as channel:
        yield stroke_pb2_grpc.StrokeServiceStub(channel), health_pb2_grpc.HealthStub(channel)


def wait_until_serving(health: health_pb2_grpc.HealthStub) -> None:
    """Polls until health says SERVING."""

    def is_serving() -> bool:
        try:
            return bool(health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == SERVING)
        except grpc.RpcError:
            return False

    wait_until(is_serving)


def stop(process: subprocess.Popen[bytes], timeout: float = 15.0) -> int:
    """Asks for a clean stop; returns the exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout)
