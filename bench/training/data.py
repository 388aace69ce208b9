"""The slices that training is measured on: drawn once into build/bench, and made again where they are not complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bench.processes import ROOT

FOLDER = ROOT / "build" / "bench"
CLASSES = ("normal", "stroke")
NOISE_SIDE = 64


def find_phantom(count: int, seed: int = 7) -> Path:
    """Returns a folder of ``count`` synthetic slices of 256 x 256, with lesion masks."""
    from training.phantom.dataset import write_dataset

    return make_once(f"phantom-{count}-{seed}", lambda folder: write_dataset(folder, count, seed))


def find_plain(count: int, seed: int = 7) -> Path:
    """Returns the same slices without lesion masks, as scans come; hard links, which take no space."""
    phantom = find_phantom(count, seed)

    def link(folder: Path) -> None:
        for label in CLASSES:
            shutil.copytree(phantom / label, folder / label, copy_function=os.link)

    return make_once(f"plain-{count}-{seed}", link)


def find_run() -> Path:
    """Returns a run folder with the CNN in Keras's format, weights random: speed is the same as of a trained one."""

    def save(folder: Path) -> None:
        from server.models.contract import ModelSpec
        from training.fit.models import build_cnn

        folder.mkdir()
        build_cnn().save(folder / "brain_stroke_model.keras")
        spec = ModelSpec(
            name="bench", version="1", labels=CLASSES, positive_labels=CLASSES[1:], threshold=0.5, colour="grey"
        )
        (folder / "spec.json").write_text(spec.to_json(), "utf-8")

    return make_once("run", save)


def find_noise(count: int) -> Path:
    """Returns a folder of ``count`` different small PNG files, which cost little to make; see ``write_noise``."""
    return make_once(f"noise-{count}", lambda folder: write_noise(folder, count))


def write_noise(folder: Path, count: int) -> None:
    """Writes PNG files of noise, 64 x 64, half of each class; one class is brighter.

    Coarse noise, so that no two of them look alike to a perceptual hash.
    """
    rng = np.random.default_rng(count)
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
    for index in range(count):
        level = 40 * (index % 2)
        coarse = rng.integers(0, 180, (NOISE_SIDE // 4, NOISE_SIDE // 4))
        pixels = coarse.repeat(4, axis=0).repeat(4, axis=1) + rng.integers(0, 30, (NOISE_SIDE, NOISE_SIDE)) + level
        path = folder / CLASSES[index % 2] / f"{index:05d}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(path, compress_level=1)


def make_once(name: str, make: Callable[[Path], object]) -> Path:
    """Returns a folder below ``FOLDER``, made unless it is there; it takes its name when it is complete."""
    folder, partial = FOLDER / name, FOLDER / f"{name}.partial"
    if not folder.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        make(partial)
        partial.rename(folder)
    return folder
