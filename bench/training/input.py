"""What the input costs a fit: how long the optimiser waits for it, and an epoch beside the same on arrays in memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.report.figures import divide
from bench.report.machine import describe_machine, say
from bench.report.tables import Budget
from bench.training.data import FOLDER, find_phantom, find_plain
from bench.training.page import Series, make_section

BATCH = 32
SLICES = 2000
WARM_UP = 8
STEPS = 40
EPOCHS = 1_000
WAIT_CEILING = 10.0
"""Per cent of the step time."""

EPOCH_CEILING = 1.15
PRESET = "head-ct"
"""The default augmentation."""


def list_precisions(instructions: list[str]) -> list[str]:
    """Returns the arithmetics that make sense on a processor: bfloat16 is slower than float32 where it is emulated."""
    return ["float32", *(["mixed_bfloat16"] if "avx512_bf16" in instructions else [])]  # who has AMX has this too


@contextmanager
def open_slices(folder: Path) -> Iterator[tuple[Any, Any]]:
    """Yields the store of a folder's decoded slices and their classes, int64 [N]."""
    from training.data.labels import list_images
    from training.data.pixels import decode_images

    images = list_images(folder)
    with tempfile.TemporaryDirectory(dir=FOLDER) as cache:
        store, *_ = decode_images(images, Path(cache), lambda done, total: None)
        with store:
            yield store, images.targets


def make_network(precision: str, *, with_lesions: bool = False) -> Any:
    """The CNN with fresh weights, ready to fit as ``training.fit.network`` makes it."""
    import keras

    from training.fit.localisation import add_lesion_heads, find_taps, lesion_loss
    from training.fit.models import build_cnn
    from training.fit.optimizer import make_optimizer

    keras.utils.set_random_seed(7)
    network = build_cnn(precision)
    losses: list[Any] = ["sparse_categorical_crossentropy"]
    metrics: list[list[str]] = [["accuracy"]]
    if with_lesions:
        network = add_lesion_heads(network, find_taps(network))
        heads = len(network.outputs) - 1
        losses, metrics = [*losses, *[lesion_loss] * heads], [*metrics, *[[]] * heads]
    network.compile(make_optimizer(1e-3, precision, 10_000), loss=losses, metrics=metrics)
    return network


def make_pipeline(store: Any, targets: Any, preset: str, *, with_lesions: bool = False) -> Any:
    """The batches that ``python -m training`` fits on, more of them than are asked for."""
    from training.fit.augment import AUGMENTATIONS
    from training.fit.localisation import find_taps
    from training.fit.models import build_cnn
    from training.fit.pipeline import make_training_batches

    return make_training_batches(
        store,
        np.arange(len(targets)),
        targets,
        BATCH,
        seed=7,
        epochs=range(EPOCHS),
        augmentation=AUGMENTATIONS[preset],
        taps=find_taps(build_cnn()) if with_lesions else (),
    )


def measure_input(rounds: int) -> dict[str, Any]:
    """Times the wait for each batch against the step that it is for."""
    sides = {f"{precision}": (precision, False) for precision in list_precisions(describe_machine()["instructions"])}
    fastest = list(sides)[-1]
    sides[f"{fastest}, lesion masks and heads"] = (fastest, True)
    waits: dict[str, list[float]] = {side: [] for side in sides}
    steps: dict[str, list[float]] = {side: [] for side in sides}
    alone: dict[str, list[float]] = {side: [] for side in sides}
    with open_slices(find_plain(SLICES)) as plain, open_slices(find_phantom(SLICES)) as masked:
        networks = {side: make_network(precision, with_lesions=masks) for side, (precision, masks) in sides.items()}
        for turn in range(rounds):
            for side, (_, masks) in sides.items():
                batches = make_pipeline(*(masked if masks else plain), PRESET, with_lesions=masks)
                waited, trained = time_steps(networks[side], batches)
                waits[side].append(100 * waited / (waited + trained))
                steps[side].append(1000 * (waited + trained) / STEPS)
                alone[side].append(1000 * time_batches(batches) / STEPS)
            say(f"input: round {turn + 1} of {rounds}")
    series = {}
    for side in sides:
        series[f"{side}: wait"] = Series("% of the step time", waits[side])
        series[f"{side}: a step with its wait"] = Series("ms", steps[side], ".0f")
        series[f"{side}: the input alone, nothing trained"] = Series("ms a batch", alone[side], ".0f")
    return make_section(
        [
            f"The CNN, batches of {BATCH}, augmentation `{PRESET}`, {SLICES:,} slices that are decoded already; "
            f"{STEPS} steps a round after {WARM_UP} that do not count. The wait is the time in `next(batches)`, the "
            "step the time from there to the end of `train_on_batch`. Input and training share the processors, so what "
            "the input takes from them shows in the epoch below, not here."
        ],
        series,
        [
            Budget(f"{side}: wait", WAIT_CEILING, waits[side], at_least=False, unit=" % of the step time")
            for side in sides
        ],
    )


