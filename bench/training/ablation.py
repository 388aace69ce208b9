"""``python -m bench.training.ablation``: what each part of training and generator gives. Hours; kill it and go on.

Synthetic slices alone are trained on and judged. A variant that is in ablation.json with the same settings is not run
again; slices and runs are in build/ablation, to be removed when the generator itself has changed: then ablation.json
takes no more variants either, and is begun anew.
"""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.processes import ROOT
from bench.report.figures import round_figures
from bench.report.machine import describe_machine, say
from bench.training.ablation_judge import HeldOut, judge_scores, predict_slices, read_slices, score_trivially
from bench.training.ablation_page import write_ablation
from bench.training.ablation_variants import BASE_FLAGS, TEST_SEED, TRAINING_SEED, VARIANTS, Variant
from bench.training.auc import compare_aucs, estimate_auc
from bench.training.page import PACKAGES
from server.flags import REQUIRED, LineParser, parse_settings, setting
from server.process.children import run, run_main
from training.settings.listing import MOST_SEED

FOLDER = ROOT / "build" / "ablation"
MODEL = "brain_stroke_model.keras"
SCORES = "scores.npz"
SAME_AUC = 0.002
"""How far the held-out slices' AUC of mid-grey may be from what it was; rounding on another processor moves it less."""


@dataclass(frozen=True)
class AblationOptions:
    """What is run."""

    out: Path = setting(REQUIRED, "folder for ablation.json, .md and .png")
    only: tuple[str, ...] = setting(tuple(VARIANTS), "variants", choices=tuple(VARIANTS), metavar="NAME")
    count: int = setting(5600, "slices to train on", least=2, most=10_000_000)
    test_count: int = setting(1600, "slices to judge on", least=2, most=10_000_000)
    epochs: int = setting(10, "epochs of each training", least=1, most=100_000)
    seeds: tuple[int, ...] = setting((7,), "seeds of the training", least=0, most=MOST_SEED)


