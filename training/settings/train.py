"""Settings of ``python -m training``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.flags import REQUIRED, require, setting
from server.models.contract import is_identifier
from training.evaluation.operating_point import parse_rule
from training.fit.augment import AUGMENTATIONS
from training.fit.models import BACKBONES, MODELS
from training.settings.listing import MOST_SEED, DataConfig, SubgroupConfig, WindowConfig

AUTO, GIVEN, MERGE = "auto", "given", "merge"
"""What --split may be besides a file."""

NEAR_DUPLICATES = ("join", "report")
PRECISIONS = ("float32", "mixed_bfloat16")
CLASS_WEIGHTS = ("balanced", "none")
MOST_STAGES = max(len(backbone.stages) for backbone in BACKBONES.values())


@dataclass(frozen=True, kw_only=True)
class TrainConfig(WindowConfig, SubgroupConfig, DataConfig):
    """Settings of ``python -m training``."""

    out: Path = setting(REQUIRED, "Run folder to write; it must not exist.")
    model: str = setting(
        "cnn",
        "Network to train: the paper's CNN, or a dense head on ResNet-50 or EfficientNet-Lite0.",
        choices=tuple(MODELS),
    )
    weights: str = setting(
        "imagenet",
        "What a backbone starts with: imagenet (ResNet-50: downloaded by Keras into ~/.keras/models; "
        "EfficientNet-Lite0: of the package that requirements/extras/efficientnet.lock installs), a file of the same "
        "weights without top (.h5 or .pth), a model of an earlier run (.keras or .h5), or none (random: for tests and "
        "as a control).",
    )
    unfreeze: int = setting(
        0,
        "Stages of the backbone that are trained with its head, from the last: up to 4 of resnet50, 6 of "
        "efficientnet-lite0. At 0, the frozen network judges each image once and the head learns from that.",
        least=0,
        most=MOST_STAGES,
    )
    backbone_rate: float = setting(
        0.1,
        "Learning rate of the backbone's stages that are trained, as a share of the head's.",
        least=0,
        most=1,
    )
    views: int = setting(
        2,
        "Variations of each image that a frozen backbone judges; the first is the image as it is. Each costs as "
        "much as an epoch through it; in bfloat16, half of that.",
        least=1,
        most=1000,
    )
    epochs: int = setting(20, "Most passes over the training images.", least=1, most=100_000)
    batch_size: int = setting(16, "Images a step.", least=1, most=65_536)
    learning_rate: float = setting(
        3e-4,
        "Step size of Adam at the start; it falls along a cosine to 0 over the epochs.",
        least=0,
        most=10,
    )
    seed: int = setting(7, "Seed of split, initial weights, order and augmentation.", least=0, most=MOST_SEED)
    patience: int = setting(
        5,
        "Epochs without a lower validation loss after which training stops.",
        least=1,
        most=100_000,
    )
    augment: str = setting("head-ct", "How training images are varied.", choices=tuple(AUGMENTATIONS))
    class_weights: str = setting(
        "balanced",
        "Weight of the classes in the loss: balanced (the same for each class, whatever its share) or none.",
        choices=CLASS_WEIGHTS,
    )
    lesion_weight: float = setting(
        3.0,
        "Weight in the loss of each auxiliary head that learns lesion masks, where DATA has them; 0 for none.",
        least=0,
        most=1000,
    )
    precision: str = setting(
        "float32",
        "Arithmetic of the training; the saved model is float32 either way. mixed_bfloat16 is "
        "faster only where the processor has it (avx512_bf16, amx_bf16), and not with depthwise convolutions.",
        choices=PRECISIONS,
    )
    validation: float = setting(0.15, "Share of the images that chooses the best epoch.", least=0, most=0.5)
    test: float = setting(
        0.15, "Share of the images that is held out for the figures of the report.", least=0, most=0.5
    )
    split: str = setting(
        AUTO,
        "Who is trained on. DATA may bring a split, in folders train, val and test or in a column split of labels.csv: "
        "auto takes it unless a patient, a copy or a near-copy is in two parts, and splits by patient where there is "
        "none; given takes it whatever it leaks, and says so beside every figure; merge splits by patient all the "
        "same. A part that is not brought is cut from train, by patient. Or a FILE: split.csv of an earlier run, whose "
        "split is used again.",
        metavar="{auto,given,merge,FILE}",
    )
    near_duplicates: str = setting(
        "join",
        "What to do with images of different patients that look the same: join keeps them in one split, report warns.",
        choices=NEAR_DUPLICATES,
    )
    folds: int | None = setting(
        None,
        "Cross-validation: people are dealt into so many parts, each is held out once, and the answers are pooled.",
        least=2,
        most=100,
    )
    no_weights: bool = setting(
        False,
        "Leaves the folds' figures and answers but no model, as licences of some data demand; needs --folds.",
    )
    random_split: bool = setting(
        False,
        "Trains once more on a random split of slices and states its figures beside the honest ones, as leakage.",
    )
    resume: bool = setting(
        False,
        "Goes on where a run with the same flags and data was stopped; starts anew where there is none.",
    )
    operating_point: str = setting(
        "paper",
        "How the decision threshold is chosen on validation patients: paper (0.05), sensitivity=0.95 or another "
        "share, specificity=0.95 likewise, youden, or a number.",
    )
    name: str = setting("stroke-cnn", "Name of the model in its spec.")
    version: str = setting("1", "Version of the model in its spec.")
    notes: tuple[str, ...] = setting(
        (),
        "Text for the spec and the report, such as what the model must not be used for.",
        metavar="TEXT",
    )

    @property
    def split_file(self) -> Path | None:
        """``split.csv`` of an earlier run, where that was asked for."""
        return None if self.split in (AUTO, GIVEN, MERGE) else Path(self.split)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_windows()
        self.check_subgroups()
        parse_rule(self.operating_point)
        for name in ("learning_rate", "backbone_rate"):
            require(getattr(self, name) > 0, name, "must be positive")
        require(self.folds is not None or not self.no_weights, "no_weights", "needs --folds")
        require(self.folds is None or self.split in (AUTO, MERGE), "split", "is for a run without --folds")
        for name in ("validation", "test"):
            require(0 < getattr(self, name) < 0.5, name, "must be between 0 and 0.5")
        for name in ("name", "version"):
            require(is_identifier(getattr(self, name)), name, "must be made of letters, digits, '-', '_' and '.'")
        for name in ("weights", "unfreeze", "backbone_rate", "views"):
            is_default = getattr(self, name) == getattr(TrainConfig, name)
            require(is_default or self.model in BACKBONES, name, f"is for --model {' or '.join(BACKBONES)}")
        if self.model in BACKBONES:
            stages = len(BACKBONES[self.model].stages)
            require(
                self.unfreeze <= stages, "unfreeze", f"must be 0 to {stages} with {self.model}, got {self.unfreeze}"
            )
