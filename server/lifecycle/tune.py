"""``python -m server tune``: measures what this very machine does best, and writes it down for ``--profile tuned``.

Each way is measured as the server uses it, with decoding, through the detector, but without gRPC: one caller at a time
for the latency, then many callers for the throughput. The ways take turns, because machines drift.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from PIL import Image

from server.config import ServerConfig
from server.core.detector import Budget, Detector
from server.core.plan import Plan, check_place, describe_basis, find_place, list_tuned, write_tuning
from server.errors import ModelFileError
from server.flags import LineParser, add_settings, check_settings, read_settings, setting
from server.machine.processors import count_processors, is_suited
from server.models.engines.engine import EngineOptions
from server.models.golden import make_golden_input
from server.models.manifest import INT8_FILE, read_manifest
from server.models.registry import ModelRegistry
from server.process.console import complain, say
from server.process.program import EXIT_INTERRUPTED, watch_interrupts

IMAGE_SIDE = 512
"""Side of the image that is judged, in pixels: that of a usual CT slice."""

ROUNDS = 3
CALLERS_PER_WORKER = 4
LEAST_GAIN = 1.03
"""A way must be so much better than the one before it in the list to be chosen: less is noise."""

SETTINGS = ("models", "model", "runtime", "cache", "log_level")
"""Settings of the server that matter here."""


@dataclass(frozen=True)
class TuneConfig:
    """What is set of a tuning alone."""

    seconds: float = setting(60.0, "how long, about", least=0.1, most=3600)
    json: bool = setting(False, "print one JSON object instead of a table")

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass
class Measurement:
    """One way, and what was measured of it, round by round."""

    choice: EngineOptions
    detector: Detector
    latencies: list[float] = field(default_factory=list)
    """Medians with one caller, in milliseconds."""

    rates: list[float] = field(default_factory=list)
    """Images a second with many callers."""

    @property
    def latency_ms(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.latencies)

    @property
    def rate(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.rates)

    @property
    def score(self) -> float:
        """What is to be as large as possible: twice the speed for many is worth twice the speed for one."""
        return self.rate / self.latency_ms


def main(argv: Sequence[str]) -> int:
    """Tunes. Returns 0, 1 when the model cannot be served or the file cannot be written, 130 after Ctrl-C."""
    parser = build_parser()
    options = parser.parse_args(argv)
    config = read_settings(parser, options, ServerConfig, SETTINGS, os.environ)
    tuning = read_settings(parser, options, TuneConfig)
    is_interrupted = watch_interrupts()
    try:
        folder, path = find_place(config)
        check_place(path)  # now, and not after a minute of measuring
        measurements = measure_all(config, tuning.seconds, tell_progress, is_interrupted)
        best = choose(measurements)
        write_tuning(path, describe_basis(folder, config.runtime), best.choice)
    except ModelFileError as error:
        complain(f"server tune: error: {error.message} [{error.reason}]")
        return 1
    except KeyboardInterrupt:
        complain("server tune: interrupted: nothing was written")
        return EXIT_INTERRUPTED
    # What it has found is in the file by now, whether or not anybody reads this.
    if tuning.json:
        rows = [{**list_tuned(m.choice), "latency_ms": m.latency_ms, "images_per_second": m.rate} for m in measurements]
        say(json.dumps({"measured": rows, "choice": list_tuned(best.choice), "file": str(path)}))
    else:
        say(f"{render(measurements, best)}\n\nwritten to {path}; serve with: python -m server --profile tuned")
    return 0


def tell_progress(text: str) -> None:
    """Prints a line beside the result."""
    complain(text)


def build_parser() -> LineParser:
    """The command line of ``python -m server tune``."""
    parser = LineParser(
        prog="python -m server tune",
        description="Measures precisions, threads and workers on this machine, for 'python -m server --profile tuned'.",
        epilog=(
            "examples:\n"
            "  python -m server tune\n"
            "  python -m server tune --model stroke-cnn/4 --seconds 20 --json\n\n"
            "Stop what else runs on the machine: what is measured beside other work is valid beside other work.\n"
            "Run it again when the model, the processor or the runtime has changed; the server says so.\n"
            "Exit codes: 0 tuned, 1 the model cannot be served or the file cannot be written, 2 usage, 130 Ctrl-C."
        ),
    )
    add_settings(parser, ServerConfig, SETTINGS)
    add_settings(parser, TuneConfig)
    return parser


def list_choices(base: EngineOptions, precisions: Sequence[str], processors: int) -> list[EngineOptions]:
    """Ways worth a measurement on a machine; of those that are alike the default comes first."""
    found: dict[EngineOptions, None] = {}
    for precision in precisions:
        for threads, busy_threads in ((processors, 1), (1, 1), (processors, processors)):
            for workers in (processors, processors + 1):
                choice = replace(base, precision=precision, threads=threads, busy_threads=busy_threads, workers=workers)
                found[choice] = None
    return list(found)


def measure_all(
    config: ServerConfig,
    seconds: float,
    tell: Callable[[str], None],
    is_interrupted: Callable[[], bool] = lambda: False,
) -> list[Measurement]:
    """Loads the model in every way and measures all in turns.

    Raises:
        ModelFileError: it cannot be served.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    folder, _ = find_place(config)
    processors = count_processors()
    record = read_manifest(folder).files.get(INT8_FILE)
    has_int8 = record is not None and is_suited(record.target)
    measurements = []
    registries: dict[EngineOptions, ModelRegistry] = {}
    base = EngineOptions(runtime=config.runtime, cache=config.cache_folder)
    for choice in list_choices(base, ["int8", "fp32"] if has_int8 else ["fp32"], processors):
        loaded = replace(choice, workers=processors)  # a model is the same for any number of workers
        if loaded not in registries:
            registries[loaded] = ModelRegistry()
            registries[loaded].load(config.models, f"{folder.parent.name}/{folder.name}", loaded)
            if is_interrupted():
                raise KeyboardInterrupt
        queue = choice.workers * CALLERS_PER_WORKER
        measurements.append(Measurement(choice, Detector(registries[loaded], Plan("tune", choice), queue=queue)))
    image = make_image()
    part = seconds / (ROUNDS * len(measurements) * 2)
    for number in range(ROUNDS):
        for measurement in measurements:
            measure(measurement, image, part, is_interrupted)
        tell(f"round {number + 1}/{ROUNDS} done")
    return measurements


