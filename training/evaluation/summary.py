"""The figures of an evaluation without its curves, as plain JSON in ``metrics.json``, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

from training.data.given import Shared, SplitCheck
from training.evaluation.figures import (
    Baselines,
    ClassFigures,
    Confusion,
    Evaluation,
    Figure,
    Gap,
    Level,
    OwnSplit,
    PatientLevel,
    Restated,
    Subgroup,
    Subgroups,
)

SUMMARY_KEY = "evaluation"
"""Key of ``metrics.json`` under which the document lies."""

OPTIONAL = ("classes", "patient_classes", "subgroups", "own_split")
"""What most evaluations have not; the document then does not speak of it."""


@dataclass(frozen=True)
class Summary:
    """What ``Evaluation`` says in numbers; the fields mean the same."""

    model: str
    data: str
    operating_point: str
    slices: Level
    patients: PatientLevel | None
    baselines: Baselines
    restated: tuple[Restated, ...]
    warnings: tuple[str, ...] = ()
    classes: ClassFigures | None = None
    patient_classes: ClassFigures | None = None
    subgroups: tuple[Subgroups, ...] = ()
    own_split: OwnSplit | None = None

    @property
    def levels(self) -> dict[str, Level]:
        """The levels that there are, by name."""
        return {"slices": self.slices} | ({} if self.patients is None else {"patients": self.patients})


def summarise(evaluation: Evaluation) -> Summary:
    """Takes the numbers out of an evaluation."""
    return Summary(**{name: getattr(evaluation, name) for name in Summary.__dataclass_fields__})


def to_document(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the numbers of an evaluation as JSON values; what is not defined is null, which JSON has for NaN."""
    document: dict[str, Any] = replace_nan(asdict(summarise(evaluation)))
    for name in OPTIONAL:
        if not getattr(evaluation, name):
            del document[name]
    return document


def from_document(document: Mapping[str, Any]) -> Summary:
    """Reads what ``to_document`` returned.

    Raises:
        KeyError, TypeError: it is something else.
    """
    baselines = dict(document["baselines"])
    for name in ("trivial_auc", "nearest_accuracy"):
        if baselines[name] is not None:
            baselines[name] = read_figure(baselines[name])
    patients = document["patients"]
    return Summary(
        model=document["model"],
        data=document["data"],
        operating_point=document["operating_point"],
        slices=Level(**read_level(document["slices"])),
        patients=None if patients is None else PatientLevel(**read_level(patients)),
        baselines=Baselines(**baselines),
        restated=tuple(
            Restated(line["prevalence"], read_figure(line["ppv"]), read_figure(line["npv"]))
            for line in document["restated"]
        ),
        warnings=tuple(document["warnings"]),
        classes=read_classes(document["classes"]) if "classes" in document else None,
        patient_classes=read_classes(document["patient_classes"]) if "patient_classes" in document else None,
        subgroups=tuple(map(read_subgroups, document.get("subgroups", ()))),
        own_split=read_own_split(document["own_split"]) if "own_split" in document else None,
    )


def read_level(document: Mapping[str, Any]) -> dict[str, Any]:
    return {**document, "figures": read_figures(document["figures"]), "confusion": Confusion(**document["confusion"])}


def read_classes(document: Mapping[str, Any]) -> ClassFigures:
    return ClassFigures(
        labels=tuple(document["labels"]),
        positive_labels=tuple(document["positive_labels"]),
        figures=tuple(map(read_figures, document["figures"])),
        overall=read_figures(document["overall"]),
        majority_accuracy=document["majority_accuracy"],
        confusion=tuple(map(tuple, document["confusion"])),
    )


def read_subgroups(document: Mapping[str, Any]) -> Subgroups:
    gaps = {
        name: Gap(**{**gap, "difference": read_figure(gap["difference"])}) for name, gap in document["gaps"].items()
    }
    return Subgroups(**{**document, "groups": tuple(map(read_subgroup, document["groups"])), "gaps": gaps})


def read_subgroup(document: Mapping[str, Any]) -> Subgroup:
    return Subgroup(**{**document, "figures": read_figures(document["figures"]), "too_few": tuple(document["too_few"])})


def read_own_split(document: Mapping[str, Any]) -> OwnSplit:
    check = dict(document["check"])
    for name in ("patients", "copies", "near"):
        check[name] = Shared(check[name]["count"], tuple(map(tuple, check[name]["examples"])))
    others = document["others"]
    return OwnSplit(
        SplitCheck(**{**check, "cut": tuple(check["cut"])}), None if others is None else read_subgroup(others)
    )


def read_figures(document: Mapping[str, Any]) -> dict[str, Figure]:
    return {name: read_figure(figure) for name, figure in document.items()}


def read_figure(document: Mapping[str, float | None]) -> Figure:
    return Figure(**{name: math.nan if value is None else value for name, value in document.items()})


def replace_nan(value: Any) -> Any:
    """Returns JSON values in which infinities and NaN are null."""
    if isinstance(value, Mapping):
        return {key: replace_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nan(item) for item in value]
    if isinstance(value, str | bool | None):
        return value
    if isinstance(value, Integral):  # numpy's integers too
        return int(value)
    return float(value) if math.isfinite(value) else None
