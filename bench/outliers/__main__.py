"""``python -m bench.outliers``: which images get no label, and by what: checks of the pixels, or the model's own score.

Synthetic slices are drawn, of other people than the score was fitted to; real ones are taken from a folder, where there
is one. Nothing is chosen by what comes out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from bench.outliers.images import DRAWN, MADE, Grey
from converter.int8.calibrate import load_sets
from converter.outlier.features import CHOSEN, FEATURES
from converter.outlier.surgery import MOST_SLICES, add_scores
from server.core.decision import find_doubts
from server.flags import LineParser, parse_settings, setting
from server.images.checks import find_reasons
from server.images.image_folder import list_folder
from server.images.preprocess import load_pixels
from server.models.contract import HEAD_CT
from server.models.engines.engine import EngineOptions
from server.models.manifest import MODEL_FILE
from server.models.runtime import OnnxModel, load_model
from server.process.children import run_main
from training.phantom.dataset import choose_kind, generate_slice

SEED = 2027
"""Of the synthetic slices: another one than the score was fitted with."""


@dataclass(frozen=True)
class OutlierOptions:
    """What is measured."""

    model: Path = setting(Path("models/stroke-cnn/4"), "folder of the model")
    precision: str = setting("fp32", "which of its files", choices=("fp32", "int8"))
    real: Path | None = setting(None, "folder of real slices (default: none)", metavar="DIR")
    count: int = setting(200, "synthetic slices, and images of each kind", least=10, most=100_000)
    features: tuple[str, ...] = setting(
        (), "fit a score of these anew, instead of the model's own", choices=FEATURES, separator=",", metavar="A,B"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints a table in Markdown."""
    parser = LineParser("python -m bench.outliers", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, OutlierOptions, argv)
    model = open_model(options)
    drawn = [
        generate_slice(np.random.default_rng([SEED, index]), kind=choose_kind(index)).pixels
        for index in range(options.count)
    ]
    real = read_slices(options.real) if options.real else []
    some = real[:: max(1, len(real) // options.count)]
    print(f"{model.spec.name} {model.spec.version}, SHA-256 `{model.digest[:12]}…`, {options.precision}\n")
    print("| images | number | no label, by the checks | by the score | a label |")
    print("| --- | ---: | --- | ---: | ---: |")
    print_row("synthetic slices", judge(model, drawn))
    if real:
        print_row("real slices", judge(model, real))
    for name, draw in DRAWN.items():
        print_row(name, judge(model, (draw(np.random.default_rng([SEED, i])) for i in range(options.count))))
    for name, change in MADE.items():
        print_row(f"synthetic, {name}", judge(model, map(change, drawn)))
        if some:
            print_row(f"real, {name}", judge(model, map(change, some)))
    return 0


def open_model(options: OutlierOptions) -> OnnxModel:
    """The model, with a score of the features that were asked for."""
    model = load_model(options.model, replace(EngineOptions(), precision=options.precision))
    if options.features in ((), CHOSEN):
        return model
    data = (options.model / MODEL_FILE).read_bytes()
    sets = load_sets(None, model.input_format, model.spec, most=MOST_SLICES)
    files, _ = add_scores({MODEL_FILE: data}, model.spec, sets, kinds=options.features)
    return OnnxModel(files[MODEL_FILE], source="the model with another score")


def read_slices(folder: Path) -> list[Grey]:
    """Images of a folder that show anything, in grey."""
    found = [np.asarray(Image.open(path).convert("L")) for path in list_folder(folder).images]
    return [pixels for pixels in found if pixels.max() > 0]


def judge(model: OnnxModel, images: Iterable[Grey]) -> Counter[str]:
    """How many of some images get a label (``""``), or for which reason none, as the server decides."""
    counts: Counter[str] = Counter()
    for image in images:
        pixels = load_pixels(np.ascontiguousarray(image)[:, :, np.newaxis], model.input_format)
        reasons = find_reasons(pixels) if model.spec.checks == HEAD_CT else ()
        reasons = reasons or find_doubts(model.score(pixels.array[np.newaxis]), model.spec)
        counts[reasons[0].reason if reasons else ""] += 1
    return counts


def print_row(name: str, counts: Counter[str]) -> None:
    """One line of the table."""
    total, outliers, answered = counts.total(), counts.pop("OUT_OF_DISTRIBUTION", 0), counts.pop("", 0)
    checks = ", ".join(f"{reason} {count / total:.1%}" for reason, count in counts.most_common()) or "0"
    print(f"| {name} | {total:,} | {checks} | {outliers / total:.1%} | {answered / total:.1%} |", flush=True)


if __name__ == "__main__":
    run_main(main)
