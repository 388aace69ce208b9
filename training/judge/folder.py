"""``python -m training evaluate``: what a model is worth on a folder of labelled images."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.images.image_folder import list_folder
from server.images.preprocess import InputFormat
from server.machine.processors import count_processors
from training.data.duplicates import shrink
from training.data.labels import LABELS_FILE, FileFinder, ImageSet, list_data, read_rows, require_columns
from training.data.pixels import read_image, write_csv
from training.data.split import join_groups
from training.errors import TrainingError
from training.evaluation.figures import Bools, Evaluation, Floats, Predictions
from training.evaluation.measure import Decision, evaluate
from training.evaluation.nearest import MID_GREY, Nearest, cross_validate_nearest, evaluate_nearest
from training.judge.page import render_document, render_page
from training.judge.pictures import Answers, ask_predictor
from training.judge.predictors import Predictor, map_ahead, open_predictor
from training.progress import Progress
from training.report.galleries import ReadImages
from training.report.plots import write_plots
from training.settings.evaluate import EvaluateConfig
from training.settings.listing import DataConfig

CONDITION = re.compile(r"(?P<column>[^<>=]+?)\s*(?P<sign>>=|<=|>|<|=)\s*(?P<value>[^<>=]+)")
COMPARE = {">=": np.greater_equal, "<=": np.less_equal, ">": np.greater, "<": np.less, "=": np.equal}
SEED = 7
"""Of the splits of the nearest neighbour."""


@dataclass(frozen=True)
class Split:
    """What ``split.csv`` says of a run's images."""

    parts: Mapping[str, str]
    """Split by file."""

    training_digests: frozenset[str]
    """SHA-256 of the files that the model has learned from, or was chosen on."""


def evaluate_folder(config: EvaluateConfig) -> str:
    """Asks the model about every image, measures the answers, and writes them where the config says so.

    Returns:
        The figures, as Markdown or JSON.

    Raises:
        TrainingError: model, data or a flag is not usable.
    """
    if config.out and config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise TrainingError(f"{config.out} exists and is not empty; name another folder for --out")
    images = list_data(config)
    positive = find_positive(config, images)
    columns = read_columns(config, images)
    split = read_split(config.split) if config.split else None
    predictor = open_predictor(config.model)
    asked = choose_images(config, images, split)
    answers = ask_predictor(predictor, [images.root / images.files[index] for index in asked], Progress("judging"))
    kept = asked[answers.is_judged]
    if not len(kept):
        raise TrainingError(f"none of the {len(asked):,} images was judged; the first: {answers.refusals[0]}")
    predictions = Predictions(
        files=tuple(images.files[index] for index in kept),
        scores=answers.scores[answers.is_judged],
        positive=positive[kept],
        groups=join_groups(
            [images.patients[index] for index in kept],
            [digest for digest, used in zip(answers.digests, answers.is_judged, strict=True) if used],
        ),
        trivial=columns[config.trivial_column][kept] if config.trivial_column else answers.trivial[answers.is_judged],
        has_patients=images.has_patients,
    )
    warnings = (*images.warnings, *list_warnings(images, predictor, answers, split))
    nearest = find_nearest(images, positive, split, predictions, answers, predictor.plain_format)
    evaluations = {
        name: evaluate_part(config, predictor, predictions, nearest, chosen[kept], name, warnings)
        for name, chosen in choose_subsets(config, columns, len(positive)).items()
    }
    refused = {images.files[index]: refusal for index, refusal in zip(asked, answers.refusals, strict=True) if refusal}
    page = render_page(evaluations, refused, predictor.positive_label)
    document = json.dumps(render_document(evaluations, refused), indent=2, ensure_ascii=False) + "\n"
    if config.out:
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "evaluation.md").write_text(page, encoding="utf-8")
        (config.out / "evaluation.json").write_text(document, encoding="utf-8")
        write_predictions(config.out / "predictions.csv", predictions, predictor)
        names = f"not {predictor.positive_label}", predictor.positive_label
        write_plots(
            config.out,
            next(iter(evaluations.values())),
            predictions,
            read_predicted(images, predictions, predictor.plain_format),
            names,
        )
    return document if config.json else page


def find_positive(config: DataConfig, images: ImageSet) -> Bools:
    """Returns [N], whether the label of each image is the positive one."""
    name = next((name for name in (config.positive, "1") if name in images.labels), None)
    if name is None:
        raise TrainingError(f"--positive {config.positive} is not among the labels: {', '.join(images.labels)}")
    positive: Bools = images.targets == images.labels.index(name)
    return positive


def read_columns(config: EvaluateConfig, images: ImageSet) -> dict[str, Floats]:
    """Returns the numbers [N] of the columns of labels.csv that the flags name."""
    names = [parse_condition(text)[0] for text in config.subset]
    names += [config.trivial_column] if config.trivial_column else []
    if not names:
        return {}
    path = images.root / LABELS_FILE
    if not path.exists():
        raise TrainingError(f"{images.root} has no {LABELS_FILE}, which --subset and --trivial-column are about")
    header, rows = read_rows(path)
    require_columns(path, header, *names)
    finder = FileFinder(images.root, list_folder(images.root).images)
    row_of = {finder.find(row["file"], f"{path}, line {line}"): (line, row) for line, row in rows}
    columns = {name: np.empty(len(images.files)) for name in names}
    for index, file in enumerate(images.files):
        line, row = row_of[file]
        for name, values in columns.items():
            try:
                values[index] = float(row[name])
            except ValueError:
                raise TrainingError(f"{path}, line {line}: {name} is {row[name]!r}, not a number") from None
    return columns