@dataclass(frozen=True)
class Plan:
    """What all variants share."""

    count: int
    test_count: int
    epochs: int
    folder: Path = FOLDER

    def list_phantom_flags(self, variant: Variant) -> list[str]:
        """Flags of ``python -m training phantom`` for a variant's training slices."""
        flags = ["--count", str(self.count), "--seed", str(TRAINING_SEED)]
        return [*flags, "--without", *variant.without] if variant.without else flags

    def list_training_flags(self, variant: Variant, seed: int) -> list[str]:
        """Flags of ``python -m training``: every epoch is run, and the best is judged."""
        asked = {"--epochs": str(self.epochs), "--patience": str(self.epochs), "--seed": str(seed)}
        flags = [word for pair in {**BASE_FLAGS, **asked}.items() for word in pair]
        return [*flags, "--one-image-per-patient", *variant.flags]

    def describe(self, variant: Variant, seed: int) -> str:
        """All that decides a variant's result, in one line: a run that has the same line is not run again."""
        words = ["phantom", *self.list_phantom_flags(variant), ";", *self.list_training_flags(variant, seed)]
        initializer = f"; {variant.initializer}" if variant.initializer else ""
        return f"{shlex.join(words)}{initializer}"

    def describe_base(self) -> dict[str, int | str]:
        """What has to be the same for variants to compare."""
        flags = shlex.join(word for pair in BASE_FLAGS.items() for word in pair)
        return {"count": self.count, "test_count": self.test_count, "epochs": self.epochs, "flags": flags}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is missing, and writes after each variant."""
    parser = LineParser("python -m bench.training.ablation", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, AblationOptions, argv)
    run_variants(Plan(options.count, options.test_count, options.epochs), options.only, options.seeds, options.out)
    return 0


def run_variants(plan: Plan, names: Sequence[str], seeds: Sequence[int], out: Path) -> None:
    """Runs what is not in ``ablation.json`` yet, variant by variant, and writes the report after each.

    Raises:
        SystemExit: the variants there are of another base or were judged on slices of another generator, so that new
            ones would not compare with them.
    """
    out.mkdir(parents=True, exist_ok=True)
    path, base = out / "ablation.json", plan.describe_base()
    document: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {"base": base, "runs": {}}
    if document["base"] != base:
        raise SystemExit(
            f"bench: {path} has variants of {document['base']}, not {base}; name another folder with --out"
        )
    slices = read_slices(draw_slices(plan, f"test-{plan.test_count}", ["--seed", str(TEST_SEED)], plan.test_count))
    trivial = list(estimate_auc(score_trivially(slices.images["plain"]), slices.positive))
    before = document["test"]["trivial_auc"] if "test" in document else trivial
    if abs(before[0] - trivial[0]) > SAME_AUC:
        raise SystemExit(
            f"bench: the variants of {path} were judged on slices of another generator (AUC of mid-grey "
            f"{before[0]:.4f}, now {trivial[0]:.4f}); name another folder with --out"
        )
    document["test"] = {"count": len(slices.positive), "positive": int(slices.positive.sum()), "trivial_auc": trivial}
    document["machine"] = describe_machine(PACKAGES)
    for seed in seeds:
        for name in names:
            runs = document["runs"].setdefault(name, {})
            if runs.get(str(seed), {}).get("settings") == plan.describe(VARIANTS[name], seed):
                say(f"{name}, seed {seed}: is done")
                continue
            started = time.monotonic()
            runs[str(seed)] = run_variant(plan, name, seed, slices)
            compare_runs(plan, document, seed, slices)
            write_ablation(round_figures(document), out)
            say(f"{name}, seed {seed}: {time.monotonic() - started:.0f} s")
    write_ablation(round_figures(document), out)


def run_variant(plan: Plan, name: str, seed: int, slices: HeldOut) -> dict[str, Any]:
    """Draws, trains, judges; what an earlier run left unfinished is begun again."""
    variant, run = VARIANTS[name], find_run(plan, name, seed)
    data = draw_slices(plan, f"{name if variant.without else 'base'}-{plan.count}", plan.list_phantom_flags(variant))
    for leftover in (run, run.with_name(run.name + ".partial")):
        shutil.rmtree(leftover, ignore_errors=True)
    module = ["bench.training.ablation_variants", variant.initializer] if variant.initializer else ["training"]
    started = time.monotonic()
    call_module([*module, "--data", str(data), "--out", str(run), *plan.list_training_flags(variant, seed)])
    seconds = time.monotonic() - started
    scores = predict_slices(run / MODEL, slices)
    np.savez(run / SCORES, **scores)  # type: ignore[arg-type] # NumPy's own stub takes them for its one option
    if variant.without:
        shutil.rmtree(data)  # hundreds of MB that nothing else is trained on
    with (run / "history.csv").open(encoding="utf-8", newline="") as stream:
        curve = [float(row["val_auc"]) for row in csv.DictReader(stream)]
    return {
        "about": variant.about,
        "settings": plan.describe(variant, seed),
        "curve": curve,
        "seconds": seconds,
        **judge_scores(scores, slices),
    }


def compare_runs(plan: Plan, document: dict[str, Any], seed: int, slices: HeldOut) -> None:
    """Sets every variant of a seed whose scores are here against the base's on the same slices."""
    base = find_run(plan, "base", seed) / SCORES
    if not base.exists():
        return
    theirs = dict(np.load(base))
    for name, runs in document["runs"].items():
        path = find_run(plan, name, seed) / SCORES
        if name == "base" or str(seed) not in runs or not path.exists():
            continue
        ours = dict(np.load(path))
        if len(ours["plain"]) == len(theirs["plain"]) == len(slices.positive):
            runs[str(seed)]["difference"] = {
                condition: list(compare_aucs(values, theirs[condition], slices.positive))
                for condition, values in ours.items()
            }


def find_run(plan: Plan, name: str, seed: int) -> Path:
    """The run folder of a variant."""
    return plan.folder / "runs" / f"{name}-{seed}"


def draw_slices(plan: Plan, name: str, flags: Sequence[str], count: int | None = None) -> Path:
    """Returns a folder of slices, drawn unless it is there; it appears when it is complete."""
    folder = plan.folder / "slices" / name
    if not folder.exists():
        counted = ["--count", str(count)] if count else []
        call_module(["training", "phantom", "--out", str(folder), *flags, *counted])
    return folder


def call_module(words: Sequence[str]) -> None:
    """Runs ``python -m``; its progress is shown.

    Raises:
        SystemExit: it failed.
    """
    if run([sys.executable, "-m", *words], cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
        raise SystemExit(f"bench: python -m {shlex.join(words)} failed; what is done is kept, run this again to go on")


if __name__ == "__main__":
    run_main(main)
