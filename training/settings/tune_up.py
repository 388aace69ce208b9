"""Settings of ``python -m training tune-up``: those of a training, without what an earlier model settles."""

from __future__ import annotations

from dataclasses import dataclass, fields

from server.flags import REQUIRED, require, setting
from training.settings.train import TrainConfig

SETTLED = (
    *("window", "model", "weights", "unfreeze", "views", "lesion_weight", "precision"),
    *("folds", "no_weights", "random_split"),
)
"""Settings of a training that are not asked for: the model says them, or they are for a training from nothing."""

OWN_NAME, NEXT_VERSION = "own", "next"
"""What stands for the model's own name, and for the version after its own."""


@dataclass(frozen=True, kw_only=True)
class TuneUpConfig(TrainConfig):
    """Settings of ``python -m training tune-up``.

    Raises:
        ValueError: naming the flag, when a value is out of range.
    """

    parent: str = setting(
        REQUIRED,
        "Run folder, .keras or .h5 file with its spec.json beside it, or model folder or .onnx file with the paper's "
        "CNN. It stays as it is.",
        positional=True,
        metavar="MODEL",
    )
    positive: tuple[str, ...] = setting(
        ("stroke",),
        "Labels of the positive images in DATA, where it does not have the labels of MODEL.",
        metavar="LABEL",
    )
    last_epochs: int = setting(
        10, "Most passes over the training images in which the last layers alone are trained.", least=0, most=100_000
    )
    last_rate: float = setting(1e-3, "Step size of Adam in these passes, at their start.", least=0, most=10)
    epochs: int = setting(
        10,
        "Most passes after them in which all layers are trained; 0 with --last-epochs 0: calibration and threshold "
        "alone are new.",
        least=0,
        most=100_000,
    )
    learning_rate: float = setting(
        1e-4,
        "Step size of Adam in those, at their start; either falls along a cosine to 0.",
        least=0,
        most=10,
    )
    validation: float = setting(
        0.2, "Share of the images that chooses epoch, calibration and threshold.", least=0, most=0.5
    )
    test: float = setting(0.3, "Share of the images that says whether it helped.", least=0, most=0.5)
    operating_point: str = setting(
        "sensitivity=0.95",
        "How the decision threshold is chosen on validation patients: sensitivity=0.95 or another share, "
        "specificity=0.95 likewise, youden, paper (0.05), or a number.",
    )
    lesion_weight: float = setting(0.0, "Labels alone are learned from.", least=0, most=0)
    name: str = setting(OWN_NAME, f"Name of the result in its spec; {OWN_NAME}: that of MODEL.")
    version: str = setting(NEXT_VERSION, f"Version of the result; {NEXT_VERSION}: the one after that of MODEL.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.last_rate > 0, "last_rate", "must be positive")


ASKED = tuple(field.name for field in fields(TuneUpConfig) if field.name not in SETTLED)
"""The settings that are asked for."""
