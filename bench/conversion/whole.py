"""``python -m bench.conversion.whole``: a ResNet-50 from slices to answers: trained, converted, served, asked.

Every step is the command that a user types, in a process of its own. A run that was stopped goes on behind the last
step that it had done; one that is through leaves slices and weights alone in build/bench.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.conversion.measured import measure_command
from bench.conversion.whole_page import PACKAGES, publish_whole
from bench.processes import ROOT, run_server
from bench.report.machine import describe_machine, say
from bench.training.data import CLASSES, FOLDER
from client import Prediction, StrokeClient
from converter.cli import EXIT_NO_VARIANT
from server.flags import LineParser, parse_settings, setting
from server.process.children import run, run_main

NAME = "stroke-resnet50"
PATIENCE = 20
SECONDS_AN_IMAGE = 120.0
"""A machine that others use may be slow."""


@dataclass(frozen=True)
class WholeOptions:
    """What is run."""

    slices: int = setting(300, "synthetic slices, half of them with a large bleed", least=100, most=100_000)
    epochs: int = setting(60, "most passes over the features", least=1, most=100_000)
    int8_minutes: int = setting(30, "what the INT8 variant may take", least=1, most=1440)
    out: Path | None = setting(None, "folder of convert.md, whose section is written anew (default: only print)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all steps, prints and writes."""
    parser = LineParser("python -m bench.conversion.whole", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, WholeOptions, argv)
    folder = FOLDER / f"whole-{options.slices}-{options.epochs}"
    say("slices and weights, unless they are there")
    slices, weights = make_apart(options.slices)
    say(f"training on {slices}")
    training = once(folder, "training", lambda run: train(slices, weights, run, options.epochs))
    say("converting")
    run = folder / "training"
    conversion = once(folder, "models", lambda models: convert(run, slices, models, options.int8_minutes))
    say("serving and asking")
    figures = {
        "slices": options.slices,
        "training": training,
        "conversion": conversion,
        "served": {
            precision: ask(folder / "models", run, slices, precision)
            for precision in ("fp32", *(("int8",) if conversion["int8"] else ()))
        },
    }
    print(publish_whole(figures, describe_machine(PACKAGES), options.out))
    shutil.rmtree(folder)
    return 0


def once(folder: Path, name: str, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Makes a folder in ``folder`` and returns the figures of that, or those of the time when it was made."""
    figures = folder / f"{name}.json"
    if not figures.exists():
        shutil.rmtree(folder / name, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        made = make(folder / name)
        figures.write_text(json.dumps(made), "utf-8")
    return dict(json.loads(figures.read_text("utf-8")))


def make_apart(count: int) -> tuple[Path, Path]:
    """Returns the folder of slices and the file of weights, made in another process unless they are there."""
    command = [sys.executable, "-m", "bench.conversion.obvious", str(count)]
    made = run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    slices, weights = made.stdout.splitlines()[-2:]
    return Path(slices), Path(weights)


def train(slices: Path, weights: Path, run: Path, epochs: int) -> dict[str, Any]:
    """Trains a head on the frozen backbone.

    Returns:
        What it took, and the AUC on held-out slices: ``value``, ``low`` and ``high``.
    """
    measured = measure_command(
        (
            *(sys.executable, "-m", "training", "--data", str(slices), "--out", str(run), "--one-image-per-patient"),
            *("--model", "resnet50", "--weights", str(weights), "--views", "1", "--augment", "none"),
            *("--epochs", str(epochs), "--patience", str(PATIENCE), "--name", NAME),
        )
    )
    if measured.code:
        raise SystemExit(f"bench: {measured.last_words}")
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    return {**measured.describe(), "auc": find_auc(metrics), "test_slices": len(read_predictions(run))}


def find_auc(metrics: dict[str, Any]) -> dict[str, float]:
    """The AUC on held-out slices, with its interval, of what training has written into ``metrics.json``."""
    return dict(metrics["evaluation"]["slices"]["figures"]["auc"])


def convert(run: Path, slices: Path, models: Path, minutes: int) -> dict[str, Any]:
    """Converts what was trained, with an INT8 variant.

    Returns:
        What it took, and of the converter's report parity, sizes, the INT8 variant, and why there is none.
    """
    measured = measure_command(
        (
            *(sys.executable, "-m", "converter", str(run / "brain_stroke_model.keras")),
            *("-o", str(models / NAME / "1"), "--images", str(slices), "--json"),
            *("--int8", "--calibrate", str(slices), "--int8-minutes", str(minutes)),
        )
    )
    if measured.code not in (0, EXIT_NO_VARIANT):
        raise SystemExit(f"bench: {measured.last_words}")
    report = json.loads(measured.printed)
    kept = ("parity", "size", "recorded", "int8", "int8_failure")
    return {**measured.describe(), **{key: report[key] for key in kept}}


def read_predictions(run: Path) -> dict[str, float]:
    """What Keras answered in training on the held-out slices: file → probability of a stroke."""
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as table:
        return {row["file"]: float(row["probability"]) for row in csv.DictReader(table)}


def ask(models: Path, run: Path, slices: Path, precision: str) -> dict[str, Any]:
    """Serves the model and asks for all held-out slices, as files.

    Returns:
        ``slices``, ``largest_difference`` of a probability from Keras's, and ``same_label``, how many have the label
        that Keras's probability gives.
    """
    expected = read_predictions(run)
    with (
        run_server(models, ("--precision", precision)) as service,
        StrokeClient(service.address, timeout=SECONDS_AN_IMAGE) as client,
    ):
        answers = list(client.predict_many([slices / name for name in expected]))
    differences, same = [], 0
    for answer, wanted in zip(answers, expected.values(), strict=True):
        if not isinstance(answer, Prediction):
            raise SystemExit(f"bench: {answer.source}: {answer.error}")
        differences.append(abs(answer.scores[CLASSES[1]] - wanted))
        same += (answer.label == CLASSES[1]) == (wanted > answer.threshold)
    return {"slices": len(answers), "largest_difference": max(differences), "same_label": same}


if __name__ == "__main__":
    run_main(main)
