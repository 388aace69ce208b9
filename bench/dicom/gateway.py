"""``python -m bench.dicom.gateway``: studies from many senders through the gateway and the server, to their results.

Senders are dcmtk's ``storescu``, each with studies of its own, one after the other. What is measured is the whole way:
from the first instance to the last result, the CPU time of both processes, and whether the gateway's memory grows.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from bench.dicom.study import draw_study, read_study
from bench.processes import INTERVAL, ROOT, Service, find_ports, run_server
from server.flags import LineParser, parse_settings, setting
from server.process.children import run, run_main, start

UID_ROOT = "2.25.4711"
TITLE = "STROKESERVE"


@dataclass(frozen=True)
class GatewayOptions:
    """What is sent."""

    study: Path | None = setting(None, "folder of DICOM files of head CTs (default: drawn ones, 512 x 512)")
    models: Path = setting(Path("models"), "folder of models; the only one must judge studies")
    studies: int = setting(60, "studies", least=1, most=100_000)
    slices: int = setting(35, "slices of each", least=1, most=2000)
    senders: int = setting(8, "senders at the same time", least=1, most=64)
    quiet_seconds: float = setting(2.0, "seconds after which a study is complete", least=0.5, most=60)


@dataclass
class Measured:
    """What a run has shown."""

    studies: int
    slices: int
    seconds: float = 0.0
    gateway_cpu: float = 0.0
    server_cpu: float = 0.0
    refused: int = 0
    """Calls of storescu that failed."""

    resident_mb: list[float] = field(default_factory=list)
    """Of the gateway, in the course of the run."""

    def render(self) -> str:
        """Lines for people."""
        half = self.resident_mb[len(self.resident_mb) // 2 :] or [0.0]
        return (
            f"{self.studies} studies of {self.slices} slices in {self.seconds:.1f} s: "
            f"{60 * self.studies / self.seconds:.1f} studies a minute, {self.refused} refused\n"
            f"CPU time of a study: gateway {self.gateway_cpu / self.studies:.2f} s, "
            f"server {self.server_cpu / self.studies:.2f} s; two processors have time for "
            f"{120 / ((self.gateway_cpu + self.server_cpu) / self.studies):.0f} a minute\n"
            f"memory of the gateway: {half[0]:.0f} MB in the middle, {half[-1]:.0f} MB at the end, "
            f"{max(self.resident_mb, default=0.0):.0f} MB at most"
        )


def find_storescu() -> str:
    """dcmtk's, since pynetdicom brings another program of that name; empty where there is none."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        program = shutil.which("storescu", path=folder)
        if program and b"dcmtk" in run([program, "--version"], capture_output=True, check=False).stdout:
            return program
    return ""


def write_study(folder: Path, number: int, files: Sequence[bytes]) -> None:
    """A study of its own made of slices that may be those of others: with new UIDs and places."""
    folder.mkdir()
    for index, file in enumerate(files):
        dataset = pydicom.dcmread(io.BytesIO(file))
        dataset.StudyInstanceUID = f"{UID_ROOT}.{number}"
        dataset.SeriesInstanceUID = f"{UID_ROOT}.{number}.1"
        uid = pydicom.uid.UID(f"{UID_ROOT}.{number}.1.{index + 1}")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        dataset.ImagePositionPatient = [0, 0, 5.0 * index]
        dataset.save_as(folder / f"{index}.dcm")


@contextmanager
def run_gateway(folder: Path, server: str, quiet: float) -> Iterator[Service]:
    """A gateway whose queue and results are in a folder."""
    (folder / "results").mkdir()
    (port,) = find_ports(1)
    command = [sys.executable, "-m", "gateway", "listen", "--queue", str(folder / "queue")]
    command += ["--folder-to", str(folder / "results"), "--dicom-port", str(port), "--server", server]
    command += ["--quiet-seconds", str(quiet), "--log-level", "warning"]
    with start(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise SystemExit("bench: the gateway did not start")
            yield Service(process.pid, f"127.0.0.1:{port}")
        finally:
            process.terminate()


def send_studies(options: GatewayOptions, folder: Path, gateway: Service, files: Sequence[bytes]) -> int:
    """Sends all studies, each sender one after the other. Returns how many calls failed."""
    program = find_storescu()
    host, _, port = gateway.address.rpartition(":")

    def send(number: int) -> int:
        study = folder / f"study-{number}"
        write_study(study, number, files)
        command = [program, "-aec", TITLE, host, port, "+sd", str(study)]
        code = run(command, capture_output=True, check=False).returncode
        shutil.rmtree(study)
        return int(code != 0)

    with ThreadPoolExecutor(options.senders) as senders:
        return sum(senders.map(send, range(options.studies)))


def measure(options: GatewayOptions, files: Sequence[bytes]) -> Measured:
    """Runs everything once, until the last study has its results."""
    found = Measured(options.studies, len(files))
    stop = threading.Event()
    with (
        tempfile.TemporaryDirectory(prefix="bench-gateway-") as root,
        run_server(options.models) as server,
        run_gateway(Path(root), server.address, options.quiet_seconds) as gateway,
    ):

        def watch() -> None:
            while not stop.wait(INTERVAL):
                found.resident_mb.append(gateway.resident_mb())

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.monotonic()
        cpu = gateway.cpu_seconds(), server.cpu_seconds()
        try:
            found.refused = send_studies(options, Path(root), gateway, files)
            wanted = options.studies - found.refused
            while len(list((Path(root) / "results").glob("*-sr.dcm"))) < wanted:
                if not gateway.resident_mb():
                    raise SystemExit("bench: the gateway has ended")
                time.sleep(INTERVAL)
        finally:
            stop.set()
            watcher.join()
        found.seconds = time.monotonic() - began
        found.gateway_cpu = gateway.cpu_seconds() - cpu[0]
        found.server_cpu = server.cpu_seconds() - cpu[1]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = LineParser("python -m bench.dicom.gateway", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, GatewayOptions, argv)
    if not find_storescu():
        parser.error("dcmtk's storescu is not installed (Debian: apt install dcmtk)")
    print(measure(options, read_study(options.study or draw_study(), options.slices)).render())
    return 0


if __name__ == "__main__":
    run_main(main)
