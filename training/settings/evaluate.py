"""Settings of ``python -m training evaluate``, and what other commands that judge models share with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.flags import REQUIRED, require, setting
from training.settings.listing import DataConfig, SubgroupConfig

GIVEN = "given"
"""What --split may be besides a file."""

SPLIT_PARTS = ("test", "all")
"""Images of a split that can be judged."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(DataConfig):
    """Settings of commands that judge labelled slices with models as they are: which slices, and what is told apart.

    Raises:
        ValueError: naming the flag, when a value is out of range.
    """

    positive: tuple[str, ...] = setting(
        ("stroke",),
        "Labels of the positive images in DATA; where there is none of that name, 1, or else the model's own.",
        metavar="LABEL",
    )
    split: str | None = setting(
        None,
        "Only images of --part are judged, and training images are what the nearest neighbour learns from: by FILE, "
        "split.csv of the run that made the model, or as given by DATA, in folders train, val and test or in a column "
        "split of labels.csv.",
        metavar="{given,FILE}",
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


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(SubgroupConfig, JudgeConfig):
    """Settings of ``python -m training evaluate``."""

    model: str = setting(
        REQUIRED,
        "Run folder, .keras or .h5 file with its spec.json beside it, model folder, .onnx file, or HOST:PORT of a "
        "running server.",
        positional=True,
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
        "Folder to write evaluation.md, .html and .json, predictions.csv, patients.csv and plots to; it must not exist "
        "or be empty.",
    )
    json: bool = setting(False, "Print JSON instead of Markdown.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_subgroups()
        for share in self.prevalence:
            require(0 < share < 1, "prevalence", "must be between 0 and 1")
