"""``python -m bench.training.exports``: how models stand slices that other scanners and archives would have exported.

The same synthetic slices are judged as they are drawn and as another kernel, window, matrix or crop would have made
them. What a model loses there, it has learned of the generator's own pictures. No real slice is read.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from bench.report.figures import round_figures
from bench.report.machine import describe_machine, format_machine, say
from bench.report.tables import render_table
from bench.training.auc import compare_aucs, estimate_auc
from server.flags import REQUIRED, LineParser, parse_settings, setting
from server.machine.processors import count_processors
from server.models.runtime import OnnxModel, load_model
from server.process.children import end_with_parent, run_main
from training.phantom.dataset import choose_kind
from training.phantom.slice import generate_slice

SEED = 17
"""Of the slices: no training, calibration or other bench draws from it."""

HEAD = """\
# Models beside the exports of other sources

The same synthetic slices, judged as they are drawn and as another kernel, window, matrix or crop would have made them
(`python -m bench.training.exports`, which also writes [the figures](exports.json)). Training slices vary in nearly
all of these, by less. Intervals: 95 %, DeLong; differences are on the same slices. No real slice is read here.
"""

Export = Callable[[Image.Image], Image.Image]


def bend(curve: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Export:
    """Grey levels after a curve; black and white stay, as air and bone do in every window."""
    levels = np.arange(256, dtype=np.float64)
    table = np.clip(np.rint(curve(levels)), 0, 255)
    table[[0, 255]] = 0, 255
    return lambda image: image.point(table.astype(int).tolist())


def reduce(side: int) -> Export:
    """A smaller matrix, made larger again."""
    bilinear = Image.Resampling.BILINEAR
    return lambda image: image.resize((side, side), bilinear).resize(image.size, bilinear)


def compress(quality: int) -> Export:
    """A JPEG of that quality."""

    def save(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream).convert("L")

    return save


def resize_head(share: float) -> Export:
    """A larger or smaller field around the middle."""

    def paste(image: Image.Image) -> Image.Image:
        side = round(image.width * share)
        field = Image.new("L", image.size)
        field.paste(image.resize((side, side), Image.Resampling.BILINEAR), ((image.width - side) // 2,) * 2)
        return field

    return paste


def crop_tight(image: Image.Image) -> Image.Image:
    """Cut to what is not black, and stretched to the field."""
    box = image.point(lambda level: 255 * (level > 30)).getbbox()
    return image.crop(box).resize(image.size, Image.Resampling.BILINEAR) if box else image


EXPORTS: dict[str, Export] = {
    "as drawn": lambda image: image,
    "sharper kernel": lambda image: image.filter(ImageFilter.UnsharpMask(2, 150, 0)),
    "softer kernel": lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
    "narrower window, 2/3": bend(lambda grey: (grey - 127) * 1.5 + 127),
    "wider window, 3/2": bend(lambda grey: (grey - 127) / 1.5 + 127),
    "level 12 HU higher": bend(lambda grey: grey - 38),
    "level 12 HU lower": bend(lambda grey: grey + 38),
    "gamma 0.6": bend(lambda grey: 255 * (grey / 255) ** 0.6),
    "gamma 1.6": bend(lambda grey: 255 * (grey / 255) ** 1.6),
    "matrix of 128": reduce(128),
    "JPEG, quality 20": compress(20),
    "cropped tight, stretched": crop_tight,
    "head 0.7 times as large": resize_head(0.7),
    "head 1.25 times as large": resize_head(1.25),
    "turned by 25 degrees": lambda image: image.rotate(25, Image.Resampling.BILINEAR),
}
"""By name; the first is what all others are compared with."""


@dataclass(frozen=True)
class ExportOptions:
    """What is judged."""

    out: Path = setting(REQUIRED, "folder for exports.md and exports.json")
    models: tuple[Path, ...] = setting(
        (Path("models/stroke-cnn/4"), Path("models-imagenet/stroke-lite0/1")), "folders of models", metavar="MODEL"
    )
    slices: int = setting(1600, "slices, half of them strokes", least=8, most=1_000_000)


def main(argv: Sequence[str] | None = None) -> int:
    """Judges every export and writes the page."""
    parser = LineParser("python -m bench.training.exports", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, ExportOptions, argv)
    context = get_context("spawn")
    with ProcessPoolExecutor(count_processors(), mp_context=context, initializer=end_with_parent) as pool:
        images = list(pool.map(draw_slice, range(options.slices), chunksize=16))
    positive = np.array([choose_kind(index) is not None for index in range(options.slices)])
    models = []
    for folder in options.models:
        model = load_model(folder)
        models.append(
            {
                "name": f"{model.spec.name} {model.spec.version}",
                "precision": model.options.precision,
                "digest": model.digest,
                "threshold": model.spec.threshold,
                "exports": judge_exports(model, images, positive),
            }
        )
        say(f"{folder}: judged")
    document = {
        "machine": describe_machine(("onnxruntime", "numpy", "pillow")),
        "slices": options.slices,
        "models": models,
    }
    write_exports(round_figures(document), options.out)
    return 0


def draw_slice(index: int) -> NDArray[np.uint8]:
    """Draws one slice, uint8 [256, 256]."""
    return generate_slice(np.random.default_rng([SEED, index]), kind=choose_kind(index)).pixels


def judge_exports(
    model: OnnxModel, images: Sequence[NDArray[np.uint8]], positive: NDArray[np.bool_]
) -> dict[str, dict[str, Any]]:
    """Returns by export: AUC, its difference from the slices as drawn, and the shares called stroke by class."""
    judged: dict[str, dict[str, Any]] = {}
    drawn: NDArray[np.float64] | None = None
    for name, export in EXPORTS.items():
        scores = score(model, [np.asarray(export(Image.fromarray(image))) for image in images])
        drawn = scores if drawn is None else drawn
        called = scores > model.spec.threshold
        judged[name] = {
            "auc": estimate_auc(scores, positive),
            "difference": compare_aucs(scores, drawn, positive),
            "called": [float(called[~positive].mean()), float(called[positive].mean())],
        }
    return judged


def score(model: OnnxModel, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Probabilities of stroke, [N], of grey images uint8 [256, 256]."""
    answers = [model.run(image[np.newaxis, :, :, np.newaxis]) for image in images]
    return model.spec.positive_scores(np.concatenate(answers)).astype(np.float64)


