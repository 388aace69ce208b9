"""The settings of each command, once: field, default and description are also the flag, its default and its help.

Nothing here imports TensorFlow, so that ``--help`` answers at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from server.models.contract import is_identifier
from training.errors import TrainingError
from training.evaluation.operating_point import parse_rule
from training.fit.augment import AUGMENTATIONS
from training.fit.models import BACKBONES, MODELS
from training.flags import check_numbers, number, require
from training.phantom.recipe import PARTS

NEAR_DUPLICATES = ("join", "report")
PRECISIONS = ("float32", "mixed_bfloat16")
CLASS_WEIGHTS = ("balanced", "none")
MOST_SEED = 2**32 - 1
"""What all generators of random numbers take."""

MOST_PROCESSES = 1024
MOST_STAGES = max(len(backbone.stages) for backbone in BACKBONES.values())
DEFAULT_PATIENT_PATTERN = r"(?P<patient>.+) \(\d+\)\.\w+"
"""``<patient> (<slice>).jpg``, how the public sets name their slices."""

SPLIT_PARTS = ("test", "all")
"""Images of a split that can be judged."""


@dataclass(frozen=True, kw_only=True)
class ListingConfig:
    """What says which slices a data folder has, and of whom.

    Raises:
        TrainingError: naming the flag, when a value is out of range.
    """

    data: Path
    """Folder with one folder of PNG or JPEG slices per class, whose names are the labels, or with a labels.csv (columns
    file, label, and if known patient and study)."""

    label_column: str = "label"
    """Column of labels.csv with the label."""

    exclude_column: str | None = None
    """Column of labels.csv that marks images to leave out with 1."""

    patient_pattern: str = DEFAULT_PATIENT_PATTERN
    """Regular expression that matches a whole file name; its group 'patient' (or its first group) is the patient. Not
    looked at where labels.csv has a column 'patient'."""

    one_image_per_patient: bool = False
    """States that no two images show the same person, as with synthetic slices; file names are not searched."""

    def __post_init__(self) -> None:
        check_numbers(self)
        try:
            groups = re.compile(self.patient_pattern).groups
        except re.error as error:
            raise TrainingError(f"--patient-pattern is not a regular expression: {error}") from None
        require(groups >= 1, "patient_pattern", "needs a group (...) around the patient")


@dataclass(frozen=True, kw_only=True)
class DataConfig(ListingConfig):
    """Settings of every command that judges labelled slices.

    Raises:
        TrainingError: naming the flag, when a value is out of range.
    """

    positive: str = "stroke"
    """Label that is answered when its probability exceeds the threshold."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DataConfig):
    """Settings of ``python -m training``."""

    out: Path
    """Run folder to write; it must not exist."""

    model: str = field(default="cnn", metadata={"choices": tuple(MODELS)})
    """Network to train: the paper's CNN, or a dense head on ResNet-50."""

    weights: str = "imagenet"
    """What resnet50 starts with: imagenet (Keras's file in ~/.keras/models; nothing is downloaded), a file of ResNet-50
    weights without top (.h5), a model of an earlier run (.keras or .h5), or none (random: for tests only)."""

    unfreeze: int = 0
    """Stages of resnet50 that are trained with its head at a tenth of the rate, from the last: 0 to 4. At 0, the frozen
    network judges each image once and the head learns from that."""

    views: int = number(2, 1, 1000)
    """Variations of each image that a frozen resnet50 judges; the first is the image as it is. Each costs as much as an
    epoch through it; in bfloat16, half of that."""

    epochs: int = number(20, 1, 100_000)
    """Most passes over the training images."""

    batch_size: int = number(16, 1, 65_536)
    """Images a step."""

    learning_rate: float = number(3e-4, 0, 10)
    """Step size of Adam at the start; it falls along a cosine to 0 over the epochs."""

    seed: int = number(7, 0, MOST_SEED)
    """Seed of split, initial weights, order and augmentation."""

    patience: int = number(5, 1, 100_000)
    """Epochs without a lower validation loss after which training stops."""

    augment: str = field(default="head-ct", metadata={"choices": tuple(AUGMENTATIONS)})
    """How training images are varied."""

    class_weights: str = field(default="balanced", metadata={"choices": CLASS_WEIGHTS})
    """Weight of the classes in the loss: balanced (the same for each class, whatever its share) or none."""

    lesion_weight: float = number(3.0, 0, 1000)
    """Weight in the loss of each auxiliary head that learns lesion masks, where DATA has them; 0 for none."""

    precision: str = field(default="float32", metadata={"choices": PRECISIONS})
    """Arithmetic of the training; the saved model is float32 either way. mixed_bfloat16 is faster only with AMX."""

    validation: float = 0.15
    """Share of the images that chooses the best epoch."""

    test: float = 0.15
    """Share of the images that is held out for the figures of the report."""

    split: Path | None = None
    """split.csv of an earlier run, whose split is used again; --validation and --test do not matter then."""

    near_duplicates: str = field(default="join", metadata={"choices": NEAR_DUPLICATES})
    """What to do with images of different patients that look the same: join keeps them in one split, report warns."""

    folds: int | None = None
    """Cross-validation: people are dealt into so many parts, each is held out once, and the answers are pooled."""

    no_weights: bool = False
    """Leaves the folds' figures and answers but no model, as licences of some data demand; needs --folds."""

    random_split: bool = False
    """Trains once more on a random split of slices and states its figures beside the honest ones, as leakage."""

    resume: bool = False
    """Goes on where a run with the same flags and data was stopped; starts anew where there is none."""

    operating_point: str = "paper"
    """How the decision threshold is chosen on validation patients: paper (0.05), sensitivity=0.95 or another share,
    youden, or a number."""

    name: str = "stroke-cnn"
    """Name of the model in its spec."""

    version: str = "1"
    """Version of the model in its spec."""

    notes: tuple[str, ...] = ()
    """Text for the spec and the report, such as what the model must not be used for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_rule(self.operating_point)
        require(self.learning_rate > 0, "learning_rate", "must be positive")
        require(self.folds is None or 2 <= self.folds <= 100, "folds", "must be between 2 and 100")
        require(self.folds is not None or not self.no_weights, "no_weights", "needs --folds")
        require(self.folds is None or self.split is None, "split", "is for a run without --folds")
        for name in ("validation", "test"):
            require(0 < getattr(self, name) < 0.5, name, "must be between 0 and 0.5")
        for name in ("name", "version"):
            require(is_identifier(getattr(self, name)), name, "must be made of letters, digits, '-', '_' and '.'")
        choices_of = {
            "model": MODELS,
            "augment": AUGMENTATIONS,
            "precision": PRECISIONS,
            "class_weights": CLASS_WEIGHTS,
            "near_duplicates": NEAR_DUPLICATES,
        }
        for name, choices in choices_of.items():
            require(getattr(self, name) in choices, name, f"must be one of {', '.join(choices)}")
        require(0 <= self.unfreeze <= MOST_STAGES, "unfreeze", f"must be between 0 and {MOST_STAGES}")
        for name in ("weights", "unfreeze", "views"):
            is_default = getattr(self, name) == getattr(TrainConfig, name)
            require(is_default or self.model in BACKBONES, name, f"is for --model {' or '.join(BACKBONES)}")


@dataclass(frozen=True, kw_only=True)
class AuditConfig(ListingConfig):
    """Settings of ``python -m training audit``."""

    data: Path = field(metadata={"positional": True})
    """Folder with one folder of PNG or JPEG slices per class, or with a labels.csv."""

    out: Path = Path("audit")
    """Folder for audit.md and audit.png; earlier ones in it are not overwritten."""

    strict: bool = False
    """Fail with exit code 2 when an image cannot be decoded; otherwise such images are listed and left out."""

    json: bool = False
    """Print everything as JSON."""

    seed: int = number(7, 0, MOST_SEED)
    """Seed of the leakage test's folds."""


