"""``python -m converter report``: what was measured when an installed model was made, from its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converter.config import ReportOptions
from server.errors import ModelFileError
from server.flags import LineParser, parse_settings
from server.models.contract import ModelSpec
from server.models.manifest import Manifest, read_manifest, read_verified
from server.process.console import complain, say

EXIT_FAILED = 1


def report_model(argv: Sequence[str]) -> int:
    """Prints the report of a model folder, after checking its files. Returns 0, or 1 when it is damaged."""
    parser = LineParser(
        prog="python -m converter report",
        description="Tells what was measured when a model was made: parity, and the accuracy gate of its variants.",
        epilog="example:\n  python -m converter report models/stroke-cnn/4",
    )
    options = parse_settings(parser, ReportOptions, argv)
    try:
        manifest = read_manifest(options.folder)
        for name in manifest.files:
            read_verified(options.folder, name, manifest)
    except ModelFileError as error:
        complain(f"converter: error: {error.message} [{error.reason}]")
        return EXIT_FAILED
    # Nothing else comes of this command, so a report that nobody got is a failure.
    return 0 if say(manifest.to_json() if options.json else render_manifest(options.folder, manifest)) else EXIT_FAILED


def render_manifest(folder: Path, manifest: Manifest) -> str:
    """The report as text."""
    lines = [f"{folder}: files are as the manifest says; {len(manifest.golden)} golden vectors"]
    lines += [f"  parity       {name.replace('_', ' ')} {value:.2g}" for name, value in manifest.parity.items()]
    if manifest.reference:
        lines.append(render_reference(manifest.reference))
    for name, record in manifest.files.items():
        lines.append(f"{name}: {record.size:,} bytes, sha256 {record.sha256[:12]}…, tolerance {record.tolerance:g}")
        if record.gate:
            lines.append(render_variant({"size": record.size, "target": record.target, **record.gate}))
    return "\n".join(lines)


def render_reference(reference: Mapping[str, Any]) -> str:
    """How near the served answers come to the author's, indented."""
    served, found = reference["served"], reference["found"]
    way = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.items())
    return (
        f"  reference    {reference['file']}: served answers have the same label for {served['same_label']:.1%}, |Δp| "
        f"mean {served['mean_difference']:.2g}, largest {served['largest_difference']:.2g}\n"
        f"  found        {way} (best of {reference['tried']} tried)"
    )


def render_variant(variant: Mapping[str, Any]) -> str:
    """The figures of an INT8 variant, indented."""
    tried = ", ".join(f"{method} {value:.2g}" for method, value in variant["mean_difference_by_method"].items())
    left = ", ".join(f"{count} {kind}" for kind, count in variant["nodes_left"].items())
    lines = [
        f"  int8         {variant['size']:,} bytes for {variant['target']}, calibrated by {variant['method']}",
        f"  slices       {variant['slices']}",
        f"  tried        mean |Δp| by method: {tried}",
        f"  in fp32      {', '.join(variant['fp32_layers']) or 'no convolution'}",
        f"  nodes left   {left}",
    ]
    if variant.get("cascade"):  # not there in manifests of earlier versions
        lines.append(f"  cascade      fp32 answers {describe_cascade(variant['cascade'])}")
    if variant.get("speed"):  # not there in manifests of earlier versions, nor for another kind of processor
        lines.append(f"  speed        {variant['speed']:g} times fp32's, one image on one processor where it was made")
    if variant.get("where_threshold_was_chosen"):
        lines.append(f"  threshold    {variant['where_threshold_was_chosen']}; below, at the conversion's threshold")
    for name in ("calibration", "held_out"):
        figures = variant[name]
        drop = "not measured (no labels)" if figures["auc_drop"] is None else f"{figures['auc_drop']:+.4f}"
        lines.append(
            f"  {name.replace('_', ' '):12} {figures['slices']} slices: same label "
            f"{figures['agreement_at_threshold']:.2%} at the threshold, {figures['agreement_at_half']:.2%} at 0.5; "
            f"|Δp| mean {figures['mean_difference']:.4f}, largest {figures['largest_difference']:.3f}; AUC drop {drop}"
        )
    return "\n".join(lines)


def describe_cascade(band: Mapping[str, Any]) -> str:
    """Where fp32 answers in the place of INT8 (``converter.int8.cascade.Band``), in words."""
    parts = " or ".join(f"{low:.3f} to {high:.3f}" for low, high in band["parts"])
    return f"where INT8 says {parts}, {band['share']:.1%} of the calibration slices"


def render_score(spec: ModelSpec) -> str:
    """The threshold of a model's outlier score, where it has one, and how it was chosen."""
    share = spec.metrics["outlier_validation_share"]
    return f"outlier score: threshold {spec.outlier_threshold:.3f}, which {share:.1%} of the validation slices exceed"
