"""The sections of the report about what is inside the server: runtimes and decoders, without gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.report.figures import divide, summarise
from bench.report.machine import format_machine
from bench.report.tables import Budget, render_budgets, render_table

FLOORS = {"cnn": 2.5, "resnet50": 2.8}
"""INT8 over fp32 in ONNX Runtime, fp32 as exported."""

NNCF_FLOOR = 0.9
"""INT8 here over INT8 by NNCF in OpenVINO, for the CNN."""

EXPORTED = "ONNX Runtime fp32, as exported"
OURS = "ONNX Runtime int8, as converted here"
NNCF = "OpenVINO int8 by NNCF"
PLAIN = "plain Pillow"
DECODE_FLOOR = 2.0


def render_runtimes(section: dict[str, Any]) -> str:
    """One image on one thread, by runtime and precision."""
    texts = ["## Runtimes, one image on one thread", f"{format_machine(section['machine'])}."]
    rounds = section["settings"]["rounds"]
    for name, model in section["models"].items():
        times = model["ms"]
        random = "; random weights" if name == "resnet50" else ""
        versions = ", ".join(f"{package} {number}" for package, number in model["versions"].items())
        rows = [(side, summarise(values), summarise(divide(times[EXPORTED], values))) for side, values in times.items()]
        texts += [
            f"{model['model']}{random}: {model['gflop']:.2f} GFLOP; {versions}; {rounds} rounds.",
            render_table(("", "CPU ms a run", "faster than fp32 as exported"), rows),
        ]
    return "\n\n".join([*texts, "### Budgets of the runtimes", render_budgets(list_budgets(section))]) + "\n"


def list_budgets(section: dict[str, Any]) -> Iterator[Budget]:
    """What INT8 is meant to gain."""
    for name, model in section["models"].items():
        times, title = model["ms"], model["model"]
        gain = divide(times[EXPORTED], times[OURS])
        yield Budget(f"{title} int8 / fp32 in ONNX Runtime", FLOORS[name], gain, unit=" x")
        if name == "cnn":
            gain = divide(times[NNCF], times[OURS])
            yield Budget(f"{title} int8 / OpenVINO int8 by NNCF", NNCF_FLOOR, gain, unit=" x")


def render_decode(section: dict[str, Any]) -> str:
    """The decoder beside plain Pillow."""
    times: dict[str, dict[str, list[float]]] = section["ms"]
    kinds = list(times.values())
    mix = {side: [sum(pair) for pair in zip(*(kind[side] for kind in kinds), strict=True)] for side in kinds[0]}
    rows = [
        (f"{kind}, {side}", summarise(values), summarise(divide(sides[PLAIN], values)))
        for kind, sides in [*times.items(), ("one of each", mix)]
        for side, values in sides.items()
    ]
    budgets = [
        Budget(f"one of each, {side} / {PLAIN}", DECODE_FLOOR, divide(mix[PLAIN], values), unit=" x")
        for side, values in mix.items()
        if side != PLAIN
    ]
    distance = ", ".join(f"{value:.2f} on {kind}" for kind, value in section["distance"].items())
    texts = [
        "## Decoding and resizing to 256 x 256, one thread",
        f"{format_machine(section['machine'])}.",
        f"Images: {section['images']}, as PNG and as JPEG; {section['rounds']} rounds. Mean absolute difference from "
        f"{PLAIN}, in grey levels: {distance}. Training, calibration and serving use the same decoder.",
        render_table(("", "ms an image", "faster than plain Pillow"), rows),
        render_budgets(budgets),
    ]
    return "\n\n".join(texts) + "\n"
