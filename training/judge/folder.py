"""``python -m training evaluate``: what a model is worth on a folder of labelled images."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.images.preprocess import InputFormat
from server.machine.processors import count_processors
from training.data.duplicates import sum_blocks
from training.data.groups import join_groups
from training.data.labels import ImageSet, list_data
from training.data.pixels import read_image
from training.data.subgroups import read_subgroups
from training.data.table import read_cells
from training.errors import TrainingError
from training.evaluation.figures import Bools, Evaluation, Floats, PatientLevel, Predictions
from training.evaluation.measure import Decision, evaluate
from training.evaluation.nearest import MID_GREY, Nearest, cross_validate_nearest, evaluate_nearest
from training.evaluation.positive import find_indices
from training.evaluation.subgroups import measure_subgroups
from training.judge.labels import find_positive, match_labels, tell_classes
from training.judge.page import render_document, render_page
from training.judge.pictures import Answers, ask_predictor
from training.judge.predictors import Predictor, map_ahead, open_predictor
from training.judge.split import Split, choose_images, find_split, list_leaks
from training.progress import Progress
from training.report.answers import (
    PATIENTS,
    PREDICTIONS,
    AnswerSheet,
    complete_probabilities,
    write_patients,
    write_predictions,
)
from training.report.galleries import ReadImages
from training.report.html import write_page
from training.report.plots import write_plots
from training.settings.evaluate import EvaluateConfig, JudgeConfig

CONDITION = re.compile(r"(?P<column>[^<>=]+?)\s*(?P<sign>>=|<=|>|<|=)\s*(?P<value>[^<>=]+)")
COMPARE = {">=": np.greater_equal, "<=": np.less_equal, ">": np.greater, "<": np.less, "=": np.equal}
SEED = 7
"""Of the splits of the nearest neighbour."""


def evaluate_folder(config: EvaluateConfig) -> str:
    """Asks the model about every image, measures the answers, and writes them where the config says so.

    Returns:
        The figures, as Markdown or JSON.

    Raises:
        TrainingError: model, data or a flag is not usable.
    """
    check_out(config.out)
    images = list_data(config)
    columns = read_columns(config, images)
    subgroups = read_subgroups(images, config.subgroup)
    split = find_split(config, images)
    predictor = open_predictor(config.model)
    positive = find_positive(config, images, predictor.positive_labels)
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
        classes=tell_classes(images, predictor, kept, answers.probabilities[answers.is_judged]),
    )
    warnings = (*images.warnings, *list_warnings(images, predictor, answers, split, asked))
    groups = {name: [values[index] for index in kept] for name, values in subgroups.items()}
    nearest = find_nearest(images, positive, split, predictions, answers, predictor.plain_format)
    evaluations = {
        name: evaluate_part(config, predictor, predictions, nearest, chosen[kept], name, warnings, groups)
        for name, chosen in choose_subsets(config, columns, len(positive)).items()
    }
    refused = {images.files[index]: refusal for index, refusal in zip(asked, answers.refusals, strict=True) if refusal}
    page = render_page(evaluations, refused, predictor.positive_labels)
    document = json.dumps(render_document(evaluations, refused), indent=2, ensure_ascii=False) + "\n"
    if config.out:
        config.out.mkdir(parents=True, exist_ok=True)
        write_page(config.out, "evaluation", f"Evaluation of {predictor.name}", page)
        (config.out / "evaluation.json").write_text(document, encoding="utf-8")
        sheet = make_sheet(images, predictor, predictions, answers, kept, split, groups)
        write_answers(config.out, sheet, next(iter(evaluations.values())).patients)
        name, *others = predictor.positive_labels
        write_plots(
            config.out,
            next(iter(evaluations.values())),
            predictions,
            read_predicted(images, predictions, predictor.plain_format),
            ("negative", "positive") if others else (f"not {name}", name),
        )
    return document if config.json else page


def check_out(out: Path | None) -> None:
    """Refuses a folder for results that has something in it.

    Raises:
        TrainingError: it exists and is not empty.
    """
    if out and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} exists and is not empty; name another folder for --out")


def read_columns(config: JudgeConfig, images: ImageSet) -> dict[str, Floats]:
    """Returns the numbers [N] of the columns of labels.csv that the flags name."""
    names = [parse_condition(text)[0] for text in config.subset]
    names += [config.trivial_column] if config.trivial_column else []
    if not names:
        return {}
    cells = read_cells(images.root, images.files, names, "--subset or --trivial-column")
    columns = {name: np.empty(len(images.files)) for name in names}
    for name, values in columns.items():
        for index, text in enumerate(cells[name]):
            try:
                values[index] = float(text)
            except ValueError:
                raise TrainingError(f"labels.csv: {name} of {images.files[index]} is {text!r}, not a number") from None
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


def choose_subsets(config: JudgeConfig, columns: Mapping[str, Floats], count: int) -> dict[str, Bools]:
    """Returns the images [N] of each table, all of them first."""
    subsets = {"all images": np.ones(count, bool)}
    for text in config.subset:
        column, sign, value = parse_condition(text)
        subsets[text] = COMPARE[sign](columns[column], value)
    return subsets


def list_warnings(
    images: ImageSet, predictor: Predictor, answers: Answers, split: Split | None, asked: NDArray[np.int64]
) -> list[str]:
    """Returns what a reader has to know of these answers."""
    warnings = []
    if len(predictor.labels) > 2 and None in match_labels(images.labels, predictor.labels).values():
        warnings.append(
            f"The labels of the data ({', '.join(images.labels)}) are not those of the model "
            f"({', '.join(predictor.labels)}): its positive labels are judged together."
        )
    refused = int((~answers.is_judged).sum())
    if refused:
        warnings.append(f"{refused:,} images were refused and are not in the figures; they are listed below.")
    if answers.coloured:
        warnings.append(f"{answers.coloured:,} images have colours; they were judged as grey.")
    if images.parts and split is None:
        warnings.append(
            "The images of all folders are judged, those of train too; --split RUN/split.csv judges test images alone, "
            "and so does --split given where the folders' split is the model's."
        )
    warnings += list_leaks(split, answers.digests, (images.patients[index] for index in asked))
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
    # Where all were judged there is nothing to copy: these are most of what grows with the folder.
    small = answers.small if answers.is_judged.all() else answers.small[answers.is_judged]
    targets = predictions.positive.astype(np.int64)
    judged_files = set(predictions.files)
    learned = [
        index
        for index, file in enumerate(images.files)
        if split and split.parts.get(file) == "train" and file not in judged_files
    ]
    if learned:
        tiny = np.empty((len(learned), small.shape[1]), small.dtype)
        with ThreadPoolExecutor(count_processors()) as pool:
            files = [images.root / images.files[index] for index in learned]
            read = map_ahead(
                pool, lambda path: sum_blocks(read_image(path, plain_format)[1][np.newaxis, ..., 0]), files
            )
            for place, image in enumerate(read):
                tiny[place] = image[0]
        small, targets = np.concatenate([tiny, small]), np.concatenate([positive[learned].astype(np.int64), targets])
        places = np.arange(len(small))
        return evaluate_nearest(small, targets, places[: len(learned)], places[len(learned) :], seed=SEED)
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
    subgroups: Mapping[str, Sequence[str]],
) -> Evaluation:
    """Measures the answers on some of the images, which ``chosen`` [N] says; ``subgroups`` are of all [N]."""
    part = Predictions(
        files=tuple(file for file, used in zip(predictions.files, chosen, strict=True) if used),
        scores=predictions.scores[chosen],
        positive=predictions.positive[chosen],
        groups=np.unique(predictions.groups[chosen], return_inverse=True)[1].astype(np.int64),
        trivial=predictions.trivial[chosen],
        has_patients=predictions.has_patients,
        classes=predictions.classes and predictions.classes.choose(chosen),
    )
    if not len(part.files):
        raise TrainingError(f"--subset {name} has no images")
    decision = Decision(
        predictor.threshold,
        "the model's own, which it brings with it",
        predictor.study_top_k,
        predictor.study_threshold,
    )
    evaluation = evaluate(
        part,
        decision,
        model=predictor.name,
        data=f"{config.data.resolve().name}, {name}",
        prevalences=config.prevalence,
        nearest=replace(nearest, is_right=nearest.is_right[chosen]) if nearest else None,
        trivial_name=f"column {config.trivial_column}" if config.trivial_column else MID_GREY,
        warnings=warnings,
    )
    groups = {name: [values[index] for index in np.flatnonzero(chosen).tolist()] for name, values in subgroups.items()}
    return replace(evaluation, subgroups=measure_subgroups(part, predictor.threshold, evaluation.patients, groups))


def make_sheet(
    images: ImageSet,
    predictor: Predictor,
    predictions: Predictions,
    answers: Answers,
    kept: NDArray[np.int64],
    split: Split | None,
    subgroups: Mapping[str, Sequence[str]],
) -> AnswerSheet:
    """Returns the answers about the images ``kept`` [N], with all that is known of these."""
    positive = find_indices(predictor.labels, predictor.positive_labels)
    # As the model spells them, so that a table's two columns of labels can be compared.
    places = match_labels(images.labels, predictor.labels)
    spelled = [label if place is None else predictor.labels[place] for label, place in places.items()]
    probabilities = answers.probabilities[answers.is_judged]
    if not probabilities.shape[1]:
        probabilities = complete_probabilities(predictions.scores, predictor.labels, positive)
    return AnswerSheet(
        predictions=predictions,
        threshold=predictor.threshold,
        labels=predictor.labels,
        positive=positive,
        probabilities=probabilities,
        actual=[spelled[images.targets[index]] for index in kept],
        patients=[images.patients[index] for index in kept],
        parts=[split.parts.get(file, "") if split else "" for file in predictions.files],
        folds=[""] * len(kept),
        subgroups=subgroups,
    )


def write_answers(folder: Path, sheet: AnswerSheet, patients: PatientLevel | None) -> None:
    """Writes every answer, and those about people where they are known."""
    write_predictions(folder / PREDICTIONS, sheet)
    if patients is not None:
        count = patients.count
        write_patients(folder / PATIENTS, sheet, np.full(count, patients.top_k), np.full(count, patients.threshold))


def read_predicted(images: ImageSet, predictions: Predictions, plain_format: InputFormat) -> ReadImages:
    """Returns what decodes predicted images by position, for the galleries."""
    return lambda indices: np.stack(
        [read_image(images.root / predictions.files[index], plain_format)[1][..., 0] for index in indices]
    )
