"""The steps of a conversion, in order. What is written has passed all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path

import onnx

from converter.config import INT8_MINUTES, ConvertOptions
from converter.errors import AccuracyError, ConversionError, FusionError, SourceError, TargetError
from converter.export import export_model
from converter.graph.edit import embed_spec
from converter.graph.explain_file import renew_explain_file
from converter.heads import check_head, describe_head
from converter.int8.calibrate import load_sets
from converter.int8.quantize import Quantised, quantise
from converter.int8.recorded import REFERENCE_FILE, check_recorded
from converter.int8.watch import Watch
from converter.model_folder import GOLDEN_TOLERANCE, INT8_TOLERANCE, answer_golden, install, make_golden_vectors
from converter.outlier.surgery import fit_score
from converter.pixels.evidence import check_flag, choose_preprocess
from converter.pixels.reference import Reference, check_served, read_reference
from converter.pixels.search import Found, search_pixels
from converter.source import forget_sources, load_source
from converter.verify import Parity, check_parity, load_images
from server.errors import ModelFileError
from server.images.dicom.window import read_windows
from server.images.preprocess import InputFormat
from server.machine.memory import trim_memory
from server.machine.processors import find_target
from server.models.contract import ModelSpec, is_identifier
from server.models.golden import GoldenVector
from server.models.manifest import INT8_FILE, MANIFEST_FILE, MODEL_FILE, FileRecord, Manifest
from server.models.runtime import OnnxModel

RECORDED_TOOLS = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime")


@dataclass(frozen=True)
class ConversionReport:
    """What came out."""

    out: Path
    spec: ModelSpec
    digest: str
    size: int
    kind: str
    preprocess: str
    """What bytes become before the model, a key of ``converter.pixels.preprocess.PREPROCESS``."""

    channel_order: str
    head: str
    """How the model's answer becomes one probability a class."""

    parity: Parity
    recorded: int
    """Files whose answers were compared with those that training recorded."""

    reference: Mapping[str, object] | None
    """How near the served answers come to the author's, and what else was tried; None without a reference."""

    heatmap: str
    """Whether the model can show where its evidence lies, and if not, why, in words."""

    int8: Mapping[str, object] | None
    """What the manifest records of the INT8 variant, size included; None without one."""

    int8_failure: str = ""
    """Why the INT8 variant that was asked for is not there; empty: it is there, or was not asked for."""


