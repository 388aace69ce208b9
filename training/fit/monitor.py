"""What happens between the epochs of a fit: validation, the best weights, early stopping, checkpoint, progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from training.data.pixels import write_csv
from training.errors import TrainingError
from training.evaluation.figures import Epoch
from training.evaluation.positive import score_positive
from training.evaluation.ranking import compute_auc
from training.fit.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from training.progress import Part, Progress

HISTORY = "history.csv"
SMALLEST_PROBABILITY = 1e-7
"""Probabilities are clipped here before the logarithm, as Keras clips them."""


class Monitor(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Evaluates each epoch on the validation images, keeps the best weights, writes a checkpoint, and stops in time.

    One pass over the validation images gives loss, accuracy and AUC; Keras's own validation would add another.

    Attributes:
        history: the finished epochs.
        best: the one with the lowest validation loss, None before there is one.
        best_weights: its weights.
        steps: batches so far.
    """

    def __init__(
        self,
        network: keras.Model,
        folder: Path,
        predict: Callable[[], NDArray[np.float32]],
        targets: NDArray[np.int64],
        *,
        positive: NDArray[np.int64],
        patience: int,
        epochs: int,
        image_count: int,
        batch_size: int,
        progress: Part | None = None,
    ) -> None:
        """Makes the monitor.

        Args:
            network: whose weights are kept; what is being fitted may have auxiliary heads on it.
            folder: where checkpoint and history are written after each epoch, and from where ``resume`` takes them.
            predict: gives the probabilities [N, classes] of the validation images as the network is now.
            targets: [N], classes of the validation images.
            positive: the classes whose probabilities together the AUC is of.
            patience: epochs without a lower validation loss after which to stop.
            epochs: most epochs.
            image_count: training images an epoch.
            batch_size: images a step.
            progress: the line on which progress is shown; a new one unless told.
        """
        super().__init__()
        self.history: list[Epoch] = []
        self.best: Epoch | None = None
        self.steps = 0
        self.best_weights: list[NDArray[np.float32]] = []
        self._network, self._folder, self._predict, self._targets = network, folder, predict, targets
        self._positive, self._patience, self._epochs = positive, patience, epochs
        self._image_count, self._batch_size = image_count, batch_size
        self._progress = progress or Part(Progress("training"))
        self._start = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or so many without a lower validation loss that there is no sense in more."""
        done, best = len(self.history), self.best.epoch if self.best else 0
        return done >= self._epochs or done - best >= self._patience

    def resume(self, model: keras.Model) -> None:
        """Brings a compiled model, and this monitor, to where the checkpoint in the folder was; if there is one.

        Raises:
            TrainingError: the checkpoint is of another network.
        """
        checkpoint = read_checkpoint(self._folder)
        if checkpoint is None:
            return
        model.optimizer.build(model.trainable_variables)
        variables = list_variables(model)
        if [tuple(v.shape) for v in variables] != [array.shape for array in checkpoint.variables]:
            raise TrainingError(f"the checkpoint in {self._folder} is of another network; remove it to start anew")
        for variable, array in zip(variables, checkpoint.variables, strict=True):
            variable.assign(array)
        self.history = [Epoch(int(number), *figures) for number, *figures in checkpoint.history.tolist()]
        self.steps = checkpoint.steps
        if checkpoint.best_epoch:
            self.best = self.history[checkpoint.best_epoch - 1]
            self.best_weights = list(checkpoint.best_weights)
        self._write_history()
        self._progress.skip(len(self.history) * self._image_count)
        self._progress.print_line(f"goes on after epoch {len(self.history)}")

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._start = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.steps += 1
        seen = min((batch + 1) * self._batch_size, self._image_count)
        rate = seen / (time.monotonic() - self._start)
        note = f" at most; epoch {len(self.history) + 1}: loss {read_log(logs, 'loss'):.4f}, {rate:.0f} images/s"
        done, total = len(self.history) * self._image_count + seen, self._epochs * self._image_count
        if done < total:
            self._progress(done, total, note)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        seconds = time.monotonic() - self._start
        probabilities = self._predict()
        scores = score_positive(probabilities, self._positive)
        of_target = probabilities[np.arange(len(self._targets)), self._targets]
        finished = Epoch(
            epoch=epoch + 1,
            loss=read_log(logs, "loss"),
            accuracy=read_log(logs, "accuracy"),
            val_loss=float(-np.log(np.maximum(of_target, SMALLEST_PROBABILITY)).mean()),
            val_accuracy=float((probabilities.argmax(axis=1) == self._targets).mean()),
            val_auc=compute_auc(scores, np.isin(self._targets, self._positive)),
            seconds=seconds,
            images_per_second=self._image_count / seconds,
        )
        self.history.append(finished)
        weights = self._network.get_weights()
        # The loss is compared so that NaN is never best; weights can be NaN under a loss that is not, thanks to ReLU.
        is_lower = finished.val_loss < (self.best.val_loss if self.best else np.inf)
        if is_lower and all(np.isfinite(weight).all() for weight in weights):
            self.best, self.best_weights = finished, weights
        checkpoint = Checkpoint(
            history=np.array([list(vars(line).values()) for line in self.history], np.float64),
            steps=self.steps,
            best_epoch=self.best.epoch if self.best else 0,
            variables=[np.asarray(variable) for variable in list_variables(self.model)],
            best_weights=self.best_weights,
        )
        write_checkpoint(self._folder, checkpoint)
        self._write_history()  # after the checkpoint, so that each line of it can be gone on from
        self._progress.print_line(
            f"epoch {finished.epoch}/{self._epochs}: loss {finished.loss:.4f}, accuracy {finished.accuracy:.3f}; "
            f"validation loss {finished.val_loss:.4f}, accuracy {finished.val_accuracy:.3f}, AUC {finished.val_auc:.3f}"
            f"{' (best)' if finished is self.best else ''}; {finished.images_per_second:.0f} images/s"
        )
        if self.is_over:
            self.model.stop_training = True
            self._progress.skip((self._epochs - len(self.history)) * self._image_count)

    def _write_history(self) -> None:
        lines = [list(vars(line).values()) for line in self.history]
        write_csv(self._folder / HISTORY, [column.name for column in fields(Epoch)], lines)


def list_variables(model: keras.Model) -> list[keras.Variable]:
    """Returns all state of a compiled model: weights, random states, and the optimiser's."""
    return [*model.variables, *model.optimizer.variables]


def read_log(logs: Mapping[str, float] | None, name: str) -> float:
    """Returns a figure of the network's own output; Keras names it so where there are auxiliary heads."""
    logs = logs or {}
    return logs.get(f"probabilities_{name}", logs.get(name, float("nan")))