def write_exports(document: dict[str, Any], out: Path) -> None:
    """Writes ``exports.json`` and ``exports.md``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "exports.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    (out / "exports.md").write_text(render_exports(document), "utf-8")


def render_exports(document: dict[str, Any]) -> str:
    """The page in Markdown, with a table for each model."""
    texts = [
        HEAD.rstrip(),
        f"{document['slices']:,} slices, half of them strokes. {format_machine(document['machine'], '')}.",
    ]
    for model in document["models"]:
        texts += [
            f"## {model['name']}, {model['precision']}",
            f"SHA-256 `{model['digest'][:12]}…`; stroke where p > {model['threshold']:.3f}.",
            render_table(
                ("export", "AUC", "difference", "normal ones called stroke", "strokes called stroke"),
                (list_cells(name, row) for name, row in model["exports"].items()),
            ),
        ]
    return "\n\n".join(texts) + "\n"


def list_cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    """One line of a model's table."""
    auc, difference = (
        f"{value:{form}} ({low:{form}} to {high:{form}})"
        for (value, low, high), form in ((row["auc"], ".3f"), (row["difference"], "+.3f"))
    )
    return name, auc, "" if name == next(iter(EXPORTS)) else difference, *(f"{share:.1%}" for share in row["called"])


if __name__ == "__main__":
    run_main(main)