def time_steps(network: Any, batches: Any) -> tuple[float, float]:
    """Returns the seconds in which a fit waits for its batches, and in which it trains on them."""
    iterator = iter(batches)
    waited = trained = 0.0
    for step in range(WARM_UP + STEPS):
        started = time.perf_counter()
        images, targets, weights = next(iterator)
        arrived = time.perf_counter()
        network.train_on_batch(images, targets, sample_weight=weights)
        if step >= WARM_UP:
            waited += arrived - started
            trained += time.perf_counter() - arrived
    return waited, trained


def time_batches(batches: Any) -> float:
    """Returns the seconds that the input takes for as many batches when nothing is trained."""
    iterator = iter(batches)
    for _ in range(WARM_UP):
        next(iterator)
    started = time.perf_counter()
    for _ in range(STEPS):
        next(iterator)
    return time.perf_counter() - started


def measure_epoch(rounds: int) -> dict[str, Any]:
    """Times epochs on the store, plain and augmented, against the same ``fit`` on float32 arrays in memory."""
    precision = list_precisions(describe_machine()["instructions"])[-1]
    seconds: dict[str, list[float]] = {"arrays in memory": [], "pipeline": [], "pipeline, augmented": []}
    memory, plain, varied = seconds
    busy: dict[str, list[float]] = {side: [] for side in seconds}
    with open_slices(find_plain(SLICES)) as (store, targets):
        grey = store.read(np.arange(len(targets)))[..., :1]
        arrays = (np.repeat(grey, 3, axis=3).astype(np.float32), targets, np.ones(len(targets), np.float32))
        network = make_network(precision)
        fits: dict[str, Callable[[], object]] = {
            memory: lambda: fit_arrays(network, *arrays),
            plain: lambda: fit_batches(network, make_pipeline(store, targets, "none")),
            varied: lambda: fit_batches(network, make_pipeline(store, targets, PRESET)),
        }
        fit_arrays(network, *(array[: 4 * BATCH] for array in arrays))
        network.fit(make_pipeline(store, targets, PRESET), steps_per_epoch=4, shuffle=False, verbose=0)
        for turn in range(rounds):
            for side in list(fits)[:: -1 if turn % 2 else 1]:  # drift favours no side
                started, before = time.perf_counter(), time.process_time()
                fits[side]()
                seconds[side].append(time.perf_counter() - started)
                busy[side].append(time.process_time() - before)
            say(f"epoch: round {turn + 1} of {rounds}")
    ratios = {side: divide(seconds[side], seconds[memory]) for side in (plain, varied)}
    return make_section(
        [
            f"One epoch of the CNN over {SLICES:,} slices, batches of {BATCH}, {precision}, the same network and "
            "optimiser on each side. In memory: `fit(x, y)` on float32 [N, 256, 256, 3]. The pipeline reads decoded "
            f"slices from disk; augmented: `{PRESET}`, which the other side has not. CPU time is that of all threads: "
            "what others do on the machine shows less in it."
        ],
        {
            **{side: Series("s an epoch", values, ".1f") for side, values in seconds.items()},
            **{f"{side} / {memory}": Series("x", values) for side, values in ratios.items()},
            **{
                f"{side} / {memory}, CPU time": Series("x", divide(busy[side], busy[memory]))
                for side in (plain, varied)
            },
        },
        [Budget(f"{plain} / {memory}", EPOCH_CEILING, ratios[plain], at_least=False, unit=" x")],
    )


def fit_arrays(network: Any, images: Any, targets: Any, weights: Any) -> None:
    """One epoch on arrays in memory."""
    network.fit(images, targets, sample_weight=weights, batch_size=BATCH, epochs=1, verbose=0)


def fit_batches(network: Any, batches: Any) -> None:
    """One epoch on the pipeline, as ``training.fit.network`` does it."""
    network.fit(batches, epochs=1, steps_per_epoch=-(-SLICES // BATCH), shuffle=False, verbose=0)
