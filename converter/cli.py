"""``python -m converter``: a trained model in, a served one out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from converter.config import CommandOptions
from converter.report import render_reference, render_score, render_variant, report_model
from converter.signing import COMMANDS
from server.flags import LineParser, parse_settings
from server.process.console import complain, guard_streams, say, silence_tensorflow
from server.process.program import run_guarded

if TYPE_CHECKING:
    from converter.convert import ConversionReport

EXIT_FAILED = 1
EXIT_NO_VARIANT = 3


def build_parser() -> LineParser:
    """The command line."""
    return LineParser(
        prog="python -m converter",
        description="Converts a trained Keras model to ONNX, proves that it answers the same, and installs it.",
        epilog=(
            "examples:\n"
            "  python -m converter runs/x/brain_stroke_model.keras -o models/stroke-cnn/4\n"
            "  python -m converter brain_stroke_model.h5 -o models/stroke-cnn/1 \\\n"
            "      --labels normal,stroke --positive stroke --threshold 0.05 --images data/test\n"
            "  python -m converter saved_model/ -o models/other/1 --labels normal,stroke --positive stroke \\\n"
            "      --threshold 0.5 --preprocess 0..1\n"
            "  python -m converter other.h5 -o models/other/1 --labels normal,stroke --positive stroke \\\n"
            "      --threshold 0.5 --reference predictions.csv --images data/test\n"
            "  python -m converter runs/x/brain_stroke_model.keras -o models/stroke-cnn/4 --int8 --calibrate data/\n"
            "  python -m converter extend models/stroke-cnn/1 -o models/stroke-cnn/4 --window 40,80\n"
            "  python -m converter report models/stroke-cnn/4\n"
            "  python -m converter verify models/stroke-cnn/4\n"
            "  python -m converter sign models/stroke-cnn/4 --key signing.pem\n\n"
            "Exit codes: 0 installed, 1 not converted (one line says why; nothing was written), 2 usage,\n"
            "3 installed in fp32 alone: the INT8 variant failed (one line says why).\n"
            "Research software. Not a medical device."
        ),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Converts, or reports. Returns 0 when that is done, 1 when it is not, 3 without the INT8 variant.

    Usage errors exit with 2.
    """
    guard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run_guarded("converter", lambda: run_command(arguments))


def run_command(argv: Sequence[str]) -> int:
    """See ``main``."""
    if argv[:1] == ["report"]:
        return report_model(argv[1:])
    if argv[:1] == ["extend"]:
        from converter.outlier.extend import run_extend  # and ONNX Runtime with it, which others need not wait for

        return run_extend(argv[1:])
    if argv and (command := COMMANDS.get(argv[0])) is not None:
        return command(argv[1:])
    options = parse_settings(build_parser(), CommandOptions, argv)
    # Here, so that --help and usage errors do not wait for TensorFlow.
    with silence_tensorflow():
        from converter.convert import convert
        from converter.errors import ConversionError
        from converter.source import use_all_processors

    use_all_processors()
    try:
        report = convert(options, tell=tell_step)
    except ConversionError as error:
        complain(f"converter: error: {error}")
        return EXIT_FAILED
    if options.json:
        document = {**asdict(report), "out": str(report.out), "spec": json.loads(report.spec.to_json())}
        say(json.dumps(document))
        return tell_failure(report)
    spec, parity = report.spec, report.parity
    # The model is installed by now, whether or not anybody reads this.
    say(
        f"{report.out}: {spec.name} {spec.version}, {report.size:,} bytes, sha256 {report.digest[:12]}…\n"
        f"  source       {report.kind}\n"
        f"  pixels       {report.preprocess} of {report.channel_order}, {spec.colour}, resample {spec.resample}, "
        f"fit {spec.fit}\n"
        f"  labels       {', '.join(spec.labels)}; {spec.positive_text} when above {spec.threshold:g}\n"
        f"  head         {report.head}\n"
        f"  parity       {parity.image_difference:.2g} on {parity.images} images, "
        f"{parity.random_difference:.2g} on {parity.random_images} random ones (allowed: {parity.allowed:.2g}; "
        f"the source itself varies by {parity.source_variation:.2g})"
    )
    if not parity.telling:
        complain(
            "converter: warning: parity is no proof here: the model answers nearly 0 or 1 on every image, so that it "
            "would have to be a very different one to answer otherwise; --images DIR with images that it finds hard"
        )
    say(f"  heatmap      {report.heatmap}")
    if report.reference:
        say(render_reference(report.reference))
    if report.recorded:
        say(f"  recorded     {report.recorded} files answer as training wrote down")
    if spec.outlier_threshold:
        say(f"  {render_score(spec)}")
    if report.int8:
        say(render_variant(report.int8))
    return tell_failure(report)


def tell_failure(report: ConversionReport) -> int:
    """Says why there is no INT8 variant, if one was asked for. Returns the exit code."""
    if not report.int8_failure:
        return 0
    complain(f"converter: error: installed in fp32 alone, which serves as it is: {report.int8_failure}")
    return EXIT_NO_VARIANT


def tell_step(step: str) -> None:
    """Says what the converter is at, or has found."""
    first, *table = step.splitlines()
    is_step = not table and not step.startswith(("warning", "note"))
    for line in (f"converter: {first}{' …' if is_step else ''}", *table):
        complain(line)