def make_image() -> bytes:
    """A PNG of the size of a CT slice."""
    buffer = io.BytesIO()
    Image.fromarray(make_golden_input(0, IMAGE_SIDE, IMAGE_SIDE, 1)[:, :, 0]).save(buffer, "PNG")
    return buffer.getvalue()


def measure(measurement: Measurement, image: bytes, seconds: float, is_interrupted: Callable[[], bool]) -> None:
    """Adds one round: ``seconds`` with one caller and as long with many.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """

    def call_until(end: float) -> list[float]:
        latencies: list[float] = []
        while not latencies or (time.monotonic() < end and not is_interrupted()):
            started = time.monotonic()
            measurement.detector.detect(image, Budget(600))
            latencies.append(1000 * (time.monotonic() - started))
        return latencies

    measurement.latencies.append(statistics.median(call_until(time.monotonic() + seconds)))
    callers = measurement.choice.workers * CALLERS_PER_WORKER
    with ThreadPoolExecutor(callers) as pool:
        started = time.monotonic()
        done = sum(len(latencies) for latencies in pool.map(call_until, [started + seconds] * callers))
        measurement.rates.append(done / (time.monotonic() - started))
    if is_interrupted():
        raise KeyboardInterrupt


def choose(measurements: Sequence[Measurement]) -> Measurement:
    """The best; of those that differ by noise alone the first."""
    best = measurements[0]
    for measurement in measurements[1:]:
        if measurement.score > LEAST_GAIN * best.score:
            best = measurement
    return best


def render(measurements: Sequence[Measurement], best: Measurement) -> str:
    """The table, the choice marked."""
    lines = [f"  {'precision':10}{'threads':>8}{'when busy':>11}{'workers':>9}{'alone, ms':>11}{'images/s':>10}"]
    for measurement in measurements:
        choice = measurement.choice
        lines.append(
            f"{'*' if measurement is best else ' '} {choice.precision:10}{choice.threads:8}{choice.busy_threads:11}"
            f"{choice.workers:9}{measurement.latency_ms:11.1f}{measurement.rate:10.1f}"
        )
    return "\n".join(lines)
