"""``python -m converter extend``: a new version of a model with more of what a server needs, weights unchanged.

It works on the files of a model folder alone, so no Keras file is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import onnx

from converter.config import window_setting
from converter.errors import ConversionError, TargetError
from converter.graph.edit import embed_spec
from converter.graph.explain_file import renew_explain_file
from converter.model_folder import answer_golden, install
from converter.outlier.surgery import fit_score
from converter.report import render_score
from server.errors import ModelFileError
from server.flags import REQUIRED, LineParser, check_settings, parse_settings, setting
from server.images.dicom.window import read_windows
from server.models.contract import MOST_STUDY_SLICES, ModelSpec, is_identifier
from server.models.manifest import (
    INT8_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    Manifest,
    read_manifest,
    read_verified,
)
from server.models.runtime import OnnxModel
from server.process.console import complain, say

EXIT_FAILED = 1


@dataclass(frozen=True)
class ExtendOptions:
    """What ``python -m converter extend`` is told.

    Raises:
        ValueError: a setting is out of range, or given without the one that it is for; the text names the flags.
    """

    folder: Path = setting(REQUIRED, "models/NAME/VERSION that is extended; it stays", positional=True, metavar="DIR")
    out: Path = setting(REQUIRED, "models/NAME/VERSION, where the result goes", short="-o", metavar="DIR")
    window: tuple[str, ...] = window_setting()
    calibrate: Path | None = setting(
        None,
        "slices that the model knows: the outlier score is fitted on them, anew where the model has one (default: "
        "synthetic ones, where it has none)",
        metavar="DIR",
    )
    study_top_k: int | None = setting(
        None,
        "the score of a study is the mean of so many highest probabilities of its slices; 0: no studies",
        least=0,
        most=MOST_STUDY_SLICES,
        metavar="K",
    )
    study_threshold: float | None = setting(
        None, "the positive label is answered above this score of a study", least=0, most=1, metavar="P"
    )
    indeterminate_margin: float | None = setting(
        None,
        "an image whose probability is nearer to the threshold than this gets no label; 0: each gets one",
        least=0,
        most=1,
        metavar="M",
    )
    notes: str | None = setting(
        None, "what people should know of this, such as why it is this window; in provenance and card", metavar="TEXT"
    )
    force: bool = setting(False, "replace what is in the result's DIR")

    def __post_init__(self) -> None:
        check_settings(self)
        read_windows(self.window)
        if self.study_top_k and self.study_threshold is None:
            raise ValueError("--study-top-k needs --study-threshold")


@dataclass(frozen=True)
class Extended:
    """What came out."""

    out: Path
    spec: ModelSpec
    changes: tuple[str, ...]
    """What was added, in words."""


def run_extend(argv: Sequence[str]) -> int:
    """Extends a model. Returns 0, or 1 when it could not."""
    parser = LineParser(
        prog="python -m converter extend",
        description=(
            "Writes a new version of a model with the same weights: with an outlier score where it has none, and with "
            "what is given besides."
        ),
        epilog=(
            "examples:\n"
            "  python -m converter extend models/stroke-cnn/1 -o models/stroke-cnn/4 --window 40,80\n"
            "  python -m converter extend models/stroke-cnn/4 -o models/stroke-cnn/5 \\\n"
            "      --study-top-k 3 --study-threshold 0.4\n"
            "  python -m converter extend models/other/1 -o models/other/2 --calibrate slices/\n\n"
            "Exit codes: 0 done, 1 not done (one line says why; nothing was written), 2 usage."
        ),
    )
    options = parse_settings(parser, ExtendOptions, argv)
    try:
        extended = extend(options, tell=tell_step)
    except ConversionError as error:
        complain(f"converter: error: {error}")
        return EXIT_FAILED
    except ModelFileError as error:
        complain(f"converter: error: {error.message} [{error.reason}]")
        return EXIT_FAILED
    spec = extended.spec
    say("\n".join([f"{extended.out}: {spec.name} {spec.version}", *(f"  {change}" for change in extended.changes)]))
    return 0


def tell_step(step: str) -> None:
    complain(f"converter: {step} …")


def extend(options: ExtendOptions, tell: Callable[[str], None] = lambda step: None) -> Extended:
    """Extends one model.

    Raises:
        ConversionError, ModelFileError: nothing was written.
    """
    name, version = options.out.resolve().parent.name, options.out.name
    if not (is_identifier(name) and is_identifier(version)):
        raise TargetError(f"--out {options.out}: must end in NAME/VERSION, such as models/stroke-cnn/4")
    if options.out.exists() and not options.force:
        raise TargetError(f"{options.out}: exists already; take the next version, or --force to replace it")
    manifest = read_manifest(options.folder)
    before = {file: read_verified(options.folder, file, manifest) for file in manifest.files}
    old = OnnxModel(before[MODEL_FILE], source=str(options.folder / MODEL_FILE))
    spec, changes = describe(old, replace(old.spec, name=name, version=version), options)
    models = {file: data for file, data in before.items() if file in (MODEL_FILE, INT8_FILE)}
    if options.calibrate is not None or not spec.outlier_threshold:
        models, spec = fit_score(options.calibrate, models, spec, old.input_format, tell)
        changes.append(render_score(spec))
    spec = replace(spec, model_card=amend_card(spec, options, changes))
    after = {file: embed_spec(onnx.load_from_string(data), spec) for file, data in models.items()}
    files, extended, heatmap = renew_explain_file(after, describe_files(manifest, after), old.input_format)
    changes.append(f"heatmap: {heatmap}")
    tell(f"installing into {options.out}")
    install({**files, MANIFEST_FILE: extended.to_json().encode()}, options.out, force=options.force)
    return Extended(options.out, spec, tuple(changes))


def describe(old: OnnxModel, spec: ModelSpec, options: ExtendOptions) -> tuple[ModelSpec, list[str]]:
    """The spec with what is given, and that in words."""
    facts = {
        "extended_from": f"{old.spec.name} {old.spec.version}, SHA-256 {old.digest}; weights unchanged",
        "extended": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    changes = []
    if options.window:
        spec = replace(spec, windows=read_windows(options.window))
        given = "; ".join(f"level {one.level:g}, width {one.width:g}" for one in spec.windows)
        facts["windows"] = f"stated with --window when the model was extended: {given}"
        changes.append(f"window: {given}")
    if options.study_top_k is not None:
        spec = replace(spec, study_top_k=options.study_top_k, study_threshold=options.study_threshold or 0.0)
        changes.append(f"studies: mean of the {spec.study_top_k} highest, threshold {spec.study_threshold:g}")
    elif options.study_threshold is not None:
        spec = replace(spec, study_threshold=options.study_threshold)
        changes.append(f"studies: threshold {spec.study_threshold:g}")
    if options.indeterminate_margin is not None:
        spec = replace(spec, indeterminate_margin=options.indeterminate_margin)
        changes.append(f"no label within {spec.indeterminate_margin:g} of the threshold")
    if options.notes:
        facts["extended_notes"] = options.notes
        changes.append(options.notes)
    return replace(spec, provenance={**spec.provenance, **facts}), changes


def amend_card(spec: ModelSpec, options: ExtendOptions, changes: Sequence[str]) -> str:
    """The model card, which says in front what it does not know of; empty where there is none."""
    if not spec.model_card or not changes:
        return spec.model_card
    before = f"{options.folder.resolve().parent.name} {options.folder.resolve().name}"
    more = f"> {spec.name} {spec.version} is {before} with the same weights, and more: {'; '.join(changes)}."
    return f"{more}\n\n{spec.model_card}"


def describe_files(manifest: Manifest, files: dict[str, bytes]) -> Manifest:
    """The manifest with new files, whose answers to the golden inputs are asked for anew."""
    seeds = [vector.seed for vector in manifest.golden]
    records, golden = dict(manifest.files), manifest.golden
    for file, data in files.items():
        answers = answer_golden(OnnxModel(data, source=file), seeds)
        record = replace(records[file], sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        if file == MODEL_FILE:
            golden = tuple(answers)
        else:
            record = replace(
                record,
                probabilities=tuple(vector.probabilities for vector in answers),
                outlier_scores=tuple(vector.outlier_score for vector in answers),
            )
        records[file] = record
    return replace(manifest, files=records, golden=golden)
