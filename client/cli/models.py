"""``python -m client models``: which models a server serves, and what one of them says of itself."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from .connection import add_connection_flags, make_parser, read_connection, run_with_client
from .terminal import Terminal, escape, format_blocks

if TYPE_CHECKING:
    from .._client import StrokeClient
    from .._types import ModelInfo

_EPILOG = """\
examples:
  {program} models --server box.local:50051
  {program} models stroke-cnn 1 --json
  {program} models stroke-cnn --card > card.md

exit status: 0 answered, 1 not answered, 2 wrong usage.
"""

_SHORT_DIGEST = 12
"""Digits of a digest in the table: enough to tell files apart."""


def build_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "models",
        "[OPTION]... [NAME [VERSION]]",
        "Lists the models that a server serves, or describes one of them.",
        _EPILOG,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="model to describe")
    parser.add_argument("version", nargs="?", default="", metavar="VERSION", help="its version (default: the server's)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print one JSON object per model instead of text")
    how.add_argument(
        "--card", action="store_true", help="print the model card of NAME, or of the default model, in Markdown"
    )
    add_connection_flags(parser)
    return parser


def main(argv: list[str]) -> int:
    """Runs the sub-command and returns its exit status; ``argv`` are the arguments after ``models``."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    connection = read_connection(parser, arguments)
    return run_with_client(connection, lambda client: _show(arguments, client))


def _show(arguments: argparse.Namespace, client: StrokeClient) -> int:
    if arguments.name is None and not arguments.card:
        models = client.list_models()
    else:
        models = [client.model_info(arguments.name or "", arguments.version)]
    if arguments.json:
        for model in models:
            print(json.dumps(asdict(model)))
    elif arguments.card:
        return _print_card(models[0])
    elif arguments.name is None:
        print_models(models, Terminal(sys.stdout))
    else:
        print(describe_model(models[0]))
    return 0


def _print_card(model: ModelInfo) -> int:
    if not model.model_card:
        print(f"error: the model {model.name} {model.version} has no model card", file=sys.stderr)
        return 1
    # Line by line, because a card has lines and must still not drive the terminal.
    for line in model.model_card.splitlines():
        print("\t".join(map(escape, line.split("\t"))))
    return 0


def print_models(models: list[ModelInfo], terminal: Terminal) -> None:
    """Prints the table of served models."""
    heads = (
        "name",
        "version",
        "default",
        "precision",
        "runtime",
        "input",
        "threshold",
        "window",
        "studies",
        "labels",
        "digest",
    )
    rows = [
        [
            model.name,
            model.version,
            "yes" if model.is_default else "no",
            model.precision,
            model.runtime,
            _format_input(model),
            f"{model.threshold:.3g}",
            ", ".join(f"{window.level:g}/{window.width:g}" for window in model.windows) or "-",
            "yes" if model.judges_studies else "no",
            "/".join(model.labels),
            model.digest[:_SHORT_DIGEST],
        ]
        for model in models
    ]
    terminal.print_table(heads, [[*map(escape, row)] for row in rows], right=("threshold",))


def describe_model(model: ModelInfo) -> str:
    """Returns everything that a model says of itself, but for its card, as lines."""
    lines = {
        "name": model.name,
        "version": model.version + (" (default)" if model.is_default else ""),
        "task": model.task,
        "intended use": model.intended_use,
        "labels": ", ".join(model.labels),
        "positive": f"{model.positive_text} above {model.threshold:.6g}",
        "input": _format_input(model),
        "window": _format_windows(model) or "none: it takes no DICOM files",
        "studies": _format_study_rule(model),
        **_format_limits(model),
        "explains": "yes" if model.explains else "",
        "precision": model.precision,
        "runtime": f"{model.runtime} {model.runtime_version}",
        "threads": f"{model.workers} workers with {model.threads} threads, {model.busy_threads} when busy",
        "profile": model.profile,
        "heatmaps": "yes (--heatmap)" if model.explains else "no",
        "digest": model.digest,
        **{f"metrics.{name}": text for name, text in _format_metrics(model.metrics).items()},
        **{f"provenance.{name}": value for name, value in model.provenance.items()},
        "model card": "--card prints it" if model.model_card else "none",
    }
    return format_blocks([*map(escape, lines)], [[*map(escape, lines.values())]])


def _format_metrics(metrics: Mapping[str, float]) -> dict[str, str]:
    """Returns the figures as text, each with its interval where ``NAME_low`` and ``NAME_high`` give one."""
    texts = {}
    for name, value in metrics.items():
        if name.removesuffix("_low").removesuffix("_high") not in metrics or not name.endswith(("_low", "_high")):
            texts[name] = f"{value:.6g}"
        if f"{name}_low" in metrics and f"{name}_high" in metrics:
            texts[name] += f" ({metrics[f'{name}_low']:.6g} to {metrics[f'{name}_high']:.6g})"
    return texts


def _format_windows(model: ModelInfo) -> str:
    """Returns the windows of a model, one for each channel; empty for a model without."""
    return ", ".join(map(str, model.windows))


def _format_study_rule(model: ModelInfo) -> str:
    if not model.judges_studies:
        return "not judged"
    return f"{model.positive_text} above {model.study_threshold:.6g}, mean of the {model.study_top_k} highest slices"


def _format_limits(model: ModelInfo) -> dict[str, str]:
    """Returns when an image has no answer, as lines; those of the limits that the model has."""
    return {
        "outliers": f"not analysed above {model.outlier_threshold:.6g}" if model.outlier_threshold else "",
        "margin": f"not analysed within {model.indeterminate_margin:.6g}" if model.indeterminate_margin else "",
    }


def _format_input(model: ModelInfo) -> str:
    return f"{model.input_height}x{model.input_width}x{model.input_channels}"
