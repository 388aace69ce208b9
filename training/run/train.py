"""One training run, from a folder of images to a run folder; ``train`` reads top to bottom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from training.data.format import make_format
from training.data.given import check_request
from training.data.labels import list_data
from training.data.pixels import compute_fingerprint, decode_images
from training.data.split import SPLIT_FILE, group_data, split_data
from training.data.subgroups import read_subgroups
from training.fit.weights import find_weights
from training.progress import Part, Progress
from training.run.folder import is_finished, open_run_folder, record_run
from training.run.folds import train_folds
from training.run.held_out import train_network
from training.settings.train import TrainConfig


def train(config: TrainConfig) -> Path:
    """Trains a network, or one per fold, and writes the run folder; goes on with an unfinished one on ``--resume``.

    Returns:
        The run folder.

    Raises:
        TrainingError: when the data, a flag or the run folder is not usable, or the disk is full.
        KeyboardInterrupt: when it comes before the first epoch has ended, among folds, or while the results are
            written; else the best weights so far become the run's.

    Either way ``<out>.partial`` stays where there is something to go on from, and nothing else does.
    """
    if is_finished(config):
        return config.out
    find_weights(config)
    images = list_data(config)
    images.require(config.positive)
    check_request(config, images)
    images = replace(images, subgroups=read_subgroups(images, config.subgroup))
    with open_run_folder(config) as folder:
        config = replace(config, resume=False)  # how often a run was stopped is not part of what it is
        store, digests = decode_images(images, folder, Progress("decoding"), make_format(config.windows))
        with store:
            record_run(config, folder, compute_fingerprint(images.files, digests))
            data = group_data(config, images, store, digests)
            if config.folds:
                train_folds(config, data, folder)
            else:
                part = Part(Progress("training"), count=1 + config.random_split)
                begun = folder / SPLIT_FILE  # an unfinished run goes on with the split that it was begun with
                data = split_data(config, data, folder, begun if begun.exists() else None)
                train_network(config, data, folder, part)
    return config.out
