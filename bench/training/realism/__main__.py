"""``python -m bench.training.realism``: what the generator of synthetic slices draws, beside published figures.

Heads of its own seed are drawn by the generator's own functions and measured with masks of this package. Nothing is
changed in the generator by it, and no real slice is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report.figures import round_figures
from bench.report.machine import describe_machine, say
from bench.training.realism.brain import measure_brain
from bench.training.realism.heads import SEED
from bench.training.realism.page import describe_values, write_realism
from bench.training.realism.published import PUBLISHED
from bench.training.realism.scanner import measure_noise, measure_slice_thickness, measure_windows
from bench.training.realism.shapes import Measured, measure_lesions, measure_skulls
from bench.training.realism.tissues import measure_calcifications, measure_lesion_densities, measure_tissues
from server.flags import REQUIRED, LineParser, parse_settings, setting
from server.process.children import run_main
from training.phantom.dicom_file import require_pydicom

KINDS_SHARE = 4
"""Lesions are drawn as many times as often as heads, and slices for the amount of brain: there are six kinds."""


@dataclass(frozen=True)
class RealismOptions:
    """What is measured."""

    out: Path = setting(REQUIRED, "folder for phantom.md and phantom.json")
    heads: int = setting(300, "heads of each measurement (a minute of one processor)", least=60, most=1_000_000)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures everything and writes the page."""
    parser = LineParser("python -m bench.training.realism", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, RealismOptions, argv)
    try:
        require_pydicom()
        options.out.mkdir(parents=True, exist_ok=True)  # what cannot be written is told before minutes of measuring
    except (ValueError, OSError) as error:
        parser.error(str(error))
    write_realism(round_figures(measure_generator(options.heads)), options.out)
    return 0


def measure_generator(heads: int) -> dict[str, Any]:
    """Returns the document that the page is made from."""
    values: dict[str, list[float]] = defaultdict(list)
    for name, value in measure_figures(heads):
        values[name].append(value)
    return {
        "machine": describe_machine(("numpy", "scipy", "pillow")),
        "seed": SEED,
        "heads": heads,
        "slices": KINDS_SHARE * heads,
        "figures": {name: describe_values(values[name], published) for name, published in PUBLISHED.items()},
        "brain": measure_brain(KINDS_SHARE * heads),
    }


def measure_figures(heads: int) -> Iterator[Measured]:
    """Every value of every figure, in the order in which they are measured."""
    for what, count, measured in (
        ("tissues", heads, measure_tissues(heads)),
        ("CT values of lesions", KINDS_SHARE * heads, measure_lesion_densities(KINDS_SHARE * heads)),
        ("calcifications", heads, measure_calcifications(heads)),
        ("skulls and ventricles", heads, measure_skulls(heads)),
        ("sizes of lesions", KINDS_SHARE * heads, measure_lesions(KINDS_SHARE * heads)),
        ("noise", heads, measure_noise(heads)),
        ("windows", heads, measure_windows(heads)),
        ("slice thickness", 3, measure_slice_thickness()),
    ):
        say(f"{what}: {count} drawn")
        yield from measured


if __name__ == "__main__":
    run_main(main)
