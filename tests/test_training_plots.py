"""The pictures of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training_fakes import EVALUATION, THRESHOLD, make_predictions, read_images, without_patients
from training.evaluation.figures import Evaluation
from training.report.drawing import shorten
from training.report.galleries import (
    choose_errors,
    choose_gallery,
    describe_answer,
    make_tiles,
    plot_errors,
    plot_gallery,
)
from training.report.plots import plot_confusion, plot_precision_recall, plot_roc, write_plots

LABELS = ("normal", "stroke")
FILES = (
    "confusion.png",
    "decision_curve.png",
    "errors.png",
    "gallery.png",
    "precision_recall.png",
    "reliability.png",
    "roc.png",
)
LARGEST = 600_000


def read_pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plots")
    write_plots(folder, EVALUATION, make_predictions(), read_images, LABELS)
    return folder


def test_all_plots_are_written(folder: Path) -> None:
    """The names are those that the report looks for."""
    assert tuple(sorted(path.name for path in folder.iterdir())) == FILES


@pytest.mark.parametrize("name", FILES)
def test_plot_is_a_picture_of_sensible_size(folder: Path, name: str) -> None:
    """It shows something, in black and in a colour, is large enough to read and small enough for a page."""
    pixels = read_pixels(folder / name)
    height, width, _ = pixels.shape

    assert 400 <= width <= 1300
    assert 400 <= height <= 1300
    assert (folder / name).stat().st_size < LARGEST
    ink = (pixels < 100).all(axis=2).mean()
    colour = (np.ptp(pixels.astype(int), axis=2) > 60).mean()
    assert 0.002 < ink < 0.5
    assert 0.001 < colour < 0.6


def test_gallery_of_pure_noise_is_small_enough(tmp_path: Path) -> None:
    """Noise cannot be compressed; nothing that is drawn comes out larger."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 256, 256), np.uint8)
    predictions = make_predictions()

    tiles = make_tiles(
        predictions, choose_gallery(predictions), lambda indices: noise[: len(indices)], THRESHOLD, LABELS
    )
    plot_gallery(tmp_path / "gallery.png", "Noise", {"": tiles})

    assert (tmp_path / "gallery.png").stat().st_size < LARGEST


def test_gallery_is_half_of_each_class_and_seeded() -> None:
    """The same seed shows the same images, another one others, whatever was answered."""
    predictions = make_predictions(200)

    chosen = choose_gallery(predictions, seed=7)

    assert len(chosen) == len(set(chosen.tolist())) == 24
    assert predictions.positive[chosen].sum() == 12
    assert choose_gallery(replace(predictions, scores=1 - predictions.scores), seed=7).tolist() == chosen.tolist()
    assert choose_gallery(predictions, seed=8).tolist() != chosen.tolist()


def test_gallery_of_few_images_shows_them_all() -> None:
    """Where a class has fewer than its half, the other fills the places."""
    predictions = make_predictions(40)
    few = np.flatnonzero(predictions.positive)[:3]
    predictions = replace(predictions, positive=np.isin(np.arange(40), few))

    chosen = choose_gallery(predictions)

    assert len(chosen) == 24
    assert set(few) <= set(chosen)
    assert choose_gallery(make_predictions(6, people=6)).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("score", "positive", "lines"),
    [
        (0.973, True, ["actual: stroke", "✓ predicted: stroke", "confidence 97.3 %"]),
        (0.973, False, ["actual: normal", "✗ predicted: stroke", "confidence 97.3 %"]),
        (0.04, False, ["actual: normal", "✓ predicted: normal", "confidence 96.0 %"]),
        (THRESHOLD, True, ["actual: stroke", "✗ predicted: normal", "confidence 80.0 %"]),
    ],
)
def test_title_has_actual_and_predicted_label_and_confidence(score: float, positive: bool, lines: list[str]) -> None:
    """As in the paper; right and wrong are told apart by a mark, and the threshold has to be exceeded."""
    predictions = make_predictions(1, people=1)
    predictions = replace(predictions, scores=np.array([score]), positive=np.array([positive]))

    assert describe_answer(predictions, 0, THRESHOLD, LABELS).split("\n") == lines


def test_errors_are_the_most_confident_ones_one_of_a_person() -> None:
    """False positives from the top, false negatives from the bottom; neighbours of one person do not fill the page."""
    predictions = make_predictions()

    false_positives = choose_errors(predictions, THRESHOLD, positive=False)
    false_negatives = choose_errors(predictions, THRESHOLD, positive=True)

    assert false_positives.tolist() == [37, 36, 35, 32, 31, 30]
    assert false_negatives.tolist() == [3, 4]
    assert len(set(predictions.groups[false_positives])) == len(false_positives)


def test_errors_name_their_files() -> None:
    """Whoever wants to look closer finds the image."""
    predictions = make_predictions()

    (tile,) = make_tiles(predictions, np.array([37]), read_images, THRESHOLD, LABELS, with_files=True)

    assert tile.title.endswith("\n7 (37).png")
    assert not tile.correct


def test_model_without_errors_has_a_page_that_says_so(tmp_path: Path) -> None:
    """No error is no reason to fail."""
    predictions = make_predictions()
    perfect = replace(predictions, scores=predictions.positive * 0.9 + 0.05)

    plot_errors(tmp_path / "errors.png", perfect, read_images, THRESHOLD, LABELS)

    assert read_pixels(tmp_path / "errors.png").min() < 100


def empty_figures(evaluation: Evaluation) -> Evaluation:
    nan = np.full(3, np.nan)
    undefined = {
        name: replace(figure, value=np.nan, low=np.nan, high=np.nan)
        for name, figure in evaluation.slices.figures.items()
    }
    band = replace(evaluation.roc, x=np.linspace(0, 1, 3), y=nan, low=nan, high=nan)
    return replace(evaluation, slices=replace(evaluation.slices, figures=undefined), roc=band, precision_recall=band)


@pytest.mark.parametrize("evaluation", [without_patients(), empty_figures(EVALUATION)])
def test_what_is_not_defined_is_left_out(tmp_path: Path, evaluation: Evaluation) -> None:
    """No patients, or figures that are NaN since a class is missing: the plots are written without them."""
    predictions = replace(make_predictions(), positive=np.zeros(40, bool))

    plot_roc(tmp_path / "roc.png", evaluation, predictions)
    plot_precision_recall(tmp_path / "precision_recall.png", evaluation, predictions)
    plot_confusion(tmp_path / "confusion.png", evaluation, LABELS)

    assert len(list(tmp_path.iterdir())) == 3


def test_labels_are_text_however_odd(tmp_path: Path) -> None:
    """A dollar sign begins no formula, and a long name is cut so that both ends can be read."""
    plot_confusion(tmp_path / "confusion.png", EVALUATION, ("$\\frac{$", "a" * 50))

    assert shorten("intraparenchymal haemorrhage", 14) == "intrap…orrhage"
    assert shorten("two\nlines") == "two lines"
