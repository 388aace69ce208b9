"""Noise, its power spectrum, windows and slice thickness: what a scanner and its export add to a head."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.training.realism.heads import SEED, SIZE, draw_head, list_patients
from bench.training.realism.shapes import Measured
from training.phantom.dataset import write_dataset
from training.phantom.recipe import Recipe
from training.phantom.render import scan_head

Floats = NDArray[np.float64]

NOISE_LEVEL = 0.60
"""Where the brain is largest and no bone of the base throws streaks."""

SIDE = 48
"""Pixels of the square in the middle of the brain in which noise is measured."""

STEP = 0.04
"""Width of the bins of frequencies, line pairs per mm."""


def measure_noise(count: int) -> Iterator[Measured]:
    """Spread of the noise in the middle of the brain, and frequencies of its spectrum, by kernel."""
    for patient in list_patients(count):
        drawing = draw_head(patient, NOISE_LEVEL)
        noise = np.zeros_like(drawing.head.hu)
        scan_head(drawing.head, noise, patient, np.random.default_rng([patient.key, 1]), SIZE)
        square = remove_plane(cut_middle(noise))
        yield "noise", float(square.std())
        kernel = "soft" if patient.look.sharpness <= 0 else "sharp"  # as ConvolutionKernel tells them apart
        frequencies, power = measure_spectrum(square, drawing.pixel_mm)
        yield f"peak frequency, {kernel}", float(frequencies[np.argmax(power)])
        yield f"mean frequency, {kernel}", float((frequencies * power).sum() / power.sum())


def cut_middle(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The middle ``SIDE`` x ``SIDE`` of values [H, W]."""
    top, left = ((n - SIDE) // 2 for n in values.shape)
    return values[top : top + SIDE, left : left + SIDE]


def remove_plane(values: NDArray[np.float32]) -> Floats:
    """Takes mean and slope from values [H, W]: a drift over the field is no noise."""
    rows, cols = np.indices(values.shape)
    terms = np.stack([np.ones(values.size), rows.ravel(), cols.ravel()], axis=1)
    whole: Floats = values.ravel().astype(np.float64)
    fit, *_ = np.linalg.lstsq(terms, whole, rcond=None)
    rest: Floats = (whole - terms @ fit).reshape(values.shape)
    return rest


def measure_spectrum(noise: Floats, pixel_mm: float) -> tuple[Floats, Floats]:
    """Radial mean of the noise power spectrum of a square [N, N].

    Returns:
        Frequencies in line pairs per mm, up to that of two pixels, and the power in each bin that the square is large
        enough for, in HU² mm²; [F] each.
    """
    side = len(noise)
    power = np.abs(np.fft.fft2(noise)) ** 2 * pixel_mm**2 / noise.size
    line = np.fft.fftfreq(side, pixel_mm)
    radius = np.hypot(line[:, None], line[None, :])
    bins = (radius / STEP).astype(int)
    last = int(0.5 / pixel_mm / STEP)
    inside = (bins < last) & (radius > 0)
    counts = np.bincount(bins[inside], minlength=last)
    found = counts > 0
    means = np.bincount(bins[inside], power[inside], minlength=last)[found] / counts[found]
    frequencies: Floats = (np.flatnonzero(found) + 0.5).astype(np.float64) * STEP
    return frequencies, means


def measure_windows(count: int) -> Iterator[Measured]:
    """Level and width of the windows in which pictures are exported."""
    for patient in list_patients(count, Recipe()):
        yield "window level", patient.look.level
        yield "window width", patient.look.width


def measure_slice_thickness() -> Iterator[Measured]:
    """SliceThickness of studies that are written as DICOM; needs pydicom."""
    from pydicom import dcmread

    with tempfile.TemporaryDirectory() as folder:
        for slices in (1, 24, 32):
            out = Path(folder) / str(slices)
            write_dataset(out, 2 * slices, SEED, size=64, processes=1, slices_per_patient=slices, dicom=True)
            for path in sorted(out.rglob("*.dcm")):
                yield "slice thickness", float(dcmread(path, stop_before_pixels=True).SliceThickness)
