"""``python -m training compare``: two models on the same labelled images, paired by person.

Nothing is chosen on the images: each model decides with its own threshold, and each is asked once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.groups import join_groups
from training.data.labels import ImageSet, list_data
from training.data.pixels import write_csv
from training.errors import TrainingError
from training.evaluation.figures import Bools, Floats
from training.evaluation.measure import NOT_PEOPLE
from training.evaluation.paired import Answered, Comparison, compare_answers
from training.evaluation.patient_level import find_positive_patients, score_patients
from training.evaluation.ranking import has_both
from training.judge.folder import (
    check_out,
    choose_subsets,
    read_columns,
)
from training.judge.labels import find_positive
from training.judge.pictures import Answers, ask_predictor
from training.judge.predictors import Predictor, open_predictor
from training.judge.split import Split, choose_images, find_split, list_leaks
from training.own.compare_page import render_document, render_page
from training.progress import Progress
from training.settings.compare import CompareConfig

ALL = "all images"


@dataclass(frozen=True)
class Judged:
    """What both models say of the images that both have judged; arrays are [N]."""

    predictors: tuple[Predictor, Predictor]
    files: tuple[str, ...]
    patients: tuple[str | None, ...]
    scores: tuple[Floats, Floats]
    positive: Bools
    groups: NDArray[np.int64]
    """Person of each image, from 0; each image its own where people are not known."""

    trivial: Floats
    """What the matched AUC is matched by."""

    has_patients: bool

    def choose(self, chosen: Bools) -> Judged:
        """The same of some of the images, [N]."""
        return Judged(
            self.predictors,
            tuple(file for file, used in zip(self.files, chosen, strict=True) if used),
            tuple(patient for patient, used in zip(self.patients, chosen, strict=True) if used),
            (self.scores[0][chosen], self.scores[1][chosen]),
            self.positive[chosen],
            np.unique(self.groups[chosen], return_inverse=True)[1].astype(np.int64),
            self.trivial[chosen],
            self.has_patients,
        )

    @property
    def has_several(self) -> bool:
        """Whether people are known, and one of them has several images."""
        return self.has_patients and int(self.groups.max()) + 1 < len(self.groups)


def compare_models(config: CompareConfig) -> str:
    """Asks both models about every image, compares the answers, and writes them where the config says so.

    Returns:
        The figures, as Markdown or JSON.

    Raises:
        TrainingError: a model, the data or a flag is not usable.
    """
    check_out(config.out)
    images = list_data(config)
    columns = read_columns(config, images)
    split = find_split(config, images)
    asked = choose_images(config, images, split)
    predictors = open_predictor(config.first), open_predictor(config.second)
    positive = find_positive(config, images, predictors[0].positive_labels)
    files = [images.root / images.files[index] for index in asked]
    answers = [
        ask_predictor(predictor, files, Progress(f"judging with {name}"))
        for predictor, name in zip(predictors, "AB", strict=True)
    ]
    is_judged = answers[0].is_judged & answers[1].is_judged
    kept = asked[is_judged]
    refused = {
        images.files[index]: " ".join(f"{name}: {why}" for name, why in zip("AB", reasons, strict=True) if why)
        for index, *reasons in zip(asked, answers[0].refusals, answers[1].refusals, strict=True)
        if any(reasons)
    }
    if not len(kept):
        raise TrainingError(f"none of the {len(asked):,} images was judged by both; {next(iter(refused.values()))}")
    judged = Judged(
        predictors=predictors,
        files=tuple(images.files[index] for index in kept),
        patients=tuple(images.patients[index] for index in kept),
        scores=(answers[0].scores[is_judged], answers[1].scores[is_judged]),
        positive=positive[kept],
        groups=join_groups(
            [images.patients[index] for index in kept],
            [digest for digest, used in zip(answers[0].digests, is_judged, strict=True) if used],
        ),
        trivial=columns[config.trivial_column][kept] if config.trivial_column else answers[0].trivial[is_judged],
        has_patients=images.has_patients,
    )
    subsets = {name: chosen[kept] for name, chosen in choose_subsets(config, columns, len(positive)).items()}
    compared = {title: pair for name, chosen in subsets.items() for title, pair in compare_part(judged, name, chosen)}
    warnings = list_warnings(images, judged, answers[0], split, len(refused))
    names = predictors[0].name, predictors[1].name
    where = config.data.resolve().name
    page = render_page(names, where, compared, warnings, refused)
    document = json.dumps(render_document(names, where, compared, warnings, refused), indent=2, ensure_ascii=False)
    if config.out:
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "comparison.md").write_text(page, encoding="utf-8")
        (config.out / "comparison.json").write_text(document + "\n", encoding="utf-8")
        write_answers(config.out / "answers.csv", judged)
        if judged.has_several:
            write_people(config.out / "people.csv", judged)
    return document if config.json else page.removesuffix("\n")


def compare_part(judged: Judged, name: str, chosen: Bools) -> list[tuple[str, Comparison]]:
    """Compares the answers about some of the images [N], and about the people whose they are, by what they are of.

    Raises:
        TrainingError: there are no such images, or all are of one class.
    """
    part = judged.choose(chosen) if chosen.any() else None
    if part is None or not has_both(part.positive):
        kind = "no images" if part is None else f"only {'positive' if part.positive.any() else 'negative'} images"
        raise TrainingError(f"{name}: there are {kind}, and figures need both classes: check --positive and --subset")
    first, second = (
        Answered(predictor.name, scores, predictor.threshold)
        for predictor, scores in zip(part.predictors, part.scores, strict=True)
    )
    found = [(name, compare_answers(first, second, part.positive, part.groups, part.trivial))]
    people = find_positive_patients(part.positive, part.groups)
    if name == ALL and part.has_several and has_both(people):
        found.append(("people", compare_answers(*answer_people(part), people, np.arange(len(people)))))
    return found


def answer_people(judged: Judged) -> tuple[Answered, Answered]:
    """What both models answer about people: each by its own rule for studies, or by any slice where it has none."""

    def answer(predictor: Predictor, scores: Floats) -> Answered:
        threshold = predictor.study_threshold if predictor.study_top_k else predictor.threshold
        return Answered(predictor.name, score_patients(scores, judged.groups, predictor.study_top_k or 1), threshold)

    first, second = (answer(*pair) for pair in zip(judged.predictors, judged.scores, strict=True))
    return first, second


def list_warnings(
    images: ImageSet, judged: Judged, answers: Answers, split: Split | None, refused: int
) -> tuple[str, ...]:
    """Returns what a reader has to know of these answers."""
    warnings = list(images.warnings)
    if refused:
        warnings.append(f"{refused:,} images were refused by one of the models and are in no figure; listed below.")
    warnings += list_leaks(split, answers.digests, judged.patients)
    if images.parts and split is None:
        warnings.append("The images of all folders are judged, those of train too; --split judges test images alone.")
    if not judged.has_patients:
        warnings.append(NOT_PEOPLE)
    labels = [" or ".join(predictor.positive_labels) for predictor in judged.predictors]
    if labels[0] != labels[1]:
        warnings.append(f"A tells {labels[0]}, B tells {labels[1]}: both are taken for the positive images.")
    return tuple(warnings)


def write_answers(path: Path, judged: Judged) -> None:
    """Writes what both models answered about each image."""
    write_pairs(
        path,
        ("file", "patient"),
        [(file, patient or "") for file, patient in zip(judged.files, judged.patients, strict=True)],
        judged.positive,
        tuple(
            Answered(predictor.name, scores, predictor.threshold)
            for predictor, scores in zip(judged.predictors, judged.scores, strict=True)
        ),
    )


def write_people(path: Path, judged: Judged) -> None:
    """Writes what both models answered about each person."""
    names = dict(zip(judged.groups.tolist(), judged.patients, strict=True))
    positive = find_positive_patients(judged.positive, judged.groups)
    counts = np.bincount(judged.groups)
    rows = [(names[group] or "", int(counts[group])) for group in range(len(positive))]
    write_pairs(path, ("patient", "slices"), rows, positive, answer_people(judged))


def write_pairs(
    path: Path,
    header: tuple[str, ...],
    keys: Sequence[tuple[str, object]],
    positive: Bools,
    answered: tuple[Answered, ...],
) -> None:
    columns: Mapping[str, NDArray[np.generic]] = {
        "positive": positive.astype(int),
        **{f"probability_{name}": one.scores for name, one in zip("ab", answered, strict=True)},
        **{f"answered_positive_{name}": one.called.astype(int) for name, one in zip("ab", answered, strict=True)},
    }
    rows = [
        (*key, *(f"{value:.6f}" if isinstance(value, float) else value for value in values))
        for key, *values in zip(keys, *(column.tolist() for column in columns.values()), strict=True)
    ]
    write_csv(path, (*header, *columns), rows)
