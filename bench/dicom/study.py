"""``python -m bench.dicom.study``: a study by PredictStudy beside the same slices one by one by PredictBatches.

Both sides send the same bytes to the same server in turn. What the server's processors do is what counts: a study must
not cost much more than its slices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import grpc

from bench.processes import Service, run_server
from bench.report.machine import describe_machine
from bench.report.page import publish
from bench.training.data import make_once
from proto import stroke_pb2 as pb
from proto.stroke_pb2_grpc import StrokeServiceStub
from server.flags import LineParser, parse_settings, setting
from server.process.children import run_main

BATCH = 4
"""Slices in a message of PredictBatches: 2 MB, as the client would send."""


DRAWN = 24
"""Slices of a drawn study."""


@dataclass(frozen=True)
class StudyOptions:
    """What is measured."""

    study: Path | None = setting(None, "folder of DICOM files of head CTs (default: drawn ones, 512 x 512)")
    models: Path = setting(Path("models"), "folder of models; the only one must judge studies")
    slices: int = setting(300, "slices of the study; files are sent again where there are fewer", least=1, most=2000)
    rounds: int = setting(7, "rounds", least=1, most=1000)
    out: Path | None = setting(None, "folder of the report, whose other sections stay (default: only print)")


def draw_study() -> Path:
    """A study of drawn slices; it is kept for the next time."""
    from training.phantom.dataset import write_dataset

    return make_once(
        f"study-{DRAWN}",
        lambda folder: write_dataset(folder, DRAWN, 7, size=512, slices_per_patient=DRAWN, dicom=True),
    )


def read_study(folder: Path, count: int) -> list[bytes]:
    """So many files of a folder, in turn."""
    files = [path.read_bytes() for path in sorted(folder.rglob("*.dcm"))]
    if not files:
        raise SystemExit(f"bench: no *.dcm in {folder}")
    return list(islice(cycle(files), count))


def send_study(stub: StrokeServiceStub, files: Sequence[bytes]) -> int:
    """All slices as one study. Returns how many were judged, if the study was answered."""
    answer = stub.PredictStudy(pb.PredictStudyRequest(image=file) for file in files)
    judged = [one for one in answer.slices if not one.HasField("error")]
    return len(judged) if answer.label or answer.reasons else 0


def send_batches(stub: StrokeServiceStub, files: Sequence[bytes]) -> int:
    """All slices by themselves. Returns how many were judged."""

    def make() -> Iterator[pb.PredictBatchesRequest]:
        for begin in range(0, len(files), BATCH):
            yield pb.PredictBatchesRequest(
                requests=[pb.PredictRequest(image=file) for file in files[begin : begin + BATCH]]
            )

    return sum(one.HasField("response") for message in stub.PredictBatches(make()) for one in message.responses)


SIDES: dict[str, Callable[[StrokeServiceStub, Sequence[bytes]], int]] = {
    "study": send_study,
    "batches": send_batches,
}


def measure(service: Service, files: Sequence[bytes], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds and CPU seconds of the server of each side, one value a round; the sides take turns."""
    found: dict[str, dict[str, list[float]]] = {side: {"seconds": [], "cpu_s": []} for side in SIDES}
    with grpc.insecure_channel(service.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        stub = StrokeServiceStub(channel)
        for send in SIDES.values():
            send(stub, files[:BATCH])  # what is loaded at first is no side's
        for number in range(rounds):
            for side in list(SIDES)[:: -1 if number % 2 else 1]:
                started, cpu = time.monotonic(), service.cpu_seconds()
                if SIDES[side](stub, files) != len(files):
                    raise SystemExit(f"bench: not all slices were judged by {side}")
                found[side]["seconds"].append(time.monotonic() - started)
                found[side]["cpu_s"].append(service.cpu_seconds() - cpu)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = LineParser("python -m bench.dicom.study", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, StudyOptions, argv)
    files = read_study(options.study or draw_study(), options.slices)
    with run_server(options.models) as service:
        sides = measure(service, files, options.rounds)
    section: dict[str, Any] = {
        "machine": describe_machine(),
        "slices": len(files),
        "slice_kb": sum(map(len, files)) / len(files) / 1000,
        "rounds": options.rounds,
        "sides": sides,
    }
    print(publish("study", section, options.out))
    return 0


if __name__ == "__main__":
    run_main(main)
