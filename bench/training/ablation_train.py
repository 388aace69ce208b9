"""``python -m bench.training.ablation_train INITIALIZER FLAG…``: ``python -m training`` whose CNN starts otherwise.

The initialisation is no flag of the product: one way learns, and the ablation shows that.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from training import cli
from training.fit.models import MODELS, build_cnn


def main(argv: Sequence[str]) -> int:
    """Trains; the exit code is that of the training."""
    initializer, *flags = argv
    MODELS["cnn"] = partial(build_cnn, initializer=initializer)
    return cli.main(flags)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