@dataclass(frozen=True, kw_only=True)
class PhantomConfig:
    """Settings of ``python -m training phantom``."""

    out: Path
    """Folder to write; it must not exist or be empty."""

    count: int = field(metadata={"least": 2, "most": 10_000_000})
    """Number of slices, half of each class."""

    seed: int = number(7, 0, MOST_SEED)
    """Seed of all slices: the same seed and count give the same files."""

    size: int = 256
    """Side of a slice, in pixels."""

    processes: int | None = number(None, 1, MOST_PROCESSES)
    """Processes that draw slices; as many as there are processors unless told."""

    slices_per_patient: int = number(1, 1, 1000)
    """Slices of each drawn head; with more than one, files are named '<patient> (<slice>).png'."""

    without: tuple[str, ...] = field(default=(), metadata={"choices": PARTS})
    """Parts of the generator to leave out, for an ablation."""

    def __post_init__(self) -> None:
        check_numbers(self)
        for name in self.without:
            require(name in PARTS, "without", f"must be one of {', '.join(PARTS)}, not {name!r}")
        require(32 <= self.size <= 8192, "size", "must be between 32 and 8192")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DataConfig):
    """Settings of ``python -m training evaluate``."""

    model: str = field(metadata={"positional": True})
    """Run folder, .keras or .h5 file with its spec.json beside it, model folder, .onnx file, or HOST:PORT of a running
    server."""

    positive: str = "stroke"
    """Label of the positive images in DATA; where there is none of that name, 1."""

    split: Path | None = None
    """split.csv of the run that made the model: only images of --part are judged, and its training images are what the
    nearest neighbour learns from."""

    part: str = field(default="test", metadata={"choices": SPLIT_PARTS})
    """Images of --split to judge."""

    trivial_column: str | None = None
    """Column of labels.csv with a number that needs no model, such as the share of brain, to take for the trivial score
    instead of the share of mid-grey pixels."""

    subset: tuple[str, ...] = ()
    """Parts of the images to judge as well, each by a number in labels.csv: 'brain_fraction>=0.05', or with <=, >, <
    or =."""

    prevalence: tuple[float, ...] = (0.02, 0.05, 0.15, 0.38)
    """Prevalences at which PPV and NPV are restated."""

    out: Path | None = None
    """Folder to write evaluation.md, evaluation.json, predictions.csv and plots to; it must not exist or be empty."""

    json: bool = False
    """Print JSON instead of Markdown."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.part in SPLIT_PARTS, "part", f"must be one of {', '.join(SPLIT_PARTS)}")
        for share in self.prevalence:
            require(0 < share < 1, "prevalence", "must be between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """Settings of ``python -m training card``."""

    run: Path = field(metadata={"positional": True})
    """Run folder whose model_card.md and spec.json are written."""

    facts: Path | None = None
    """JSON file with facts that the run has not recorded, or has recorded wrongly; they are kept in the run."""
