"""``python -m bench.dicom.syntaxes``: what a DICOM slice of 512 x 512 costs in each transfer syntax.

What the server's own process does keeps its lock, what a decoder does is the codec. Syntaxes take turns within a round.
A heartbeat, a thread that wants to wake up every millisecond, shows who holds Python's lock: how late it is while
slices are decoded in a process of their own, and by the same codec in the process that it lives in.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.dicom.frames import JPEG_2000, LOSSLESS, NEAR_LOSSLESS, compress, encode, make_file, make_words
from bench.report.dicom import NATIVE, render_codecs
from bench.report.figures import round_figures
from bench.report.machine import describe_machine
from bench.report.page import publish
from bench.serving.settings import ReportOptions
from client.cli.latencies import find_percentile
from server.flags import LineParser, parse_settings, setting
from server.images.dicom.codecs import decoders
from server.images.dicom.codecs.decoder import Decoder, make_command
from server.images.dicom.codecs.frames import limit_decoders
from server.images.dicom.codecs.pool import MEMORY_BYTES, SECONDS
from server.images.dicom.header import FrameShape
from server.images.dicom.window import BRAIN
from server.images.preprocess import InputFormat, load_pixels
from server.process.children import run_main

SHAPE = FrameShape(512, 512, 12, is_signed=False)
MODEL = InputFormat(256, 256, "grey", windows=(BRAIN,))
SYNTAXES = (*LOSSLESS, NEAR_LOSSLESS)
PACKAGES = ("pydicom", "python-gdcm", "pylibjpeg-openjpeg", "pillow", "numpy")
BEAT_SECONDS = 0.001


@dataclass(frozen=True)
class DicomOptions(ReportOptions):
    """What is measured."""

    slices: int = setting(20, "slices a round, for each syntax", least=2, most=10_000)


def measure_files(slices: int) -> dict[str, dict[str, float]]:
    """One round of whole files, from bytes to a model's input: milliseconds a slice, and of these what the server's own
    process computes, by transfer syntax."""
    plain = make_file(make_words(SHAPE), SHAPE)
    files = {NATIVE: plain, **{syntax: compress(plain, syntax) for syntax in SYNTAXES}}
    figures = {}
    for syntax, data in files.items():
        load_pixels(data, MODEL)
        started, computed = time.perf_counter(), time.process_time()
        for _ in range(slices):
            load_pixels(data, MODEL)
        figures[syntax] = {
            "ms": 1000 * (time.perf_counter() - started) / slices,
            "server_ms": 1000 * (time.process_time() - computed) / slices,
        }
    return figures


def measure_decoder(syntax: str, slices: int) -> dict[str, float]:
    """One round of a new decoder process: milliseconds until it has decoded its first frame, those that it computes
    for each one after that, and its memory then."""
    data = encode(syntax, make_words(SHAPE), SHAPE)
    started = time.perf_counter()
    decoder = Decoder(make_command(MEMORY_BYTES, SECONDS))
    try:
        decoder.ask(syntax, data, SHAPE, SECONDS)
        first = time.perf_counter() - started
        before = read_computed(decoder.pid)
        for _ in range(slices):
            decoder.ask(syntax, data, SHAPE, SECONDS)
        computed = read_computed(decoder.pid) - before
        resident = int(Path(f"/proc/{decoder.pid}/statm").read_text().split()[1]) * 4096
    finally:
        decoder.end()
    return {"first_ms": 1000 * first, "decoder_ms": 1000 * computed / slices, "decoder_mb": resident / 1e6}


def read_computed(pid: int) -> float:
    """Seconds that a process of one thread has computed."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def measure_beats(work: Callable[[], object], slices: int) -> float:
    """The 99th percentile of how late a heartbeat is, in milliseconds, while work is done so many times."""
    late: list[float] = []
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.is_set():
            started = time.perf_counter()
            time.sleep(BEAT_SECONDS)
            late.append(1000 * (time.perf_counter() - started - BEAT_SECONDS))

    thread = threading.Thread(target=beat)
    thread.start()
    for _ in range(slices):
        work()
    is_over.set()
    thread.join()
    return find_percentile(sorted(late), 99)


def measure_heartbeat(slices: int) -> dict[str, float]:
    """One round with nothing to do, with decoders and without."""
    plain = make_file(make_words(SHAPE), SHAPE)
    packed = compress(plain, JPEG_2000)
    frame = encode(JPEG_2000, make_words(SHAPE), SHAPE)
    return {
        "idle": measure_beats(lambda: time.sleep(0.03), slices),
        "in decoders": measure_beats(lambda: load_pixels(packed, MODEL), slices),
        "in the server's process": measure_beats(lambda: decoders.decode(JPEG_2000, frame, SHAPE), slices),
    }


def measure(rounds: int, slices: int) -> dict[str, Any]:
    """All figures, one value a round."""
    limit_decoders(1)
    syntaxes: dict[str, dict[str, list[float]]] = {}
    beats: dict[str, list[float]] = {}
    for _ in range(rounds):
        for syntax, figures in measure_files(slices).items():
            if syntax != NATIVE:
                figures |= measure_decoder(syntax, slices)
            for name, value in figures.items():
                syntaxes.setdefault(syntax, {}).setdefault(name, []).append(value)
        for name, value in measure_heartbeat(slices).items():
            beats.setdefault(name, []).append(value)
    return {"syntaxes": syntaxes, "heartbeat_p99_ms": beats}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = LineParser("python -m bench.dicom.syntaxes", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, DicomOptions, argv)
    section = {
        "machine": describe_machine(PACKAGES),
        "rounds": options.rounds,
        "slices": options.slices,
        "memory_bytes": MEMORY_BYTES,
        **measure(options.rounds, options.slices),
    }
    print(publish("dicom", section, options.out))
    if options.out is not None:
        put_into_page(render_codecs(round_figures(section)), options.out / "dicom.md")
    return 0


def put_into_page(table: str, page: Path) -> None:
    """Puts the table into a page in place of the one that it has, if there is such a page."""
    if page.exists():
        head = re.escape(table.partition("\n")[0])
        text = re.sub(rf"{head}\n(\|.*\n)+", lambda match: f"{table}\n", page.read_text("utf-8"))
        page.write_text(text, "utf-8")


if __name__ == "__main__":
    run_main(main)
