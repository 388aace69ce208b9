"""``python -m training threshold``: another operating point for a model that is there, without training.

The threshold of slices, and how studies are judged, are chosen on labelled slices as a server would judge them, by the
rules of training; the result is a new version of the model folder, with the same weights, and with its INT8 variant
where that decides as fp32 does at the new threshold, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from server.errors import ModelFileError
from server.machine.processors import count_processors
from server.models.contract import ModelSpec
from server.models.engines.engine import EngineOptions
from server.models.manifest import MODEL_FILE, Manifest, read_manifest
from server.models.runtime import OnnxModel, load_model
from training.errors import TrainingError, count_nouns
from training.evaluation.measure import choose_decision
from training.evaluation.operating_point import choose_threshold
from training.evaluation.paired import Answered, Comparison, compare_answers
from training.evaluation.summary import replace_nan
from training.own.compare_page import describe_comparison, describe_count, tabulate_changes, tabulate_pairs
from training.own.slices import Slices, judge_slices
from training.own.variant import VariantCheck, check_variant, describe_omission, load_variants, settle_variant
from training.own.version import find_out, write_version
from training.report.tables import state
from training.settings.threshold import ThresholdConfig

OF_THRESHOLD = ("sensitivity", "specificity", "ppv", "npv", "f1", "accuracy")
"""Figures of a spec that are those of its threshold, and of another one no more."""

STATED = ("sensitivity", "specificity")
"""Figures at the old and the new threshold that are recorded."""

CHOSEN_HERE = (
    "The threshold was chosen on the slices of --data, so that its figures on them are a little too good; --test DIR "
    "measures it on others."
)


def choose_point(config: ThresholdConfig) -> str:
    """Chooses threshold and rule of studies anew, measures both beside the old ones, and writes the new version.

    Returns:
        What to print: what was chosen, and figures, as Markdown or JSON.

    Raises:
        TrainingError: model or data is not usable; nothing was written.
    """
    options = EngineOptions(workers=count_processors())
    try:
        manifest = read_manifest(config.model)
        model = load_model(config.model, options)
        variants = load_variants(config.model, manifest, options)
    except ModelFileError as error:
        raise TrainingError(error.message) from None
    out = find_out(config.model, config.out)
    chosen_on = judge_slices(config, config.data, [model, *variants])
    others = judge_slices(config, config.test, [model]) if config.test else None
    old, new = model.spec, choose_spec(config, model.spec, chosen_on)
    check = check_variant(manifest, new, chosen_on)
    compared = compare_specs(old, new, chosen_on)
    if others is not None:
        compared |= compare_specs(old, new, others)
    facts, metrics = record(config, model, manifest, chosen_on, compared)
    facts["threshold_int8"] = check.found
    manifest = settle_variant(manifest, check)
    kept = {name: value for name, value in old.metrics.items() if not is_outdated(name, old, new)}
    new = replace(
        new,
        name=out.resolve().parent.name,
        version=out.name,
        metrics={**kept, **metrics},
        provenance={**old.provenance, **facts},
    )
    new = replace(new, model_card=amend_card(old, new))
    if not config.dry_run:
        write_version(config.model, manifest, new, out)
    if config.json:
        document = {
            "out": None if config.dry_run else str(out),
            "rule": config.rule,
            **{name: getattr(new, name) for name in ("threshold", "study_top_k", "study_threshold")},
            "before": {name: getattr(old, name) for name in ("threshold", "study_top_k", "study_threshold")},
            "slices_left_out": chosen_on.left_out,
            "int8": check.to_document(),
            "figures": {title: describe_comparison(one) for title, one in compared.items()},
        }
        return json.dumps(replace_nan(document), indent=2, ensure_ascii=False)
    return render(config, old, new, out, chosen_on, check, compared)


def choose_spec(config: ThresholdConfig, spec: ModelSpec, slices: Slices) -> ModelSpec:
    """Returns the spec with the threshold and, where there are studies of several slices, the rule for them."""
    threshold = choose_threshold(config.rule, slices.scores, slices.positive)
    answered = slices.leave_out(threshold, spec.indeterminate_margin)
    spec = replace(spec, threshold=threshold)
    if not answered.has_studies:
        return spec
    decision = choose_decision(config.rule, answered.scores, answered.of_positive_study, answered.studies)
    if not decision.top_k:
        return spec
    return replace(spec, study_top_k=decision.top_k, study_threshold=decision.patient_threshold)


def compare_specs(old: ModelSpec, new: ModelSpec, slices: Slices) -> dict[str, Comparison]:
    """Measures two specs of a model on slices and, where there are, studies: by what they are of.

    All slices that a server would analyse count, those within the model's margin of the threshold too.
    """
    pair = [Answered(name, slices.scores, spec.threshold) for name, spec in (("old", old), ("new", new))]
    compared = {f"slices of {slices.name}": compare_answers(pair[0], pair[1], slices.positive, slices.people)}
    if not slices.has_studies:
        return compared
    pair = [
        Answered(name, slices.score_studies(spec.study_top_k or 1), spec.study_threshold)
        if spec.study_top_k
        else Answered(name, slices.score_studies(1), spec.threshold)
        for name, spec in (("old", old), ("new", new))
    ]
    compared[f"studies of {slices.name}"] = compare_answers(pair[0], pair[1], *slices.find_studies())
    return compared


def record(
    config: ThresholdConfig,
    model: OnnxModel,
    manifest: Manifest,
    slices: Slices,
    compared: Mapping[str, Comparison],
) -> tuple[dict[str, str], dict[str, float]]:
    """Returns what the new spec records of its operating point: provenance, and figures by name."""
    spec = model.spec
    digest = manifest.files[MODEL_FILE].sha256
    many = f"{len(slices.scores):,} slices of {int(slices.people.max()) + 1:,} people"
    facts = {
        "threshold_from": f"{spec.name} {spec.version}, SHA-256 {digest}; weights unchanged",
        "operating_point": f"{config.rule}, chosen on {many}",
        "threshold_data": slices.name,
        "threshold_data_fingerprint": slices.fingerprint,
        "threshold_chosen": datetime.now(UTC).strftime("%Y-%m-%d"),
        "threshold_judged_with": model.options.precision,
    }
    facts["threshold_figures"] = "; ".join(
        f"{title}: {name} {state(one.figures[name].first)} before, {state(one.figures[name].second)} now"
        for title, one in compared.items()
        for name in STATED
    )
    first, metrics = next(iter(compared.values())), dict[str, float]()
    for name in STATED:
        figure = first.figures[name].second
        for end, value in (("", figure.value), ("_low", figure.low), ("_high", figure.high)):
            metrics[f"threshold_{name}{end}"] = round(value, 4)
    return facts, metrics


def is_outdated(name: str, old: ModelSpec, new: ModelSpec) -> bool:
    """Whether a figure of the old spec says nothing of the new one: at another threshold, of another rule."""
    base = name.removesuffix("_low").removesuffix("_high")
    if base.startswith("test_patient_"):
        rules = [(spec.study_top_k, spec.study_threshold) for spec in (old, new)]
        return rules[0] != rules[1]
    return base.startswith("test_") and base.removeprefix("test_") in OF_THRESHOLD and old.threshold != new.threshold


def amend_card(old: ModelSpec, new: ModelSpec) -> str:
    """The model card, which says in front that the threshold is another; empty where there is none."""
    if not old.model_card:
        return ""
    facts = new.provenance
    more = (
        f"> {new.name} {new.version} is {old.name} {old.version} with the same weights and another operating point: "
        f"{describe_point(new)} ({facts['operating_point']} of {facts['threshold_data']}, "
        f"{facts['threshold_chosen']}); before, {describe_point(old)}. Sensitivity, specificity and the like below are "
        "those of before."
    )
    return f"{more}\n\n{old.model_card}"


def describe_point(spec: ModelSpec) -> str:
    """Threshold and rule of studies, in words."""
    studies = f"mean of the {spec.study_top_k} highest above {spec.study_threshold:.4g}" if spec.study_top_k else "none"
    return f"threshold {spec.threshold:.4g}, studies: {studies}"


def render(
    config: ThresholdConfig,
    old: ModelSpec,
    new: ModelSpec,
    out: Path,
    slices: Slices,
    check: VariantCheck,
    compared: Mapping[str, Comparison],
) -> str:
    """Returns what was chosen, and the figures, in Markdown."""
    written = "nothing was written (--dry-run)" if config.dry_run else f"written to {out}"
    lines = [
        f"# {new.name} {new.version}: {config.rule}",
        f"- before: {describe_point(old)}",
        f"- now: {describe_point(new)}",
        f"- {written}; the weights are those of {old.name} {old.version}, a signature is not taken over",
    ]
    if slices.left_out:
        lines.append(f"- {count_nouns(slices.left_out, 'slice')} of {slices.name} not analysed, as by a server")
    if old.indeterminate_margin:
        near = len(slices.scores) - len(slices.leave_out(new.threshold, new.indeterminate_margin).scores)
        lines.append(f"- {count_nouns(near, 'slice')} within {old.indeterminate_margin:g} of the threshold: no label")
    if not slices.has_studies:
        lines.append("- studies: no two slices of one are known, or all are of one class; their rule stays")
    lines.append(f"- INT8: {check.found}")
    parts = ["\n".join([lines[0], "", *lines[1:]]), f"**{CHOSEN_HERE}**"]
    if check.is_left_out:
        parts.append(f"**{describe_omission(new)}**")
    for title, one in compared.items():
        names = STATED if title.startswith("slices") else ("auc", *STATED)
        pairs = tabulate_pairs(one, names, "before", "now")
        parts += [f"## {title}", describe_count(one), pairs, tabulate_changes(one, "before", "now")]
    return "\n\n".join(parts)
