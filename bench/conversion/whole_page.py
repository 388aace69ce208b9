"""The section about a whole run in ``docs/convert.md``; its figures are in ``convert.json`` beside it, as ``whole``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.conversion.page import MOST_GB, read_figures, shorten_failure, write_section
from bench.report.figures import round_figures
from bench.report.machine import format_machine
from bench.report.tables import Budget, render_budgets, render_table

TITLE = "## A whole run: ResNet-50 from slices to answers"
KEY = "whole"
PACKAGES = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "scikit-learn", "numpy")

LEAST_AUC = 0.9
MOST_DIFFERENCE = 1e-5

ABOUT = """\
`python -m bench.conversion.whole --out docs`: {slices} synthetic slices of 256 x 256 in window 40,80, half of them
with a large bright disc for a bleed; a head trained by `python -m training --model resnet50` on a frozen backbone;
`python -m converter --int8 --calibrate`; `python -m server`; and the Python client, which sends the {test_slices}
held-out files. That nothing but a disc is to be found is meant: a head that has learned something clear is what INT8
is gated on, and no figure here says anything about strokes. Weights are made (`bench/conversion/obvious.py`), for
ImageNet's are downloaded. Keras's answers are those of the training run on the same files. Where the seconds are far
above the CPU seconds, the machine had other work."""


def publish_whole(figures: Mapping[str, Any], machine: Mapping[str, Any], out: Path | None) -> str:
    """Puts the figures of a whole run into ``convert.json`` and its section into ``convert.md``; returns the section.

    Args:
        figures: see ``bench.conversion.whole.main``.
        machine: see ``describe_machine``.
        out: the folder of both, where ``convert.md`` is already; None writes nothing.
    """
    document = read_figures(out)
    document[KEY] = {**round_figures(dict(figures)), "machine": dict(machine)}
    section = render_whole(document[KEY])
    write_section(document, section, out)
    return section


def render_whole(whole: Mapping[str, Any]) -> str:
    """Machine, what was done, what each step took, what came out, and the targets."""
    training, conversion, served = whole["training"], whole["conversion"], whole["served"]
    steps = [
        (name, f"{taken['seconds']:,.0f}", f"{taken['cpu_seconds']:,.0f}", f"{taken['peak_mb']:,.0f}")
        for name, taken in (("training", training), ("conversion with `--int8`", conversion))
    ]
    budgets = (
        Budget("AUC on held-out slices", LEAST_AUC, [training["auc"]["value"]], form=".3f"),
        Budget("conversion, peak", MOST_GB, [conversion["peak_mb"] / 1024], False, " GB", ".2f"),
        Budget(
            "served fp32, difference from Keras",
            MOST_DIFFERENCE,
            [served["fp32"]["largest_difference"]],
            False,
            "",
            ".1e",
        ),
    )
    return (
        "\n\n".join(
            (
                TITLE,
                f"{format_machine(dict(whole['machine']), '')}.",
                ABOUT.format(slices=whole["slices"], test_slices=training["test_slices"]),
                render_table(("step", "s", "CPU s", "peak MB"), steps),
                render_table(("what came out", ""), list_outcomes(whole)),
                render_budgets(budgets),
                "",
            )
        ).rstrip("\n")
        + "\n"
    )


def list_outcomes(whole: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of what training, conversion and server gave."""
    auc, conversion = whole["training"]["auc"], whole["conversion"]
    yield "AUC on held-out slices", f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"
    parity = conversion["parity"]
    difference = max(parity["image_difference"], parity["random_difference"])
    yield "parity with Keras, and what is allowed", f"{difference:.1e}, {parity['allowed']:.1e}"
    yield "files whose answers training recorded, compared", f"{conversion['recorded']}"
    yield "fp32 file", f"{conversion['size'] / 1e6:.1f} MB"
    if (variant := conversion["int8"]) is None:
        yield "INT8", shorten_failure(conversion["int8_failure"])
    else:
        held_out = variant["held_out"]
        yield "INT8 file", f"{variant['size'] / 1e6:.1f} MB, ranges by {variant['method']}"
        yield "INT8, layers that stay fp32", f"{len(variant['fp32_layers'])}"
        yield (
            f"INT8 gate, {held_out['slices']} held-out slices: same label",
            f"{held_out['agreement_at_threshold']:.2%} at the threshold, {held_out['agreement_at_half']:.2%} at 0.5",
        )
        yield (
            "INT8 gate, mean and largest difference of a probability",
            (f"{held_out['mean_difference']:.4f}, {held_out['largest_difference']:.4f}"),
        )
    for precision, answers in whole["served"].items():
        yield (
            f"served {precision}, asked for {answers['slices']} files",
            f"{answers['same_label']} with Keras's label, largest difference {answers['largest_difference']:.1e}",
        )
