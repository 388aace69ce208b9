"""Settings of ``python -m training evaluate`` and ``study-rule``, which judge models that are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.flags import REQUIRED, require, setting
from training.settings.listing import DataConfig

SPLIT_PARTS = ("test", "all")
"""Images of a split that can be judged."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DataConfig):
    """Settings of ``python -m training evaluate``."""

    model: str = setting(
        REQUIRED,
        "Run folder, .keras or .h5 file with its spec.json beside it, model folder, .onnx file, or HOST:PORT of a "
        "running server.",
        positional=True,
    )
    positive: str = setting("stroke", "Label of the positive images in DATA; where there is none of that name, 1.")
    split: Path | None = setting(
        None,
        "split.csv of the run that made the model: only images of --part are judged, and its training images are "
        "what the nearest neighbour learns from.",
    )
    part: str = setting("test", "Images of --split to judge.", choices=SPLIT_PARTS)
    trivial_column: str | None = setting(
        None,
        "Column of labels.csv with a number that needs no model, such as the share of brain, to take for the "
        "trivial score instead of the share of mid-grey pixels.",
    )
    subset: tuple[str, ...] = setting(
        (),
        "Parts of the images to judge as well, each by a number in labels.csv: 'brain_fraction>=0.05', or with <=, "
        ">, < or =.",
        metavar="TEXT",
    )
    prevalence: tuple[float, ...] = setting(
        (0.02, 0.05, 0.15, 0.38),
        "Prevalences at which PPV and NPV are restated.",
        least=0,
        most=1,
        metavar="NUMBER",
    )
    out: Path | None = setting(
        None,
        "Folder to write evaluation.md, evaluation.json, predictions.csv and plots to; it must not exist or be empty.",
    )
    json: bool = setting(False, "Print JSON instead of Markdown.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for share in self.prevalence:
            require(0 < share < 1, "prevalence", "must be between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class StudyRuleConfig(DataConfig):
    """Settings of ``python -m training study-rule``."""

    model: Path = setting(REQUIRED, "Model folder, such as models/stroke-cnn/2.", positional=True)
    sensitivity: float = setting(
        0.95, "Least share of the positive studies of DATA that the threshold finds.", least=0.01, most=1
    )
    test: Path | None = setting(None, "Folder with other studies, laid out as DATA, to measure the rule on.")
    json: bool = setting(False, "Print JSON.")
