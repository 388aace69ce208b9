"""``python -m bench.conversion``: converts well-known networks, each in a process of its own, and tells what it takes.

The networks are made first, in processes of their own too, and stay in build/bench for the next time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.conversion.measured import measure_command
from bench.conversion.networks import SLICES, list_builders
from bench.conversion.page import publish_conversion
from bench.processes import ROOT
from bench.report.machine import describe_machine, say
from bench.training.data import CLASSES, FOLDER, find_plain
from converter.cli import EXIT_NO_VARIANT
from server.flags import LineParser, parse_settings, setting
from server.process.children import run, run_main

NETWORKS = tuple(list_builders())
CONVERTER = (sys.executable, "-m", "converter")
PACKAGES = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class ConversionOptions:
    """What is measured."""

    only: tuple[str, ...] = setting(NETWORKS, "which", choices=NETWORKS, metavar="NAME")
    int8: bool = setting(False, "make the INT8 variants too, in conversions of their own (some minutes each)")
    out: Path | None = setting(None, "folder of convert.md, whose section is written anew (default: only print)")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; each network as soon as it is done."""
    parser = LineParser("python -m bench.conversion", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, ConversionOptions, argv)
    slices = find_plain(SLICES)
    text = ""
    for name in options.only:
        say(f"{name}: making it, unless it is there")
        model = make_apart(name)
        figures = {"fp32": measure_conversion(model, slices)}
        if options.int8:
            figures["int8"] = measure_conversion(model, slices, "--int8")
        say(f"{name}: {figures['fp32']['seconds']:.0f} s, {figures['fp32']['peak_mb']:,.0f} MB")
        text = publish_conversion(name, figures, describe_machine(PACKAGES), options.out)
        if options.out is None:
            print(text, flush=True)
    if options.out is not None:
        print(text)
    return 0


def make_apart(name: str) -> Path:
    """Returns the file of a network, made in another process unless it is there."""
    command = [sys.executable, "-m", "bench.conversion.networks", name]
    made = run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return Path(made.stdout.splitlines()[-1])


def measure_conversion(model: Path, slices: Path, *flags: str) -> dict[str, Any]:
    """Runs ``python -m converter`` into a folder that is thrown away.

    Args:
        model: the Keras file.
        slices: images of the proof.
        flags: more of its flags.

    Returns:
        Seconds of wall clock and CPU, peak memory in MB (2**20 bytes), and of the converter's own report: parity, size
        in bytes, the INT8 variant, and why there is none. If it installed nothing: ``refused``, its last words.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        measured = measure_command(
            (
                *(*CONVERTER, str(model), "-o", str(Path(folder) / "network" / "1"), "--json"),
                *("--labels", ",".join(CLASSES), "--positive", CLASSES[1], "--threshold", "0.5"),
                *("--images", str(slices), *flags),
            )
        )
    if measured.code not in (0, EXIT_NO_VARIANT):
        return {**measured.describe(), "refused": measured.last_words}
    report = json.loads(measured.printed)
    return {**measured.describe(), **{key: report[key] for key in ("parity", "size", "int8", "int8_failure")}}


if __name__ == "__main__":
    run_main(main)
