"""The trained Keras file that the seed system serves; made with random weights where nobody has trained one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.processes import ROOT

TRAINED = ROOT / "build" / "default" / "run" / "brain_stroke_model.h5"
"""Left by ``make model``."""

RANDOM = ROOT / "build" / "peers" / "brain_stroke_model.h5"


def find_keras_file() -> tuple[Path, bool]:
    """Returns a Keras file of the bundled network, and whether it is trained; speed is the same either way."""
    if TRAINED.exists():
        return TRAINED, True
    if not RANDOM.exists():
        RANDOM.parent.mkdir(parents=True, exist_ok=True)
        code = f"from training.fit.models import MODELS; MODELS['cnn']('float32').save({str(RANDOM)!r})"
        # In a process of its own, so that TensorFlow's threads and memory do not stay beside the measurements.
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    return RANDOM, False
