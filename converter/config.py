"""Settings of the converter, each defined once: flags, ranges, defaults and help are all made of it.

Nothing here imports TensorFlow, so that ``--help`` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.pixels.preprocess import CHANNEL_ORDERS, PREPROCESS
from server.flags import REQUIRED, setting
from server.images.dicom.window import read_windows
from server.images.fit import FITS
from server.images.resample import RESAMPLE_FILTERS
from server.models.contract import COLOURS
from server.models.manifest import TARGETS
from training.fit.models import MODELS

INT8_MINUTES = 10
"""What the INT8 variant may take, in all: loading of slices, calibration, search and judgement."""


def window_setting() -> Any:
    """The windows of a model."""
    return setting(
        (),
        "window in which the model sees CT values of DICOM files, in Hounsfield units; three windows are the "
        "channels of an RGB model (default: as the model has it; without one it takes no DICOM files)",
        metavar="LEVEL,WIDTH",
    )


@dataclass(frozen=True)
class ConvertOptions:
    """What to convert into what.

    A command line is checked as it is read; what code gives out of range, the conversion refuses.

    Raises:
        ValueError: a setting is given without the one that it is for; the text names the flags.
    """

    model: Path = setting(REQUIRED, ".keras or .h5 file (Keras 2 or 3), or folder of a SavedModel", positional=True)
    out: Path = setting(REQUIRED, "models/NAME/VERSION, where the result goes", short="-o", metavar="DIR")
    labels: tuple[str, ...] = setting(
        (),
        "classes in the order of the model's output (default: from spec.json beside MODEL)",
        separator=",",
        metavar="A,B",
    )
    positive: tuple[str, ...] = setting(
        (), "label to detect, or several of them (default: from spec.json)", separator=",", metavar="LABEL"
    )
    threshold: float | None = setting(
        None,
        "a positive label is answered above this probability (default: from spec.json)",
        least=0,
        most=1,
        metavar="P",
    )
    preprocess: str | None = setting(
        None,
        "pixel values that MODEL takes: 0..255 when it scales them itself; 0..1, -1..1, caffe (BGR less ImageNet's "
        "means) or torch (0..1 by ImageNet's means and deviations) when that was done before training (default: read "
        "from its layers, or found by --reference)",
        choices=tuple(PREPROCESS),
        short="--input-range",
    )
    channel_order: str | None = setting(
        None,
        "channels before that: bgr when cv2.imread read the files and nothing turned them (default: rgb, or found by "
        "--reference)",
        choices=CHANNEL_ORDERS,
    )
    resample: str | None = setting(
        None,
        "how images were brought to MODEL's size: pillow-, tf- and cv2- are what these libraries do, the others "
        "Pillow's filters in two steps, which are faster (default: from spec.json, found by --reference, or bilinear)",
        choices=RESAMPLE_FILTERS,
    )
    fit: str | None = setting(
        None,
        "what was done to images of another shape (default: from spec.json, found by --reference, or stretch)",
        choices=FITS,
    )
    size: int | None = setting(
        None, "height and width for a MODEL that takes any, in pixels", least=8, most=4096, metavar="PIXELS"
    )
    reference: Path | None = setting(
        None,
        "the author's own answers for files in --images, as CSV: file, and a probability a class. What the author "
        "did to pixels is searched until the served answers are these",
        metavar="FILE.csv",
    )
    activation: str | None = setting(
        None,
        "what MODEL lacks, when it answers logits: softmax of several, sigmoid of one (default: it answers "
        "probabilities)",
        choices=("softmax", "sigmoid"),
    )
    architecture: str | None = setting(
        None,
        "network of the training package that MODEL has weights for, where it has weights alone",
        choices=tuple(MODELS),
    )
    custom: Path | None = setting(
        None, "Python file with layers and functions of MODEL's own; it is run", metavar="FILE.py"
    )
    images: Path = setting(Path("samples"), "images for the proof, and those of --reference", metavar="DIR")
    colour: str | None = setting(
        None,
        "grey: a model of three channels judges grey slices; it then takes one channel, and is faster (default: from "
        "spec.json, or as the model)",
        choices=COLOURS,
    )
    window: tuple[str, ...] = window_setting()
    outlier: bool = setting(False, "add a score of how unlike all that the model knows an image is (some minutes)")
    int8: bool = setting(False, "make the INT8 variant too, if it passes the accuracy gate (some minutes)")
    calibrate: Path | None = setting(
        None,
        "slices that the INT8 variant is calibrated and judged on, and the outlier score fitted to, one folder a class "
        "(default: synthetic ones)",
        metavar="DIR",
    )
    target: str | None = setting(
        None, "processor that the INT8 variant is made for (default: this one's kind)", choices=TARGETS
    )
    int8_minutes: float | None = setting(
        None,
        f"minutes that the INT8 variant may take; the best that passes by then is taken (default: {INT8_MINUTES})",
        least=0.1,
        most=1440,
        metavar="N",
    )
    # Older operator sets lack what the networks need; newer ones neither tf2onnx nor the runtime knows.
    opset: int = setting(17, "ONNX operator set", least=7, most=25, metavar="N")
    force: bool = setting(False, "replace what is in DIR")

    def __post_init__(self) -> None:
        if not self.int8 and (self.target or self.int8_minutes is not None):
            raise ValueError("--target and --int8-minutes are for --int8")
        if self.calibrate and not (self.int8 or self.outlier):
            raise ValueError("--calibrate is for --int8 and --outlier")
        read_windows(self.window)


@dataclass(frozen=True)
class CommandOptions(ConvertOptions):
    """What ``python -m converter`` is told: a conversion, and the form of its report."""

    json: bool = setting(False, "print the report as one JSON object")


@dataclass(frozen=True)
class ReportOptions:
    """What ``python -m converter report`` is told."""

    folder: Path = setting(REQUIRED, "models/NAME/VERSION", positional=True, metavar="DIR")
    json: bool = setting(False, "print the manifest's figures as one JSON object")
