"""``python -m training card RUN``: the model card, from what is recorded; what is not recorded is "not known".

The headings follow the applied model card of CHAI and the draft guidance of the FDA on AI-enabled device software
(January 2025), as far as they fit research software.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from server.errors import ModelFileError
from server.models.contract import ModelSpec
from training.errors import TrainingError
from training.evaluation.figures import Figure
from training.evaluation.summary import SUMMARY_KEY, Summary, from_document
from training.report.classes import describe_classes
from training.report.records import count_split, read_document
from training.report.subgroups import describe_own_split, describe_subgroups
from training.report.tables import (
    escape,
    explain_scaling,
    explain_threshold,
    make_paragraph,
    make_table,
    name_of,
    state,
    tabulate_figures,
    tabulate_headlines,
    tabulate_prevalences,
)

CARD_FILE = "model_card.md"
SPEC_FILE = "spec.json"
DATA_FACTS_FILE = "dataset.json"
"""Facts of the data set: beside its class folders, and copied from there into the run."""

ADDED_FACTS_FILE = "facts.json"
"""Facts that were added to the run by ``--facts``; they go before those of the data set."""

NOT_KNOWN = "not known"

FACTS = {
    "name": "what the data set is called",
    "source": "where the images come from",
    "population": "whose images they are: people, ages, sexes, sites, scanners, years",
    "labelled_by": "who said what is on an image, and how",
    "excluded": "what was left out, and why",
    "licence": "of the images",
    "notes": "anything else about the data",
    "validated_for": "for which findings there is evidence, and for which there is none",
    "intended_users": "who may use the model, and where",
    "not_for": "uses that are ruled out",
    "subgroups": "figures by age, sex, scanner, finding",
    "failure_modes": "known ways in which it errs",
    "ethics": "risks to people, bias, privacy",
    "model_licence": "of the weights",
    "developer": "who made the model",
    "contact": "whom to ask",
    "maintenance": "who watches and renews it, and how often",
}
"""Keys of ``dataset.json`` and of ``--facts``, and what they are for; other keys are shown as they are."""


def copy_facts(data: Path, run: Path) -> None:
    """Copies the facts of a data set, if it has any, into a run folder; call it before the training.

    Raises:
        TrainingError: they are not a JSON object of strings.
    """
    facts = read_facts(data / DATA_FACTS_FILE)
    if facts:
        write_text(run / DATA_FACTS_FILE, to_json(facts))


def write_card(run: Path, added: Path | None = None) -> Path:
    """Writes ``model_card.md`` from the facts of a run, and puts it into its ``spec.json``.

    Args:
        run: a run folder with ``spec.json``; ``metrics.json``, ``split.csv`` and ``dataset.json`` are used where there.
        added: JSON file with facts that are kept in the run and go before those of the data set.

    Returns:
        The card's path.

    Raises:
        TrainingError: a file is missing or unusable, or the card is too long; what was there before is unchanged.
    """
    spec = read_spec(run)
    kept = read_facts(run / ADDED_FACTS_FILE)
    if added is not None:
        if not added.exists():
            raise TrainingError(f"{added}: there is no such file; --facts needs a JSON file")
        kept |= read_facts(added)
    facts = read_facts(run / DATA_FACTS_FILE) | kept
    card = render_card(spec, read_summary(run), facts, count_split(run))
    try:
        text = replace(spec, model_card=card).to_json()
    except ModelFileError as error:
        raise TrainingError(
            f"{run}: {error.message.removesuffix('; convert the model again (python -m converter)')}"
        ) from None
    if kept:
        write_text(run / ADDED_FACTS_FILE, to_json(kept))
    write_text(run / CARD_FILE, card)
    write_text(run / SPEC_FILE, text + "\n")
    return run / CARD_FILE


def read_spec(run: Path) -> ModelSpec:
    path = run / SPEC_FILE
    if not path.exists():
        raise TrainingError(f"{run} is no run folder: it has no {SPEC_FILE}; name what --out named in the training")
    try:
        return ModelSpec.from_json(path.read_text("utf-8"))
    except (ModelFileError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: {error}") from None


def read_facts(path: Path) -> dict[str, str]:
    """Reads a JSON object of strings; empty where there is no such file.

    Raises:
        TrainingError: it holds something else.
    """
    facts = read_document(path)
    for key, value in facts.items():
        if not isinstance(value, str):
            raise TrainingError(f"{path}: '{key}' must be text in quotation marks")
    return facts


def read_summary(run: Path) -> Summary | None:
    """Reads the figures in ``metrics.json``; None where there are none."""
    document = read_document(run / "metrics.json").get(SUMMARY_KEY)
    if document is None:
        return None
    try:
        return from_document(document)
    except (KeyError, TypeError) as error:
        raise TrainingError(
            f"{run / 'metrics.json'}: '{SUMMARY_KEY}' is not what an evaluation writes ({error})"
        ) from None


def render_card(spec: ModelSpec, summary: Summary | None, facts: Mapping[str, str], split: str) -> str:
    """Returns the card, in Markdown.

    Args:
        spec: of the model.
        summary: its figures, None where they are not recorded.
        facts: by the keys of ``FACTS``.
        split: table of the images by split, in Markdown; empty where it is not recorded.
    """

    def fact(key: str) -> str:
        return make_paragraph(facts.get(key, "")) or NOT_KNOWN

    provenance = spec.provenance
    warnings = dict.fromkeys([provenance.get("warnings", NOT_KNOWN), *(summary.warnings if summary else ())])
    identity = {
        "name and version": f"{spec.name} {spec.version}",
        "task": spec.task,
        "developer": facts.get("developer"),
        "trained": provenance.get("trained"),
        "code revision": provenance.get("git_revision"),
        "contact": facts.get("contact"),
        "licence of the weights": facts.get("model_licence"),
    }
    data = {
        "name": facts.get("name") or provenance.get("data"),
        "source": facts.get("source"),
        "images": provenance.get("images"),
        "fingerprint": provenance.get("data_fingerprint"),
    }
    answer = (
        f"One 8-bit image of one axial slice in, brought to the network's size ({spec.fit}, {spec.resample}, "
        f"{spec.colour}); out come the probabilities of {', '.join(escape(label) for label in spec.labels)}."
    )
    sections = {
        "Intended use": [
            make_paragraph(spec.intended_use),
            f"**Validated for:** {fact('validated_for')}",
            f"**Intended users:** {fact('intended_users')}",
            f"**Not for:** {fact('not_for')}",
        ],
        "Model": [tabulate_facts(identity), answer],
        "Warnings": ["\n".join(f"- {escape(warning)}" for warning in warnings if warning) or "The training had none."],
        "Data": [
            tabulate_facts(data),
            split or f"Split: {NOT_KNOWN}",
            *(describe_own_split(summary.own_split, with_files=False) if summary and summary.own_split else []),
        ],
        "Population": [fact("population")],
        "How labelled": [fact("labelled_by")],
        "Exclusion": [fact("excluded")],
        "Metrics": describe_metrics(spec, summary),
        "Calibration": [describe_calibration(spec, summary)],
        "Operating point": [
            f"Chosen by: {escape(summary.operating_point) if summary else NOT_KNOWN}.",
            explain_threshold(spec.threshold, spec.positive_labels),
        ],
        "Subgroups": [
            *(describe_subgroups(summary.subgroups) if summary else []),
            make_paragraph(facts.get("subgroups", "")),
        ],
        "Failure modes": [fact("failure_modes")],
        "Ethical notes": [fact("ethics")],
        "Licence of the data": [fact("licence")],
        "Maintenance": [fact("maintenance")],
        "Notes": [*map(make_paragraph, (provenance.get("notes", ""), facts.get("notes", "")))],
    }
    others = {key: text for key, text in facts.items() if key not in FACTS}
    if others:
        sections["Other facts"] = [tabulate_facts(others)]
    parts = [f"# Model card: {escape(spec.name)} {escape(spec.version)}"]
    for heading, paragraphs in sections.items():
        parts += [f"## {heading}", *(list(filter(None, paragraphs)) or [NOT_KNOWN])]
    return "\n\n".join(parts) + "\n"


def describe_metrics(spec: ModelSpec, summary: Summary | None) -> list[str]:
    """Returns the figures with their intervals and baselines; of an older run those of the spec."""
    if summary is None:
        figures = {
            name: Figure(value, *(spec.metrics.get(f"{name}_{end}", math.nan) for end in ("low", "high")))
            for name, value in sorted(spec.metrics.items())
            if not name.endswith(("_low", "_high"))
        }
        rows = [(name_of(name), state(figure)) for name, figure in figures.items()]
        return [make_table(["figure", "value (95 %)"], rows)] if rows else [NOT_KNOWN]
    return [
        f"Held-out test images of {escape(summary.data)}; in brackets 95 % intervals. The trivial score is the "
        f"{escape(summary.baselines.trivial_name)}; a matched AUC compares only images in which it is about the same. "
        "The figures of a random slice split are leakage, and no performance.",
        tabulate_headlines(summary),
        tabulate_figures(summary.levels),
        *describe_classes(summary),
        *([tabulate_prevalences(summary)] if summary.restated else []),
    ]


def describe_calibration(spec: ModelSpec, summary: Summary | None) -> str:
    figures = summary.slices.figures if summary else {}
    errors = [f"{name_of(name)} {state(figures[name])}" for name in ("ece", "brier") if name in figures]
    return f"{explain_scaling(spec)} On test images: {', '.join(errors) or NOT_KNOWN}."


def tabulate_facts(facts: Mapping[str, str | None]) -> str:
    rows = [(escape(key.replace("_", " ")), escape(value or "") or NOT_KNOWN) for key, value in facts.items()]
    return make_table(["fact", "value"], rows)


def to_json(facts: Mapping[str, str]) -> str:
    return json.dumps(dict(facts), indent=2, ensure_ascii=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all: what was there before stays until the new one is complete."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