def parse_condition(text: str) -> tuple[str, str, float]:
    """Splits ``brain_fraction>=0.05`` into column, sign and value."""
    match = CONDITION.fullmatch(text.strip())
    try:
        if match:
            return match["column"], match["sign"], float(match["value"])
    except ValueError:
        pass
    raise TrainingError(f"--subset {text!r} is not COLUMN>=NUMBER, nor with <=, >, < or =")


def choose_subsets(config: EvaluateConfig, columns: Mapping[str, Floats], count: int) -> dict[str, Bools]:
    """Returns the images [N] of each table, all of them first."""
    subsets = {"all images": np.ones(count, bool)}
    for text in config.subset:
        column, sign, value = parse_condition(text)
        subsets[text] = COMPARE[sign](columns[column], value)
    return subsets


def read_split(path: Path) -> Split:
    """Reads the ``split.csv`` of a run."""
    header, rows = read_rows(path)
    require_columns(path, header, "file", "sha256", "split")
    return Split(
        {row["file"]: row["split"] for _, row in rows},
        frozenset(row["sha256"] for _, row in rows if row["split"] != "test"),
    )


def choose_images(config: EvaluateConfig, images: ImageSet, split: Split | None) -> NDArray[np.int64]:
    """Returns the positions of the images to predict."""
    if split is None or config.part == "all":
        return np.arange(len(images.files))
    chosen = np.flatnonzero([split.parts.get(file) == config.part for file in images.files])
    if not len(chosen):
        raise TrainingError(f"no image of {config.data} is in the part {config.part} of {config.split}")
    return chosen.astype(np.int64)


def list_warnings(images: ImageSet, predictor: Predictor, answers: Answers, split: Split | None) -> list[str]:
    """Returns what a reader has to know of these answers."""
    warnings = []
    refused = int((~answers.is_judged).sum())
    if refused:
        warnings.append(f"{refused:,} images were refused and are not in the figures; they are listed below.")
    if answers.coloured:
        warnings.append(f"{answers.coloured:,} images have colours; they were judged as grey.")
    if images.parts and split is None:
        warnings.append(
            "The images of all folders are judged, those of train too; --split RUN/split.csv judges test images alone."
        )
    known = sum(digest in split.training_digests for digest in answers.digests) if split else 0
    if known:
        warnings.append(f"WARNING: {known:,} of the images were used in training or validation: leakage.")
    if images.has_patients and not predictor.study_top_k:
        warnings.append(
            "The model has no rule for studies: one is called positive when any of the slices is, which grows "
            "likelier with every slice."
        )
    return warnings


def find_nearest(
    images: ImageSet,
    positive: Bools,
    split: Split | None,
    predictions: Predictions,
    answers: Answers,
    plain_format: InputFormat,
) -> Nearest | None:
    """Returns the nearest neighbour's answers: from the training images of the split, else within these images.

    None where there are too few people for either.
    """
    small, targets = answers.small[answers.is_judged], predictions.positive.astype(np.int64)
    judged_files = set(predictions.files)
    learned = [
        index
        for index, file in enumerate(images.files)
        if split and split.parts.get(file) == "train" and file not in judged_files
    ]
    if learned:
        with ThreadPoolExecutor(count_processors()) as pool:
            files = [images.root / images.files[index] for index in learned]
            tiny = [
                shrink(pixels[np.newaxis, ..., 0])[0]
                for _, pixels in map_ahead(pool, lambda path: read_image(path, plain_format), files)
            ]
        return evaluate_nearest(np.stack(tiny), positive[learned].astype(np.int64), small, targets, seed=SEED)
    try:
        return cross_validate_nearest(small, targets, predictions.groups, seed=SEED)
    except TrainingError:
        return None


def evaluate_part(
    config: EvaluateConfig,
    predictor: Predictor,
    predictions: Predictions,
    nearest: Nearest | None,
    chosen: Bools,
    name: str,
    warnings: tuple[str, ...],
) -> Evaluation:
    """Measures the answers on some of the images."""
    part = Predictions(
        files=tuple(file for file, used in zip(predictions.files, chosen, strict=True) if used),
        scores=predictions.scores[chosen],
        positive=predictions.positive[chosen],
        groups=np.unique(predictions.groups[chosen], return_inverse=True)[1].astype(np.int64),
        trivial=predictions.trivial[chosen],
        has_patients=predictions.has_patients,
    )
    if not len(part.files):
        raise TrainingError(f"--subset {name} has no images")
    decision = Decision(
        predictor.threshold,
        "the model's own, which it brings with it",
        predictor.study_top_k,
        predictor.study_threshold,
    )
    return evaluate(
        part,
        decision,
        model=predictor.name,
        data=f"{config.data.resolve().name}, {name}",
        prevalences=config.prevalence,
        nearest=replace(nearest, is_right=nearest.is_right[chosen]) if nearest else None,
        trivial_name=f"column {config.trivial_column}" if config.trivial_column else MID_GREY,
        warnings=warnings,
    )


def write_predictions(path: Path, predictions: Predictions, predictor: Predictor) -> None:
    """Writes what was answered about each image."""
    rows = [
        (file, int(has), f"{score:.6f}", int(score > predictor.threshold), f"{trivial:.6f}")
        for file, has, score, trivial in zip(
            predictions.files, predictions.positive, predictions.scores, predictions.trivial, strict=True
        )
    ]
    write_csv(path, ("file", "positive", "probability", "answered_positive", "trivial"), rows)


def read_predicted(images: ImageSet, predictions: Predictions, plain_format: InputFormat) -> ReadImages:
    """Returns what decodes predicted images by position, for the galleries."""
    return lambda indices: np.stack(
        [read_image(images.root / predictions.files[index], plain_format)[1][..., 0] for index in indices]
    )
