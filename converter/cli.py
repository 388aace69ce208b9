"""``python -m converter``: a trained model in, a served one out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from converter.report import render_variant, report_model
from server.flags import LineParser, Range, read_in_range
from server.models.contract import COLOURS
from server.models.manifest import TARGETS
from server.process.console import complain, guard_streams, say
from server.process.program import run_guarded
from training.progress import silence_tensorflow

EXIT_FAILED = 1
OPSETS = Range(7, 25)
"""Older ones lack what the networks need; newer ones neither tf2onnx nor the runtime knows."""


def build_parser() -> LineParser:
    """The command line."""
    parser = LineParser(
        prog="python -m converter",
        description="Converts a trained Keras model to ONNX, proves that it answers the same, and installs it.",
        epilog=(
            "examples:\n"
            "  python -m converter runs/x/brain_stroke_model.keras -o models/stroke-cnn/2\n"
            "  python -m converter brain_stroke_model.h5 -o models/stroke-cnn/1 \\\n"
            "      --labels normal,stroke --positive stroke --threshold 0.05 --images data/test\n"
            "  python -m converter saved_model/ -o models/other/1 --labels normal,stroke --positive stroke \\\n"
            "      --threshold 0.5 --input-range 0..1\n"
            "  python -m converter runs/x/brain_stroke_model.keras -o models/stroke-cnn/2 --int8 --calibrate data/\n"
            "  python -m converter report models/stroke-cnn/2\n\n"
            "Exit codes: 0 installed, 1 not converted (one line says why; nothing was written), 2 usage.\n"
            "Research software. Not a medical device."
        ),
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help=".keras file, .h5 file (Keras 2 or 3) or SavedModel")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="models/NAME/VERSION, where the result goes"
    )
    parser.add_argument(
        "--labels",
        type=lambda text: tuple(label.strip() for label in text.split(",")),
        default=(),
        metavar="A,B",
        help="classes in the order of the model's output (default: from spec.json beside MODEL)",
    )
    parser.add_argument("--positive", default="", metavar="LABEL", help="label to detect (default: from spec.json)")
    parser.add_argument(
        "--threshold",
        type=read_in_range(Range(0, 1), float),
        metavar="P",
        help="the positive label is answered above this probability (default: from spec.json)",
    )
    parser.add_argument(
        "--input-range",
        choices=("0..255", "0..1"),
        help="pixel values that MODEL takes: 0..255 when it scales them itself, 0..1 when they were divided by 255 "
        "before training (default: read from its layers)",
    )
    parser.add_argument(
        "--images", type=Path, default=Path("samples"), metavar="DIR", help="images for the proof (default: samples)"
    )
    parser.add_argument(
        "--colour",
        choices=COLOURS,
        help="grey: a model of three channels judges grey slices; it then takes one channel, and is faster (default: "
        "from spec.json, or as the model)",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="make the INT8 variant too, if it passes the accuracy gate (some minutes)",
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="DIR",
        help="slices that the INT8 variant is calibrated and judged on, one folder a class (default: synthetic ones)",
    )
    parser.add_argument(
        "--target", choices=TARGETS, help="processor that the INT8 variant is made for (default: this one's kind)"
    )
    parser.add_argument(
        "--opset",
        type=read_in_range(OPSETS, int),
        default=17,
        metavar="N",
        help=f"ONNX operator set ({OPSETS}; default: 17)",
    )
    parser.add_argument("--force", action="store_true", help="replace what is in DIR")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Converts, or reports. Returns 0 when that is done, 1 when it is not; usage errors exit with 2."""
    guard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run_guarded("converter", lambda: run_command(arguments))


def run_command(argv: Sequence[str]) -> int:
    """See ``main``."""
    if argv[:1] == ["report"]:
        return report_model(argv[1:])
    parser = build_parser()
    arguments = vars(parser.parse_args(argv))
    if not arguments["int8"] and (arguments["calibrate"] or arguments["target"]):
        parser.error("--calibrate and --target are for --int8")
    as_json = arguments.pop("json")
    # Here, so that --help and usage errors do not wait for TensorFlow.
    with silence_tensorflow():
        from converter.convert import ConvertOptions, convert
        from converter.errors import ConversionError

    try:
        report = convert(ConvertOptions(**arguments), tell=tell_step)
    except ConversionError as error:
        complain(f"converter: error: {error}")
        return EXIT_FAILED
    if as_json:
        document = {**asdict(report), "out": str(report.out), "spec": json.loads(report.spec.to_json())}
        say(json.dumps(document))
        return 0
    spec, parity = report.spec, report.parity
    # The model is installed by now, whether or not anybody reads this.
    say(
        f"{report.out}: {spec.name} {spec.version}, {report.size:,} bytes, sha256 {report.digest[:12]}…\n"
        f"  source       {report.kind}, input range {report.input_range}\n"
        f"  labels       {', '.join(spec.labels)}; {spec.positive_label} when above {spec.threshold:g}\n"
        f"  parity       {parity.image_difference:.2g} on {parity.images} images, "
        f"{parity.random_difference:.2g} on {parity.random_images} random ones (allowed: 1e-05)"
    )
    if report.recorded:
        say(f"  recorded     {report.recorded} files answer as training wrote down")
    if report.int8:
        say(render_variant(report.int8))
    return 0


def tell_step(step: str) -> None:
    """Says what the converter is at."""
    complain(f"converter: {step} …")
