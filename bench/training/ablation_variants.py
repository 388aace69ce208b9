"""What is ablated: one base training, and variants that differ from it in one thing each; easy to add to.

``python -m bench.training.ablation_variants INITIALIZER FLAG…`` is ``python -m training`` whose CNN starts otherwise.
That is no flag of the product: one way learns, and the ablation shows it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

BASE_FLAGS = {
    "--model": "cnn",
    "--batch-size": "16",
    "--learning-rate": "1e-3",
    "--augment": "any-source",
    "--validation": "0.06",
    "--test": "0.06",
    "--precision": "mixed_bfloat16",
}
"""Flags of ``python -m training``: the bundled model's (models/make_default.sh). Epochs and seed are asked for."""

TRAINING_SEED, TEST_SEED = 11, 12
"""Seeds of the generator: for what is trained on, and for what everything is judged on."""

HARD_NEGATIVES = (
    "calcification",
    "bright_dura",
    "sinuses",
    "streaks",
    "metal",
    "drain",
    "surgery",
    "swelling",
    "tumour",
    "old_infarct",
    "white_matter",
    "caps",
    "dense_vessels",
    "motion",
)
"""Findings of the generator that are no stroke but look like one, or distract.

All are left out together, since together they cost 0.01 to 0.02 of AUC (docs/ablation.md), where the interval of one
training is 0.015 to either side. What one of them does to a model is measured by ``bench.training.findings``.
"""

WITHOUT_FINDINGS = "without-hard-negatives"
"""Name of the variant that has none of these."""


@dataclass(frozen=True)
class Variant:
    """A training that differs from the base in one thing."""

    about: str
    """What differs, for the report."""

    flags: tuple[str, ...] = ()
    """Further flags of ``python -m training``; the last of a kind counts."""

    initializer: str | None = None
    """How convolutions and the dense layer start, where it is not the product's way."""

    without: tuple[str, ...] = ()
    """Parts of the generator that the training slices are drawn without (``phantom --without``)."""


VARIANTS: dict[str, Variant] = {
    "base": Variant("the base"),
    "no-heads": Variant("no lesion-map heads: the label alone teaches", ("--lesion-weight", "0")),
    "batch-64": Variant("batches of 64", ("--batch-size", "64")),
    "glorot": Variant("Glorot's initialisation", initializer="glorot_uniform"),
    "scanner-aug": Variant(
        "augmentation `scanner`: smaller changes of window, kernel and size", ("--augment", "scanner")
    ),
    "head-ct-aug": Variant("augmentation `head-ct`: no blur, noise, grey curve or JPEG", ("--augment", "head-ct")),
    "paper-aug": Variant("augmentation `paper`: flips both ways, rotation", ("--augment", "paper")),
    "no-aug": Variant("no augmentation", ("--augment", "none")),
    "epochs-20": Variant("twice the epochs", ("--epochs", "20", "--patience", "20")),
    WITHOUT_FINDINGS: Variant("drawn without any hard negative", without=HARD_NEGATIVES),
}


def main(argv: Sequence[str]) -> int:
    """Trains with an initializer; the exit code is that of the training."""
    if argv[:1] in ([], ["--help"], ["-h"]):
        print("usage: python -m bench.training.ablation_variants INITIALIZER FLAG… (flags: python -m training --help)")
        return 0 if argv else 2
    from training import cli
    from training.fit.models import MODELS, build_cnn

    initializer, *flags = argv
    MODELS["cnn"] = partial(build_cnn, initializer=initializer)
    return cli.main(flags)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
