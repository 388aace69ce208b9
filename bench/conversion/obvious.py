"""What a whole run on ResNet-50 starts from: slices that are easy to tell apart, and weights whose features do so.

ImageNet's weights are downloaded, and may not be there; random ones pass nothing on: fifty random layers mix all that a
slice shows. With residual branches that add little, as they start where a ResNet is trained from nothing (Goyal and
others 2017, section 5.1), features still tell what was bright, and where it was large.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.conversion.networks import settle_statistics
from bench.training.data import CLASSES, make_once
from server.images.dicom.window import read_windows
from server.process.console import silence_tensorflow

if TYPE_CHECKING:
    import keras

SEED = 7
SIDE = 256
DRAWN = 2
"""Slices that are drawn for each one that is taken: those below the skull base's end are left out."""

LOWEST_LEVEL = 0.42
"""Of a slice in the head (``training.phantom.head``): below it, bone fills as much as a bleed does."""

BLEED_RADIUS = (30, 46)
BLEED_PLACE = (100, 156)
"""Pixels: of the bleed's middle, down and across."""

BLEED_LEVEL, BRAIN_SHARE = 190, 0.3
"""Grey level of a bleed, and how much of what lies below it still shows."""

BRANCH_SCALE = 0.2
"""Of a residual branch's last normalisation."""

SETTLING = 16
"""Slices that the statistics of batch normalisation are taken from."""


def find_slices(count: int) -> Path:
    """Returns a folder of ``count`` slices in window 40,80, half of them with a large bleed."""
    return make_once(f"obvious-{count}-{SEED}", lambda folder: write_slices(folder, count))


def write_slices(folder: Path, count: int) -> None:
    """Draws synthetic slices, takes those of the vault, and puts a bright disc into every one that shows a stroke.

    Raises:
        ValueError: too few of those that were drawn are of the vault.
    """
    from training.phantom.dataset import write_dataset

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as root:
        drawn = Path(root) / "drawn"
        write_dataset(drawn, DRAWN * count, SEED, size=SIDE, window=read_windows(("40,80",))[0])
        with (drawn / "labels.csv").open(newline="", encoding="utf-8") as table:
            rows = [row for row in csv.DictReader(table) if float(row["level"]) >= LOWEST_LEVEL]
        rng = np.random.default_rng(SEED)
        for label in CLASSES:
            taken = [row["file"] for row in rows if row["label"] == label][: count // 2]
            if len(taken) < count // 2:
                raise ValueError(f"{len(taken)} slices of the vault show {label}, {count // 2} are needed")
            (folder / label).mkdir(parents=True)
            for name in taken:
                pixels = np.asarray(Image.open(drawn / name))
                Image.fromarray(paint_bleed(pixels, rng) if label == CLASSES[1] else pixels).save(folder / name)


def paint_bleed(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Returns a slice, uint8 [256, 256], with a bright disc in its brain."""
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    row, column = rng.uniform(*BLEED_PLACE, 2)
    is_inside = (rows - row) ** 2 + (columns - column) ** 2 < rng.uniform(*BLEED_RADIUS) ** 2
    bleed = np.minimum(255, BRAIN_SHARE * pixels + BLEED_LEVEL)
    return np.where(is_inside, bleed, pixels).astype(np.uint8)


def find_weights(slices: Path) -> Path:
    """Returns a file of ResNet-50 with weights made for these slices; its head is random."""

    def make(folder: Path) -> None:
        folder.mkdir()
        make_resnet50(slices).save(folder / "weights.keras")

    return make_once(f"resnet50-{slices.name}", make) / "weights.keras"


def make_resnet50(slices: Path) -> keras.Model:
    """Builds ResNet-50 with random weights, weak residual branches, and statistics that have seen slices."""
    import keras

    from server.images.image_folder import list_folder
    from server.images.preprocess import InputFormat, load_pixels
    from training.fit.models import build_resnet50

    keras.utils.set_random_seed(SEED)
    network = build_resnet50()
    for layer in network.layers:
        if layer.name.endswith("_3_bn"):
            layer.gamma.assign(BRANCH_SCALE * layer.gamma)
    files = list_folder(slices).images
    chosen = files[:: max(1, len(files) // SETTLING)][:SETTLING]
    pixels = [load_pixels(path.read_bytes(), InputFormat(SIDE, SIDE)).array for path in chosen]
    settle_statistics(network, np.stack(pixels))
    return network


if __name__ == "__main__":
    # A process of its own, so that TensorFlow's memory and threads do not stay beside what is measured.
    with silence_tensorflow():
        import keras
    obvious = find_slices(int(sys.argv[1]))
    print(obvious, find_weights(obvious), sep="\n")
