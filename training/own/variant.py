"""The INT8 variant of a model whose threshold is chosen: whether it decides as fp32 does there, too.

The converter's accuracy gate has asked that at the threshold of before, on slices of its own. A variant that would
decide otherwise is left out of the new version, so that servers take its fp32 file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from server.models.agreement import LEAST_AGREEMENT, ONE_LABEL, find_differences, is_alike, share_labels
from server.models.contract import ModelSpec
from server.models.engines.engine import EngineOptions
from server.models.manifest import INT8_FILE, Manifest
from server.models.runtime import OnnxModel, choose_precision, load_model
from training.errors import count_nouns
from training.own.slices import Slices


@dataclass(frozen=True)
class Agreement:
    """How answers of INT8 compare with those of fp32."""

    slices: int
    same_label: float
    """Share of the slices."""

    mean_difference: float
    """Of the probability, absolute."""

    largest_difference: float

    @property
    def is_enough(self) -> bool:
        """Whether the converter's gate would let it pass."""
        return is_alike(self.same_label, self.slices)


@dataclass(frozen=True)
class VariantCheck:
    """What is known of a model's INT8 variant at the threshold that was chosen."""

    found: str
    """In words."""

    agreement: Agreement | None = None
    """None: it was not judged, or there is none."""

    @property
    def is_left_out(self) -> bool:
        """Whether the new version must do without it."""
        return self.agreement is not None and not self.agreement.is_enough

    def to_document(self) -> Mapping[str, Any]:
        """For JSON."""
        figures = asdict(self.agreement) if self.agreement else {}
        return {"found": self.found, "left_out": self.is_left_out, "least_same_label": LEAST_AGREEMENT, **figures}


def load_variants(folder: Path, manifest: Manifest, options: EngineOptions) -> list[OnnxModel]:
    """Loads the INT8 variant that a server on this processor would take of itself, if there is one.

    Raises:
        ModelFileError: it is not whole.
    """
    options = replace(options, precision="auto")
    return [load_model(folder, options)] if choose_precision(folder, manifest, options) == "int8" else []


def check_variant(manifest: Manifest, spec: ModelSpec, slices: Slices) -> VariantCheck:
    """Compares the answers of fp32 and INT8 at the threshold of a new spec, where both were asked."""
    record = manifest.files.get(INT8_FILE)
    if record is None:
        return VariantCheck("there is no INT8 variant")
    if slices.answers.shape[1] == 1:
        return VariantCheck(f"not judged: the INT8 variant is for {record.target}, which this processor is not")
    answers, others = slices.answers[:, 0], slices.answers[:, 1]
    differences = find_differences(spec, answers, others)
    agreement = Agreement(
        len(answers),
        share_labels(spec, answers, others, spec.threshold),
        float(differences.mean()),
        float(differences.max()),
    )
    return VariantCheck(describe_agreement(agreement), agreement)


def describe_agreement(agreement: Agreement) -> str:
    """The figures in words, beside the gate's limit."""
    others = round((1 - agreement.same_label) * agreement.slices)
    found = (
        f"{others:,} of {count_nouns(agreement.slices, 'slice')} with another label than fp32, "
        f"{agreement.same_label:.2%} with the same (at least {LEAST_AGREEMENT:.1%}, or all but {ONE_LABEL}), |Δp| mean "
        f"{agreement.mean_difference:.4f}, largest {agreement.largest_difference:.4f}"
    )
    return found if agreement.is_enough else f"{found}: left out"


def describe_omission(spec: ModelSpec) -> str:
    """What it means that the INT8 variant is left out, and what can be done."""
    return (
        f"The new version has no INT8 variant: at a threshold of {spec.threshold:.4g} INT8 would give too many slices "
        "another label than fp32. Servers take fp32, which all figures here are of, more slowly; one with --precision "
        "int8 refuses it. To have INT8, choose another threshold, or convert anew from the run folder with --int8 "
        f"--threshold {spec.threshold:.4g} --calibrate DIR, which finds a variant that passes there or says that there "
        "is none."
    )


def settle_variant(manifest: Manifest, check: VariantCheck) -> Manifest:
    """The manifest without an INT8 variant that is left out, or with what was found beside its gate's figures."""
    files = dict(manifest.files)
    if check.is_left_out:
        del files[INT8_FILE]
    elif INT8_FILE in files and files[INT8_FILE].gate:
        files[INT8_FILE] = replace(
            files[INT8_FILE], gate={**files[INT8_FILE].gate, "where_threshold_was_chosen": check.found}
        )
    return replace(manifest, files=files)
