"""``python -m training study-rule``: how a model that judges slices is to judge studies, chosen on labelled studies.

A study's score is the mean of the ``top_k`` highest probabilities of its slices, as in
``training.evaluation.patient_level`` and in the server. Slices that a server would not analyse have no part in it.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.errors import ImageError, ModelFileError
from server.images.checks import find_reasons
from server.images.preprocess import load_pixels
from server.machine.processors import count_processors
from server.models.contract import HEAD_CT
from server.models.engines.engine import EngineOptions
from server.models.runtime import OnnxModel, load_model
from training.data.labels import list_data
from training.errors import TrainingError, count_nouns
from training.evaluation.figures import Bools, Floats, PatientLevel
from training.evaluation.measure import Decision, choose_decision, measure_people
from training.evaluation.patient_level import find_positive_patients, score_patients
from training.evaluation.summary import replace_nan
from training.judge.folder import find_positive
from training.judge.predictors import Answer, make_answer, map_ahead
from training.progress import Progress
from training.settings.evaluate import StudyRuleConfig

SHOWN = ("sensitivity", "specificity", "auc")


@dataclass(frozen=True)
class Studies:
    """What a model says of labelled studies; arrays are [N], a number each slice that was judged."""

    name: str
    scores: Floats
    positive: Bools
    """Whether the slice's study has a positive slice, be it this one or another."""

    groups: NDArray[np.int64]
    """Study of each slice, from 0."""

    left_out: int
    """Slices that a server would not analyse, or not read."""

    def measure(self, rule: Decision) -> PatientLevel:
        """Measures a rule on these studies."""
        scores = score_patients(self.scores, self.groups, rule.top_k)
        positive = find_positive_patients(self.positive, self.groups)
        return measure_people(scores, positive, rule.patient_threshold, rule.top_k)


def choose_study_rule(config: StudyRuleConfig) -> str:
    """Chooses the rule, measures it where it was chosen and, if they are given, on other studies.

    Returns:
        What to print: rule and figures, as text or JSON.

    Raises:
        TrainingError: model or data is not usable, or no rule can be chosen on them.
    """
    try:
        model = load_model(config.model, EngineOptions(workers=count_processors()))
    except ModelFileError as error:
        raise TrainingError(error.message) from None
    chosen_on = judge_studies(config, config.data, model)
    wanted = f"sensitivity={config.sensitivity:g}"
    rule = choose_decision(wanted, chosen_on.scores, chosen_on.positive, chosen_on.groups)
    if not rule.top_k:
        raise TrainingError(f"{config.data} has no two slices of a study, or studies of one class alone")
    measured = {"chosen on": (chosen_on, chosen_on.measure(rule))}
    if config.test:
        others = judge_studies(config, config.test, model)
        measured["on others"] = (others, others.measure(rule))
    if config.json:
        document = {
            "study_top_k": rule.top_k,
            "study_threshold": rule.patient_threshold,
            "rule": wanted,
            **{
                name.replace(" ", "_"): {"data": data.name, "slices_left_out": data.left_out, **asdict(level)}
                for name, (data, level) in measured.items()
            },
        }
        return json.dumps(replace_nan(document), indent=2, ensure_ascii=False)
    lines = [f"study_top_k {rule.top_k}", f"study_threshold {rule.patient_threshold:.6g}"]
    lines += [f"{name} {describe(data, level)}" for name, (data, level) in measured.items()]
    return "\n".join(lines)


def judge_studies(config: StudyRuleConfig, folder: Path, model: OnnxModel) -> Studies:
    """Judges the slices of labelled studies as a server does.

    Raises:
        TrainingError: it is not known which slices belong together, or none could be judged.
    """
    images = list_data(replace(config, data=folder))
    if not images.has_patients:
        raise TrainingError(f"{folder}: it is not known which slices are of one study; --patient-pattern can tell")
    progress = Progress("judging")
    answers: list[Answer] = []
    with ThreadPoolExecutor(count_processors()) as pool:
        paths = [images.root / file for file in images.files]
        for answer in map_ahead(pool, lambda path: judge_slice(path, model), paths):
            answers.append(answer)
            progress(len(answers), len(paths))
    scores = np.array([answer.score for answer in answers])
    kept = ~np.isnan(scores)
    if not kept.any():
        raise TrainingError(f"{folder}: no slice could be judged; the first: {answers[0].refusal}")
    keys = [str(key) for key in zip(images.patients, images.studies, strict=True)]
    studies = np.unique(keys, return_inverse=True)[1]
    positive = find_positive_patients(find_positive(config, images), studies)[studies][kept]
    if not positive.any() or positive.all():
        raise TrainingError(f"{folder}: the studies whose slices could be judged are all of one class")
    groups = np.unique(studies[kept], return_inverse=True)[1].astype(np.int64)
    return Studies(images.root.resolve().name, scores[kept], positive, groups, int((~kept).sum()))


def judge_slice(path: Path, model: OnnxModel) -> Answer:
    """Returns the probability of the positive label, or why a server would give none."""
    try:
        pixels = load_pixels(path.read_bytes(), model.input_format)
    except ImageError as error:
        return Answer(refusal=error.message)
    if model.spec.checks == HEAD_CT and (reasons := find_reasons(pixels)):
        return Answer(refusal=reasons[0].message)
    said, spec = model.score(pixels.array[np.newaxis]), model.spec
    if spec.outlier_threshold and said.outlier[0] > spec.outlier_threshold:
        return Answer(refusal="The image is unlike those that the model knows.")
    probability = spec.positive_score(said.probabilities[0])
    if abs(probability - spec.threshold) < spec.indeterminate_margin:
        return Answer(refusal="The probability is too near to the threshold.")
    return make_answer(probability)


def describe(data: Studies, level: PatientLevel) -> str:
    """Returns the figures of some studies in one line."""
    figures = ", ".join(
        f"{name} {(figure := level.figures[name]).value:.3f} ({figure.low:.3f} to {figure.high:.3f})" for name in SHOWN
    )
    left_out = f"; {count_nouns(data.left_out, 'slice')} not analysed" if data.left_out else ""
    return f"{data.name}: {level.count:,} studies, {level.positives:,} positive: {figures}{left_out}"
