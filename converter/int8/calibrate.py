"""The slices that a quantisation is calibrated and judged on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converter.errors import ConversionError
from converter.int8.patients import KnownSlice, describe_parting, part_patients, read_slices
from converter.pixels.sampling import spread_evenly
from server.errors import ImageError
from server.images.image_folder import list_folder
from server.images.preprocess import InputFormat, load_pixels
from server.images.slice_table import TABLE_NAME
from server.models.contract import ModelSpec
from training.phantom.classes import TWO_CLASSES, order_classes
from training.phantom.dataset import FACTS_FILE, write_dataset

MOST_SLICES = (1024, 2048)
"""Slices of a folder by which variants are chosen, and which judge what was chosen. A variant that changes 1 % of
labels passes by chance one time in nine where 512 judge, and one time in 120 where 2,048 do."""

DRAWN_SLICES = (256, 512)
"""The same of synthetic slices: fewer, as they say less of what a model will see."""

LEAST_HELD_OUT = 64
"""Slices that judge the result. With fewer, one changed label would be more than the gate allows by chance."""

PHANTOM_SEED = 1789
"""Of the synthetic slices that are drawn where no folder is given: another one than the bundled model learned from."""


@dataclass(frozen=True)
class Slices:
    """Decoded slices and what they show."""

    pixels: NDArray[np.uint8]
    """uint8 [N, height, width, channels]."""

    classes: NDArray[np.int64] | None
    """[N], index of the label that the slice shows; None where the folder does not say."""


@dataclass(frozen=True)
class CalibrationSets:
    """Two sets without a slice in common."""

    calibration: Slices
    held_out: Slices
    source: str
    """Where they come from, for the manifest."""

    parting: str = ""
    """Whether the held-out slices are other patients', for the manifest."""

    def describe(self) -> str:
        """What the manifest says of the slices."""
        return "; ".join(filter(None, (self.source, self.parting)))


def load_sets(
    folder: Path | None,
    input_format: InputFormat,
    spec: ModelSpec,
    tell: Callable[[str], None] = lambda note: None,
    most: tuple[int, int] | None = None,
) -> CalibrationSets:
    """Loads slices from a folder, or draws synthetic ones.

    Args:
        folder: one folder a class, named by label (in any other folder the AUC cannot be judged); None draws slices,
            with labels where they are those of ``training.phantom.classes``.
        input_format: what the model takes.
        spec: labels of the model.
        tell: called with what was left out, and whether the two sets are of different patients.
        most: slices of the two sets; None: ``MOST_SLICES`` of a folder, ``DRAWN_SLICES`` that are drawn.

    Raises:
        ConversionError: there are too few, or one cannot be decoded.
    """
    if folder is not None:
        source = folder.resolve().name
        return split_folder(folder, input_format, spec, source=source, tell=tell, most=most or MOST_SLICES)
    classes = choose_classes(spec)
    with tempfile.TemporaryDirectory() as drawn:
        most = most or DRAWN_SLICES
        count = sum(most)
        write_dataset(Path(drawn) / "phantom", count, PHANTOM_SEED, classes=classes)
        source = f"python -m training phantom --count {count} --seed {PHANTOM_SEED}"
        if classes != TWO_CLASSES:
            source += f" --classes {','.join(classes)}"
        return split_folder(Path(drawn) / "phantom", input_format, spec, source=source, tell=tell, most=most)


def choose_classes(spec: ModelSpec) -> tuple[str, ...]:
    """Returns the classes of synthetic slices: those of the model where it has the labels of such slices."""
    try:
        return order_classes(spec.labels)
    except ValueError:
        return TWO_CLASSES


def split_folder(
    folder: Path,
    input_format: InputFormat,
    spec: ModelSpec,
    *,
    source: str,
    tell: Callable[[str], None],
    most: tuple[int, int],
) -> CalibrationSets:
    """A third of each class calibrates; the rest judges: other patients, where it is known who the slices show."""
    try:
        found = list_folder(folder, own=(TABLE_NAME, FACTS_FILE))
    except OSError as error:
        why = error.strerror if folder.exists() else "there is no such folder"
        raise ConversionError(f"--calibrate {folder}: {why}") from None
    if left_out := found.describe_left_out():
        tell(f"{left_out} of {folder}")
    slices = read_slices(folder, found, spec.labels)
    is_labelled = {item.label for item in slices} >= set(spec.labels)
    if is_labelled:
        slices = sorted((item for item in slices if item.label), key=lambda item: spec.labels.index(item.label or ""))
    parts = part_patients(slices, is_labelled=is_labelled)
    calibration, held_out = (
        [group[index] for group in groups for index in spread_evenly(len(group), number // len(groups))]
        for groups, number in zip(parts, most, strict=True)
    )
    if len(held_out) < LEAST_HELD_OUT or not calibration:
        raise ConversionError(
            f"--calibrate {folder}: has {len(slices)} slices, too few to judge the result: at least "
            f"{LEAST_HELD_OUT * 3 // 2} are needed, in folders named {', '.join(spec.labels)}, of several patients each"
        )
    parting = describe_parting(slices)
    tell(f"{len(calibration)} slices calibrate, {len(held_out)} judge; {parting}")
    labels = spec.labels if is_labelled else None
    return CalibrationSets(
        load_slices(calibration, input_format, labels),
        load_slices(held_out, input_format, labels),
        source,
        parting,
    )


def load_slices(slices: list[KnownSlice], input_format: InputFormat, labels: tuple[str, ...] | None) -> Slices:
    """Decodes files as the server does."""
    pixels = np.empty((len(slices), input_format.height, input_format.width, input_format.channels), np.uint8)
    for slot, item in zip(pixels, slices, strict=True):
        try:
            slot[:] = load_pixels(item.path.read_bytes(), input_format).array
        except ImageError as error:
            raise ConversionError(f"{item.path}: {error.message} [{error.reason}]") from None
    if labels is None:
        return Slices(pixels, None)
    return Slices(pixels, np.array([labels.index(item.label or "") for item in slices]))
