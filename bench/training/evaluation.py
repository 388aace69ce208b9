"""How much of an evaluation is inference, and how long the intervals of 5,000 scores take."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from bench.processes import ROOT
from bench.report.tables import Budget
from bench.training.data import FOLDER, find_plain, find_run
from bench.training.page import Series, make_section

SLICES = 1005
SHARE_FLOOR = 50.0
"""Per cent of the time of an evaluation that is inference: more than all else together."""

SCORES = 5000
PATIENTS = 500
INTERVALS_CEILING = 10.0
"""Seconds for every figure of 5,000 slices with its interval."""


def measure_evaluation(rounds: int) -> dict[str, Any]:
    """Evaluates the bundled model and a Keras file on synthetic slices, and synthetic scores."""
    bundled = ROOT / "models" / "stroke-cnn" / "3"
    models = {"ONNX fp32": bundled / "model.onnx", "ONNX int8": bundled / "model.int8.onnx", "Keras": find_run()}
    data = find_plain(SLICES, seed=11)
    totals: dict[str, list[float]] = {side: [] for side in models}
    shares: dict[str, list[float]] = {side: [] for side in models}
    intervals: list[float] = []
    for model in models.values():
        evaluate_file(model, data)  # what is imported and compiled once
    for _ in range(rounds):
        for side, model in models.items():
            total, inference = evaluate_file(model, data)
            totals[side].append(total)
            shares[side].append(100 * inference / total)
        intervals.append(time_intervals())
    name = f"all figures of {SCORES:,} scores"
    return make_section(
        [
            f"`python -m training evaluate MODEL --data DIR` on {SLICES:,} slices of 256 x 256 in a process that has "
            "its libraries loaded. Inference is the time in which at least one thread is inside the model's own call; "
            f"the rest is decoding where nothing is judged beside it, figures, 2,000 "
            f"resamples, plots and report. {SCORES:,} scores are synthetic, of {PATIENTS} people."
        ],
        {
            **{f"{side}: evaluation": Series("s", values) for side, values in totals.items()},
            **{f"{side}: inference": Series("% of the time", values, ".0f") for side, values in shares.items()},
            name: Series("s", intervals),
        },
        [
            *(
                Budget(f"{side}: inference", SHARE_FLOOR, values, unit=" % of the time", form=".0f")
                for side, values in shares.items()
            ),
            Budget(name, INTERVALS_CEILING, intervals, at_least=False, unit=" s"),
        ],
    )


def evaluate_file(model: Path, data: Path) -> tuple[float, float]:
    """Returns the seconds of one evaluation, and those of them inside the model."""
    from training import cli

    with tempfile.TemporaryDirectory(dir=FOLDER) as folder, watch_inference() as spans:
        command = ["evaluate", str(model), "--data", str(data), "--out", str(Path(folder) / "out")]
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            if cli.main([*command, "--one-image-per-patient"]):
                raise SystemExit(f"bench: python -m training {' '.join(command)} failed")
        return time.perf_counter() - started, measure_union(spans)


@contextmanager
def watch_inference() -> Iterator[list[tuple[float, float]]]:
    """Yields a list that gets start and end, in seconds, of each call of a model, Keras or ONNX, in the block."""
    import keras

    from server.models.runtime import OnnxModel

    spans: list[tuple[float, float]] = []

    def time_calls(call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                spans.append((started, time.perf_counter()))

        return timed

    with (
        patch.object(keras.Model, "predict_on_batch", time_calls(keras.Model.predict_on_batch)),
        patch.object(OnnxModel, "run", time_calls(OnnxModel.run)),
    ):
        yield spans


def measure_union(spans: Iterable[tuple[float, float]]) -> float:
    """Returns the length of what spans (start, end) cover together: calls in several threads count once."""
    covered, last = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, last))
        last = max(last, end)
    return covered


def time_intervals() -> float:
    """Returns the seconds of all figures of synthetic scores, with their intervals."""
    from training.evaluation.figures import Predictions
    from training.evaluation.measure import Decision, evaluate

    rng = np.random.default_rng(7)
    groups = np.arange(SCORES) % PATIENTS
    positive = rng.random(PATIENTS)[groups] < 0.3
    predictions = Predictions(
        files=tuple(map(str, range(SCORES))),
        scores=np.clip(rng.normal(0.4 + 0.2 * positive, 0.2), 0, 1),
        positive=positive,
        groups=groups,
        trivial=rng.random(SCORES),
        has_patients=True,
    )
    started = time.perf_counter()
    evaluate(predictions, Decision(0.5, "0.5"), model="synthetic", data="synthetic", prevalences=(0.01, 0.1, 0.2))
    return time.perf_counter() - started
