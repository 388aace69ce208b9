"""Networks that are measured and not bundled: ResNet-50 with random weights, fp32 and INT8, and the CNN's Keras file.

For measurements of speed and memory; the answers of random weights mean nothing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.processes import ROOT
from server.process.children import run

FOLDER = ROOT / "build" / "bench"
MODELS = FOLDER / "resnet50-models"
KERAS_FILE = FOLDER / "resnet50.keras"

TRAINED = ROOT / "build" / "default" / "run" / "brain_stroke_model.h5"
"""The trained Keras file of the bundled network, left by ``make model``."""

RANDOM = ROOT / "build" / "peers" / "brain_stroke_model.h5"
"""The same with random weights, where nobody has trained one."""

MAKE = """
import sys
import keras
from training.fit.models import build_resnet50
keras.utils.set_random_seed(1)
build_resnet50().save(sys.argv[1])
"""

SLICES = 96
"""Calibration and gate of random weights only need to run, so few slices do. They are not labelled, so that no AUC is
asked of answers that mean nothing."""


def make_resnet50() -> Path:
    """Returns a folder of models with ResNet-50 in both precisions; made once, in a few minutes."""
    if MODELS.exists():
        return MODELS
    print("making ResNet-50 with random weights, in both precisions: a few minutes", file=sys.stderr)
    FOLDER.mkdir(parents=True, exist_ok=True)
    slices = FOLDER / "slices" / "unlabelled"
    if not slices.exists():
        draw = f"""
from pathlib import Path
import numpy as np
from PIL import Image
from training.phantom.dataset import choose_kind, generate_slice
folder = Path({str(slices)!r})
folder.mkdir(parents=True)
for index in range({SLICES}):
    item = generate_slice(np.random.default_rng([1, index]), kind=choose_kind(index))
    Image.fromarray(item.pixels).save(folder / f"{{index:03}}.png")
"""
        run_python("-c", draw)
    run_python("-c", MAKE, str(KERAS_FILE))
    run_python(
        *("-m", "converter", str(KERAS_FILE), "-o", str(MODELS / "resnet50" / "1")),
        *("--labels", "normal,stroke", "--positive", "stroke", "--threshold", "0.5", "--preprocess", "0..255"),
        *("--colour", "grey", "--int8", "--calibrate", str(slices.parent), "--images", str(slices)),
    )
    return MODELS


def find_keras_file() -> tuple[Path, bool]:
    """Returns a Keras file of the bundled network, and whether it is trained; speed is the same either way."""
    if TRAINED.exists():
        return TRAINED, True
    if not RANDOM.exists():
        RANDOM.parent.mkdir(parents=True, exist_ok=True)
        code = f"from training.fit.models import MODELS; MODELS['cnn']('float32').save({str(RANDOM)!r})"
        run_python("-c", code)
    return RANDOM, False


def run_python(*arguments: str) -> None:
    """Runs Python in a process of its own, so that TensorFlow's memory and threads do not stay."""
    run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