def convert(options: ConvertOptions, tell: Callable[[str], None] = lambda step: None) -> ConversionReport:
    """Converts, proves and installs one model.

    Args:
        options: what to do.
        tell: called with the name of each step as it starts.

    Raises:
        ConversionError: nothing was written. An INT8 variant that fails is no such error: the fp32 model is installed,
            and the report says why it is alone.
    """
    spec = build_spec(options)
    tell(f"loading {options.model}")
    source = replace(
        load_source(options.model, architecture=options.architecture, custom=options.custom, size=options.size),
        activation=options.activation,
    )
    check_head(source.outputs, source.activation)
    if source.classes != len(spec.labels):
        raise SourceError(f"{options.model}: answers {source.classes} classes, --labels names {len(spec.labels)}")
    if source.channels == 1:
        spec = replace(spec, colour="grey")
    check_flag(source, options.preprocess)
    found, reference = None, None
    if options.reference is not None:
        reference = read_reference(
            options.reference, options.images, spec, outputs=source.outputs, activation=source.activation
        )
        if reference.missing:
            tell(f"note: left out: {reference.missing} files of {options.reference} that are not in {options.images}")
        found = search_pixels(source, reference, spec, options, tell)
        form = found.best.input_format
        spec = replace(spec, colour=form.colour, resample=form.resample, fit=form.fit)
    input_format = InputFormat(source.height, source.width, spec.colour, spec.resample, spec.fit, spec.windows)
    images = load_images(options.images, input_format, tell)
    if found is not None:
        preprocess = found.best.preprocess
    else:
        preprocess = choose_preprocess(
            source, images, spec, values=options.preprocess, channel_order=options.channel_order or "rgb", tell=tell
        )
    source = replace(source, preprocess=preprocess)
    spec = replace(
        spec,
        provenance={
            **spec.provenance,
            "preprocess": preprocess.values,
            "channel_order": preprocess.channel_order,
        },
    )
    tell(f"exporting ({source.kind}, pixels {preprocess}, opset {options.opset})")
    graph = export_model(source, channels=input_format.channels, opset=options.opset)
    data = embed_spec(graph, spec)
    tell(f"proving parity on {len(images)} images and random ones")
    model, parity = check_parity(data, source, images)
    record_file = options.model.parent / REFERENCE_FILE
    recorded = check_recorded(model, record_file, options.images, allowed=parity.allowed)
    if record_file.exists() and not recorded:
        tell(f"note: none of the files in {record_file} is in {options.images}; --images DATA compares with them too")
    evidence = describe_evidence(found, reference, model) if found and reference else None
    kind, head = source.kind, describe_head(source.outputs, source.activation, spec.labels)
    # What is not needed any more goes at once, here and below: each of them has all weights of a large network.
    del source, found, reference
    forget_sources()
    quantised, failure = make_int8(options, graph, model, tell) if options.int8 else (None, "")
    files = {MODEL_FILE: data} if quantised is None else {MODEL_FILE: data, INT8_FILE: quantised.data}
    if options.outlier:
        try:
            scored = fit_score(options.calibrate, files, spec, model.input_format, tell)
        except AccuracyError as error:
            quantised, failure = None, str(error)
            scored = fit_score(options.calibrate, {MODEL_FILE: data}, spec, model.input_format, tell)
        files, spec = scored
        data, model = files[MODEL_FILE], OnnxModel(files[MODEL_FILE], source=MODEL_FILE)
    golden, digest, size = make_golden_vectors(model), model.digest, len(data)
    records = {MODEL_FILE: FileRecord(digest, size, GOLDEN_TOLERANCE)}
    if quantised is not None:
        records[INT8_FILE] = record_variant(files[INT8_FILE], quantised, golden, has_score=options.outlier)
    del graph, data, model, quantised
    trim_memory()
    manifest = Manifest(
        files=records,
        golden=golden,
        parity={
            "image_difference": parity.image_difference,
            "random_difference": parity.random_difference,
            "source_variation": parity.source_variation,
            "allowed": parity.allowed,
            "images_not_saturated": parity.telling,
        },
        reference=evidence or {},
    )
    tell("adding a heatmap in a file of its own")
    files, manifest, heatmap = renew_explain_file(files, manifest, input_format)
    tell(f"installing into {options.out}")
    install({**files, MANIFEST_FILE: manifest.to_json().encode()}, options.out, force=options.force)
    record = records.get(INT8_FILE)
    return ConversionReport(
        out=options.out,
        spec=spec,
        digest=digest,
        size=size,
        kind=kind,
        preprocess=preprocess.values,
        channel_order=preprocess.channel_order,
        head=head,
        parity=parity,
        recorded=recorded,
        reference=evidence,
        int8=None if record is None else {"size": record.size, "target": record.target, **record.gate},
        heatmap=heatmap,
        int8_failure=failure,
    )


def record_variant(data: bytes, quantised: Quantised, golden: Sequence[GoldenVector], *, has_score: bool) -> FileRecord:
    """The entry of an INT8 variant in the manifest; ``data`` is its file, with an outlier score or without."""
    variant = OnnxModel(data, source=INT8_FILE)
    own = answer_golden(variant, [vector.seed for vector in golden])
    return FileRecord(
        variant.digest,
        len(data),
        INT8_TOLERANCE,
        quantised.target,
        tuple(vector.probabilities for vector in own),
        quantised.to_document(),
        tuple(vector.outlier_score for vector in own) if has_score else (),
    )


def describe_evidence(found: Found, reference: Reference, model: OnnxModel) -> Mapping[str, object]:
    """What the manifest records of a search: the way of pixels, how near what is served comes, and what else was tried.

    Raises:
        OutputValuesError: what is served does not come near.
    """
    served = check_served(model, reference)
    return {
        "file": reference.path.name,
        "sha256": hashlib.sha256(reference.path.read_bytes()).hexdigest(),
        "files_missing": reference.missing,
        "found": found.best.describe(),
        "served": asdict(served),
        "tried": found.tried,
        "candidates": found.to_document(),
    }


