"""``python -m bench.training.findings``: what each part of the synthetic slices does to a model's answers.

Every slice that has a part is judged twice, with it and drawn again without it; nothing else in the slice differs,
since each part of the generator draws from a random stream of its own. So the difference is the part's doing. No real
slice is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import sem

from bench.report.figures import round_figures
from bench.report.machine import describe_machine, format_machine, say
from bench.report.tables import render_table
from bench.training.auc import NORMAL_QUANTILE
from server.flags import REQUIRED, LineParser, parse_settings, setting
from server.machine.processors import count_processors
from server.models.runtime import OnnxModel, load_model
from server.process.children import end_with_parent, run_main
from training.phantom.dataset import choose_kind
from training.phantom.patient import Patient
from training.phantom.recipe import PARTS, Recipe
from training.phantom.slice import generate_slice

SEED = 13
"""Of the slices: no training, calibration or ablation draws from it."""

HEAD = """\
# What each part of a synthetic slice does to the bundled model

Every slice that has a part is judged twice: with it, and drawn again without it, all else equal (`python -m
bench.training.findings`, which also writes [the figures](findings.json)). The shift is that of the log-odds of stroke,
mean and 95 % interval over slices. A hard negative does harm where it makes the model call more normal slices stroke; a
variation of the imaging does where it hides strokes. Synthetic slices that training has not seen; no real slice is read
here.
"""


@dataclass(frozen=True)
class FindingOptions:
    """What is judged."""

    out: Path = setting(REQUIRED, "folder for findings.md and findings.json")
    model: Path = setting(Path("models/stroke-cnn/4"), "folder of the model")
    pairs: int = setting(300, "slices judged for each part", least=2, most=1_000_000)
    only: tuple[str, ...] = setting(PARTS, "parts", choices=PARTS, metavar="PART")


@dataclass(frozen=True)
class Pair:
    """One slice with a part and without it."""

    positive: bool
    with_part: NDArray[np.uint8]
    without: NDArray[np.uint8]


def main(argv: Sequence[str] | None = None) -> int:
    """Judges every part and writes the page."""
    parser = LineParser("python -m bench.training.findings", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, FindingOptions, argv)
    model = load_model(options.model)
    parts = {}
    context = get_context("spawn")
    with ProcessPoolExecutor(count_processors(), mp_context=context, initializer=end_with_parent) as pool:
        for part in options.only:
            pairs = list(pool.map(partial(draw_pair, part), find_slices(part, options.pairs), chunksize=8))
            parts[part] = judge_pairs(model, pairs)
            say(f"{part}: {len(pairs)} pairs")
    document = {
        "machine": describe_machine(("onnxruntime", "numpy")),
        "model": {"name": model.spec.name, "version": model.spec.version, "threshold": model.spec.threshold},
        "digest": model.digest,
        "pairs": options.pairs,
        "parts": parts,
    }
    write_findings(round_figures(document), options.out)
    return 0


def find_slices(part: str, count: int) -> Iterator[int]:
    """The first numbers of slices whose patient has a part."""
    index = 0
    while count:
        if part in Patient(find_key(index)).parts:
            count -= 1
            yield index
        index += 1


def find_key(index: int) -> int:
    """Key of the patient whom a slice shows."""
    return int(np.random.default_rng([SEED, index]).integers(1 << 62))


def draw_pair(part: str, index: int) -> Pair:
    """Draws a slice with and without a part; uint8 [256, 256] each."""
    kind = choose_kind(index)
    pixels = [
        generate_slice(
            np.random.default_rng([SEED, index, 0]), kind=kind, patient=Patient(find_key(index), recipe)
        ).pixels
        for recipe in (Recipe(), Recipe().leave_out([part]))
    ]
    return Pair(kind is not None, *pixels)


def judge_pairs(model: OnnxModel, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Returns, for normal slices and for strokes: how many, the shift, and the share called stroke with and without."""
    scores = {
        name: model.spec.positive_scores(
            np.concatenate([model.run(getattr(pair, name)[np.newaxis, :, :, np.newaxis]) for pair in pairs])
        ).astype(np.float64)
        for name in ("with_part", "without")
    }
    log_odds = {
        name: np.log(np.clip(values, 1e-7, None) / np.clip(1 - values, 1e-7, None)) for name, values in scores.items()
    }
    positive = np.array([pair.positive for pair in pairs])
    judged = {}
    for name, chosen in (("normal", ~positive), ("stroke", positive)):
        shifts = (log_odds["with_part"] - log_odds["without"])[chosen]
        half = NORMAL_QUANTILE * float(sem(shifts))
        judged[name] = {
            "slices": int(chosen.sum()),
            "shift": [float(shifts.mean()), float(shifts.mean()) - half, float(shifts.mean()) + half],
            "called_with": float((scores["with_part"][chosen] > model.spec.threshold).mean()),
            "called_without": float((scores["without"][chosen] > model.spec.threshold).mean()),
        }
    return judged


def write_findings(document: dict[str, Any], out: Path) -> None:
    """Writes ``findings.json`` and ``findings.md``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "findings.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    (out / "findings.md").write_text(render_findings(document), "utf-8")


def render_findings(document: dict[str, Any]) -> str:
    """The page in Markdown."""
    model, parts = document["model"], document["parts"]
    order = sorted(parts, key=lambda part: -parts[part]["normal"]["shift"][0])
    texts = [
        HEAD.rstrip(),
        f"{model['name']} {model['version']} (SHA-256 `{document['digest'][:12]}…`), stroke where p > "
        f"{model['threshold']:.3f}; {document['pairs']} slices for each part. "
        f"{format_machine(document['machine'], '')}.",
        render_table(
            (
                "part",
                "normal: shift",
                "called stroke with",
                "without",
                "stroke: shift",
                "called stroke with",
                "without",
            ),
            ((f"`{part}`", *list_cells(parts[part]["normal"]), *list_cells(parts[part]["stroke"])) for part in order),
        ),
        "What each part is: `python -m training phantom --help`, and `training/phantom/recipe.py`.",
    ]
    return "\n\n".join(texts) + "\n"


def list_cells(side: dict[str, Any]) -> tuple[str, str, str]:
    """Shift with its interval, and the two shares."""
    shift, low, high = side["shift"]
    return f"{shift:+.2f} ({low:+.2f} to {high:+.2f})", f"{side['called_with']:.1%}", f"{side['called_without']:.1%}"


if __name__ == "__main__":
    run_main(main)
