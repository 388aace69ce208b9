"""One training run, from a folder of images to a run folder; ``train`` reads top to bottom.

The run folder appears under its name when it is complete. Until then it is ``<name>.partial``, with the best weights
and the history so far: that is what a power cut leaves.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from training.config import TrainConfig
from training.data import decode_images, list_data
from training.errors import TrainingError
from training.fit import fit_network
from training.models import MODELS
from training.monitor import CHECKPOINT
from training.progress import Progress
from training.results import calibrate_network, write_results
from training.split import split_data

MODEL_FILES = ("brain_stroke_model.h5", "brain_stroke_model.keras")


def train(config: TrainConfig) -> Path:
    """Trains a network and writes its run folder.

    Returns:
        The run folder.

    Raises:
        TrainingError: when the data, a flag or the run folder is not usable; nothing is left behind then.
        KeyboardInterrupt: when it comes before the first epoch has ended; later, the best weights so far are kept.
    """
    keras.utils.set_random_seed(config.seed)
    images = list_data(config)
    if config.positive not in images.labels:
        raise TrainingError(f"--positive {config.positive} is not among the labels: {', '.join(images.labels)}")
    with make_run_folder(config.out) as folder:
        store, digests = decode_images(images, folder, Progress("decoding"))
        with store:
            data = split_data(config, images, store, digests, folder)
            fit = fit_network(config, data, folder)
            # The model is plain float32, whatever arithmetic the training used.
            model = MODELS[config.model]("float32")
            model.set_weights(fit.weights)
            calibration = calibrate_network(config, data, model)
            for name in MODEL_FILES:
                model.save(folder / name)
            write_results(config, data, fit, model, calibration, folder)
        (folder / CHECKPOINT).unlink()
    return config.out


@contextmanager
def make_run_folder(out: Path) -> Iterator[Path]:
    """Yields ``<out>.partial`` and renames it to ``out`` at the end; a failure keeps it only if it has weights."""
    folder = out.with_name(out.name + ".partial")
    for path in (out, folder):
        if path.exists():
            raise TrainingError(f"{path} exists; name another run folder, or remove it")
    folder.mkdir(parents=True)
    try:
        yield folder
    except BaseException:
        if (folder / CHECKPOINT).exists():
            print(f"the best weights so far are in {folder / CHECKPOINT}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
        raise
    folder.rename(out)
