"""The settings of each command, each defined once: its flag, range, default and help are all made of it.

Nothing here imports TensorFlow, so that ``--help`` answers at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from server.flags import REQUIRED, check_settings, require, setting
from server.images.dicom.window import Window, read_windows
from server.images.slice_table import PATIENT_PATTERN
from server.models.contract import is_identifier
from training.evaluation.operating_point import parse_rule
from training.fit.augment import AUGMENTATIONS
from training.fit.models import BACKBONES, MODELS
from training.phantom.recipe import PARTS

FOLDER_SPLITS = ("keep", "merge")
NEAR_DUPLICATES = ("join", "report")
PRECISIONS = ("float32", "mixed_bfloat16")
CLASS_WEIGHTS = ("balanced", "none")
MOST_SEED = 2**32 - 1
"""What all generators of random numbers take."""

MOST_PROCESSES = 1024
MOST_STAGES = max(len(backbone.stages) for backbone in BACKBONES.values())
DEFAULT_PATIENT_PATTERN = PATIENT_PATTERN

SPLIT_PARTS = ("test", "all")
"""Images of a split that can be judged."""


@dataclass(frozen=True, kw_only=True)
class ListingConfig:
    """What says which slices a data folder has, and of whom.

    Raises:
        ValueError: naming the flag, when a value is out of range.
    """

    data: Path = setting(
        REQUIRED,
        "Folder with one folder of PNG, JPEG or DICOM slices per class, whose names are the labels, or with a "
        "labels.csv (columns file, label, and if known patient and study). Around the classes there may be train, val "
        "and test, and in them a folder per patient.",
    )
    label_column: str = setting("label", "Column of labels.csv with the label.")
    exclude_column: str | None = setting(None, "Column of labels.csv that marks images to leave out with 1.")
    patient_pattern: str = setting(
        DEFAULT_PATIENT_PATTERN,
        "Regular expression that matches a whole file name; its group 'patient' (or its first group) is the "
        "patient. Not looked at where labels.csv has a column 'patient', nor, unless given, of DICOM files, which say "
        "whose they are.",
    )
    one_image_per_patient: bool = setting(
        False,
        "States that no two images show the same person, as with synthetic slices; file names are not searched.",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        try:
            groups = re.compile(self.patient_pattern).groups
        except re.error as error:
            raise ValueError(f"--patient-pattern is not a regular expression: {error}") from None
        require(groups >= 1, "patient_pattern", "needs a group (...) around the patient")


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """What commands see of CT values that bring no window of a model with them."""

    window: tuple[str, ...] = setting(
        ("40,80",),
        "Window in which CT values of DICOM files are seen, in Hounsfield units; three windows are three channels. "
        "PNG and JPEG files are taken as they are.",
        metavar="LEVEL,WIDTH",
    )

    @property
    def windows(self) -> tuple[Window, ...]:
        """``window``, read."""
        return read_windows(self.window)

    def check_windows(self) -> None:
        """Checks that there are as many as a network has channels.

        Raises:
            ValueError: naming the flag.
        """
        require(len(self.windows) in (1, 3), "window", f"must be one or three, not {len(self.windows)}")


@dataclass(frozen=True, kw_only=True)
class DataConfig(ListingConfig):
    """Settings of every command that judges labelled slices.

    Raises:
        ValueError: naming the flag, when a value is out of range.
    """

    positive: str = setting("stroke", "Label that is answered when its probability exceeds the threshold.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(WindowConfig, DataConfig):
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
        "Stages of the backbone that are trained with its head at a tenth of the rate, from the last: up to 4 of "
        "resnet50, 6 of efficientnet-lite0. At 0, the frozen network judges each image once and the head learns from "
        "that.",
        least=0,
        most=MOST_STAGES,
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
        "Arithmetic of the training; the saved model is float32 either way. mixed_bfloat16 is faster only with AMX.",
        choices=PRECISIONS,
    )
    validation: float = setting(0.15, "Share of the images that chooses the best epoch.", least=0, most=0.5)
    test: float = setting(
        0.15, "Share of the images that is held out for the figures of the report.", least=0, most=0.5
    )
    split: Path | None = setting(
        None,
        "split.csv of an earlier run, whose split is used again; --validation and --test do not matter then.",
    )
    folder_split: str = setting(
        "keep",
        "Where DATA has train, val and test folders: keep takes them for the split (what has no folder is cut from "
        "train, by patient), merge takes all images for one set and splits that by patient.",
        choices=FOLDER_SPLITS,
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
        "share, youden, or a number.",
    )
    name: str = setting("stroke-cnn", "Name of the model in its spec.")
    version: str = setting("1", "Version of the model in its spec.")
    notes: tuple[str, ...] = setting(
        (),
        "Text for the spec and the report, such as what the model must not be used for.",
        metavar="TEXT",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_windows()
        parse_rule(self.operating_point)
        require(self.learning_rate > 0, "learning_rate", "must be positive")
        require(self.folds is not None or not self.no_weights, "no_weights", "needs --folds")
        require(self.folds is None or self.split is None, "split", "is for a run without --folds")
        for name in ("validation", "test"):
            require(0 < getattr(self, name) < 0.5, name, "must be between 0 and 0.5")
        for name in ("name", "version"):
            require(is_identifier(getattr(self, name)), name, "must be made of letters, digits, '-', '_' and '.'")
        for name in ("weights", "unfreeze", "views"):
            is_default = getattr(self, name) == getattr(TrainConfig, name)
            require(is_default or self.model in BACKBONES, name, f"is for --model {' or '.join(BACKBONES)}")
        if self.model in BACKBONES:
            stages = len(BACKBONES[self.model].stages)
            require(
                self.unfreeze <= stages, "unfreeze", f"must be 0 to {stages} with {self.model}, got {self.unfreeze}"
            )


@dataclass(frozen=True, kw_only=True)
class AuditConfig(WindowConfig, ListingConfig):
    """Settings of ``python -m training audit``."""

    data: Path = setting(
        REQUIRED,
        "Folder with one folder of PNG, JPEG or DICOM slices per class, or with a labels.csv.",
        positional=True,
    )
    out: Path = setting(Path("audit"), "Folder for audit.md and audit.png; earlier ones in it are not overwritten.")
    strict: bool = setting(
        False,
        "Fail with exit code 2 when an image cannot be decoded; otherwise such images are listed and left out.",
    )
    json: bool = setting(False, "Print everything as JSON.")
    seed: int = setting(7, "Seed of the leakage test's folds.", least=0, most=MOST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_windows()


@dataclass(frozen=True, kw_only=True)
class PhantomConfig:
    """Settings of ``python -m training phantom``."""

    out: Path = setting(REQUIRED, "Folder to write; it must not exist or be empty.")
    count: int = setting(REQUIRED, "Number of slices, half of each class.", least=2, most=10_000_000)
    seed: int = setting(7, "Seed of all slices: the same seed and count give the same files.", least=0, most=MOST_SEED)
    size: int = setting(256, "Side of a slice, in pixels.", least=32, most=8192)
    processes: int | None = setting(
        None,
        "Processes that draw slices; as many as there are processors unless told.",
        least=1,
        most=MOST_PROCESSES,
    )
    slices_per_patient: int = setting(
        1,
        "Slices of each drawn head; with more than one, files are named '<patient> (<slice>).png'.",
        metavar="COUNT",
        least=1,
        most=1000,
    )
    without: tuple[str, ...] = setting(
        (),
        f"Parts of the generator to leave out, for an ablation: {', '.join(PARTS)}.",
        choices=PARTS,
        metavar="NAME",
    )
    dicom: bool = setting(
        False,
        "Writes CT values as DICOM files (CT Image Storage); needs pydicom. With several slices a patient, each is a "
        "study of the whole head in a folder of its own, every other with a stroke.",
    )
    window: str | None = setting(
        None,
        "Writes the same CT values as PNG in this window, in Hounsfield units: without it and --dicom, windows vary as "
        "loosely as hospitals keep them.",
        metavar="LEVEL,WIDTH",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        require(not (self.dicom and self.window), "window", "is for PNG, not for --dicom")
        read_windows((self.window,) if self.window else ())


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


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """Settings of ``python -m training card``."""

    run: Path = setting(REQUIRED, "Run folder whose model_card.md and spec.json are written.", positional=True)
    facts: Path | None = setting(
        None,
        "JSON file with facts that the run has not recorded, or has recorded wrongly; they are kept in the run.",
    )