def make_int8(
    options: ConvertOptions, graph: onnx.ModelProto, model: OnnxModel, tell: Callable[[str], None]
) -> tuple[Quantised | None, str]:
    """The INT8 variant of an exported graph, or None and why there is none; ``model`` is the same graph, loaded."""
    watch = Watch(INT8_MINUTES if options.int8_minutes is None else options.int8_minutes, tell)
    tell(f"loading slices of {options.calibrate}" if options.calibrate else "drawing synthetic slices to calibrate on")
    sets = load_sets(options.calibrate, model.input_format, model.spec, tell)
    if sets.held_out.classes is None:
        tell(
            f"the slices are not labelled {', '.join(model.spec.labels)}: whether INT8 ranks them as well (AUC) is not "
            "judged, for which --calibrate DIR is needed, with a folder of slices for each of these labels"
        )
    try:
        return quantise(graph, model, sets, target=options.target or find_target(), watch=watch), ""
    except (AccuracyError, FusionError) as error:
        return None, str(error)


def build_spec(options: ConvertOptions) -> ModelSpec:
    """The spec from the flags, completed by ``spec.json`` of the training run where that lies beside the model.

    Raises:
        ConversionError: something is missing or contradicts itself.
    """
    name, version = options.out.parent.name, options.out.name
    if not (is_identifier(name) and is_identifier(version)):
        raise TargetError(f"--out {options.out}: must end in NAME/VERSION, such as models/stroke-cnn/1")
    if options.out.exists() and not options.force:
        raise TargetError(f"{options.out}: exists already; take the next version, or --force to replace it")
    beside = options.model.parent / "spec.json"
    try:
        recorded = ModelSpec.from_json(beside.read_text("utf-8")) if beside.exists() else None
        labels = options.labels or (recorded.labels if recorded else ())
        positive = options.positive or (recorded.positive_labels if recorded else ())
        threshold = options.threshold
        if threshold is None and recorded is not None:
            threshold = recorded.threshold
        if not labels or not positive or threshold is None:
            raise ConversionError(
                f"there is no spec.json beside {options.model}, so --labels, --positive and --threshold are needed"
            )
        if recorded is None:
            recorded = ModelSpec(name, version, labels, positive, threshold)
        spec = replace(
            recorded,
            colour=options.colour or recorded.colour,
            resample=options.resample or recorded.resample,
            fit=options.fit or recorded.fit,
            windows=read_windows(options.window) or recorded.windows,
            name=name,
            version=version,
            labels=labels,
            positive_labels=positive,
            threshold=threshold,
            provenance={**recorded.provenance, **describe_conversion(options)},
        )
        return replace(spec, model_card=amend_card(recorded, spec))
    except ModelFileError as error:
        raise ConversionError(error.message) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConversionError(f"{beside}: cannot be read ({error})") from None


def amend_card(recorded: ModelSpec, spec: ModelSpec) -> str:
    """The model card of the training run, which says in front what the conversion has changed of what it describes."""
    changed = [
        f"{what} {after} (card: {before})"
        for what, before, after in (
            ("name", recorded.name, spec.name),
            ("version", recorded.version, spec.version),
            ("labels", ", ".join(recorded.labels), ", ".join(spec.labels)),
            ("positive label", recorded.positive_text, spec.positive_text),
            ("threshold", f"{recorded.threshold:g}", f"{spec.threshold:g}"),
        )
        if before != after
    ]
    if not (recorded.model_card and changed):
        return recorded.model_card
    return f"> Converted with other settings than this card describes: {'; '.join(changed)}.\n\n{recorded.model_card}"


def describe_conversion(options: ConvertOptions) -> Mapping[str, str]:
    """What the spec records of this conversion."""
    facts = {f"converted_with_{tool}": installed_version(tool) for tool in RECORDED_TOOLS}
    facts |= {
        "source_file": options.model.name,
        "opset": str(options.opset),
        "created": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    if options.activation:
        facts["activation_added"] = options.activation
    if options.model.is_file():
        facts["source_sha256"] = hashlib.sha256(options.model.read_bytes()).hexdigest()
    return facts
