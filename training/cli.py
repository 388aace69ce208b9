"""The command line: ``python -m training`` trains; its other commands look at data, judge models and draw slices."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from server.flags import LineParser, add_settings, parse_settings, read_settings
from server.images.dicom.window import parse_window
from server.process.console import complain, guard_streams, say, silence_tensorflow
from training.errors import TrainingError
from training.settings.audit import AuditConfig
from training.settings.card import CardConfig
from training.settings.compare import CompareConfig
from training.settings.evaluate import EvaluateConfig
from training.settings.phantom import PhantomConfig
from training.settings.threshold import ThresholdConfig
from training.settings.train import TrainConfig
from training.settings.tune_up import ASKED, TuneUpConfig

TRAIN_EPILOG = """examples:
  python -m training --data scans --out runs/first
  python -m training --data scans --out runs/long --epochs 50 --augment head-ct --positive Stroke
  python -m training --data scans --out runs/ids --patient-pattern '(?P<patient>P[0-9]+)_.*'
  python -m training --data phantom --out runs/phantom --one-image-per-patient
  python -m training --data kinds --out runs/kinds --positive haemorrhage ischaemia
  python -m training --data scans --out runs/folds --folds 5 --resume
  python -m training --data archive --out runs/given --split given --subgroup site,sex,age_band

Ctrl-C ends the training and keeps the best epoch so far; among folds, or for the second time, it stops at once.
After a stop, a crash or a full disk, the same command with --resume goes on after the last complete epoch, with the
same result as without the break.

other commands:
  python -m training audit --help       look for leaks and shortcuts in a data set before training on it
  python -m training phantom --help     write synthetic slices
  python -m training evaluate --help    judge a model, or a running server, on labelled images
  python -m training tune-up --help     adapt an earlier model to other slices
  python -m training compare --help     say whether one of two models is better, on the same images
  python -m training threshold --help   choose the operating point of a model anew, without training
  python -m training card --help        write the model card of a run again, with more facts
"""
AUDIT_EPILOG = """examples:
  python -m training audit scans
  python -m training audit scans --out audits/scans --strict
  python -m training audit scans --label-column hemorrhage --exclude-column blank --json > audit.json

Exit code: 0 when the page was written, whatever it says; 2 when the folder is not usable, or with --strict when an
image cannot be decoded.
"""
PHANTOM_EPILOG = """examples:
  python -m training phantom --out phantom --count 2000 --slices-per-patient 8 --without calcification jpeg
  python -m training phantom --out studies --count 240 --slices-per-patient 24 --size 512 --dicom
  python -m training phantom --out kinds --count 2000 --classes normal,haemorrhage,ischaemia
"""
EVALUATE_EPILOG = """examples:
  python -m training evaluate runs/first --data scans --split runs/first/split.csv
  python -m training evaluate models/stroke-cnn/4 --data scans --out evaluations/first --subgroup site,sex,age_band
  python -m training evaluate 127.0.0.1:50051 --data scans --label-column hemorrhage --exclude-column blank \\
      --trivial-column brain_fraction --subset 'brain_fraction>=0.05' --prevalence 0.02 0.15
"""
TUNE_UP_EPILOG = """examples:
  python -m training tune-up models/stroke-cnn/4 --data scans --out runs/site
  python -m training tune-up runs/first --data scans --out runs/site --split runs/first/split.csv
  python -m training tune-up models/stroke-cnn/4 --data scans --out runs/site --resume
  python -m training tune-up models/stroke-cnn/4 --data scans --out runs/calibrated --last-epochs 0 --epochs 0

Ctrl-C ends a stage and keeps the best epoch so far. The report says first whether it helped.
"""
COMPARE_EPILOG = """examples:
  python -m training compare models/stroke-cnn/4 runs/site --data scans --split runs/site/split.csv
  python -m training compare models/stroke-cnn/4 models/stroke-cnn/5 --data other-hospital --out comparisons/first
  python -m training compare 127.0.0.1:50051 127.0.0.1:50052 --data scans --json
"""
THRESHOLD_EPILOG = """examples:
  python -m training threshold models/stroke-cnn/4 --data scans --sensitivity 0.95
  python -m training threshold models/stroke-cnn/4 --data scans --specificity 0.9 --test others --dry-run
  python -m training threshold models/stroke-cnn/4 --data scans --number 0.3 --out models/stroke-cnn/5

The new version has the weights, outlier score and heatmap of the old one, and its INT8 variant where that decides as
fp32 does at the new threshold, too. A running server takes it by python -m server model activate NAME VERSION.
"""
CARD_EPILOG = """examples:
  python -m training card runs/first --facts facts.json

FILE is a JSON object of texts, for example {"population": "82 people, one site", "contact": "..."}; keys:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0; 1 when the machine has no memory for it, or nobody takes a result that is only printed; 2 for unusable
        flags or data; 130 when interrupted without a result. Each with one line on stderr.
    """
    guard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {
        "audit": run_audit,
        "phantom": run_phantom,
        "evaluate": run_evaluate,
        "tune-up": run_tune_up,
        "compare": run_compare,
        "threshold": run_threshold,
        "card": run_card,
    }
    run = commands[arguments.pop(0)] if arguments and arguments[0] in commands else run_train
    try:
        if not run(arguments):
            complain("error: standard output cannot be written to, and the result is nowhere else")
            return 1
    except TrainingError as error:
        complain(f"error: {error}")
        return 2
    except OSError as error:
        complain(f"error: {error.filename or 'input or output'}: {error.strerror or error}")
        return 2
    except MemoryError as error:
        complain(f"error: there is not enough memory: {error or 'the system gives no more'}")
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)  # ends a line of progress
        complain("interrupted")
        return 130
    return 0


def run_train(arguments: Sequence[str]) -> bool:
    parser = make_parser("python -m training", "Train a network on a folder of slices per class.", TRAIN_EPILOG)
    config = parse_settings(parser, TrainConfig, arguments)
    with silence_tensorflow():
        from training.run.train import train
    say(str(train(config)))
    return True  # the run folder is the result; its name is only told


def run_audit(arguments: Sequence[str]) -> bool:
    from training.audit.examine import audit

    parser = make_parser("python -m training audit", "Look for leaks and shortcuts in a data set.", AUDIT_EPILOG)
    config = parse_settings(parser, AuditConfig, arguments)
    return say(str(audit(config))) or not config.json


def run_phantom(arguments: Sequence[str]) -> bool:
    from training.phantom.dataset import write_dataset
    from training.phantom.recipe import Recipe
    from training.progress import Progress

    parser = make_parser("python -m training phantom", "Write labelled synthetic head-CT slices.", PHANTOM_EPILOG)
    config = parse_settings(parser, PhantomConfig, arguments)
    try:
        write_dataset(
            config.out,
            config.count,
            config.seed,
            size=config.size,
            processes=config.processes,
            progress=Progress("drawing"),
            slices_per_patient=config.slices_per_patient,
            recipe=Recipe().leave_out(config.without),
            dicom=config.dicom,
            window=parse_window(config.window) if config.window else None,
            classes=config.classes,
        )
    except ValueError as error:
        raise TrainingError(str(error)) from None
    say(str(config.out))
    return True


def run_evaluate(arguments: Sequence[str]) -> bool:
    parser = make_parser("python -m training evaluate", "Judge a model on labelled images.", EVALUATE_EPILOG)
    config = parse_settings(parser, EvaluateConfig, arguments)
    from training.judge.folder import evaluate_folder

    return say(evaluate_folder(config).removesuffix("\n")) or config.out is not None


def run_tune_up(arguments: Sequence[str]) -> bool:
    parser = make_parser("python -m training tune-up", "Adapt an earlier model to other slices.", TUNE_UP_EPILOG)
    add_settings(parser, TuneUpConfig, ASKED)
    config = read_settings(parser, parser.parse_args(arguments), TuneUpConfig, ASKED)
    with silence_tensorflow():
        from training.own.tune_up import tune_up
    say(str(tune_up(config)))
    return True


def run_compare(arguments: Sequence[str]) -> bool:
    what = "Compare two models on the same labelled images."
    parser = make_parser("python -m training compare", what, COMPARE_EPILOG)
    config = parse_settings(parser, CompareConfig, arguments)
    from training.own.compare import compare_models

    return say(compare_models(config)) or config.out is not None


def run_threshold(arguments: Sequence[str]) -> bool:
    what = "Choose the operating point of a model anew, and write a new version of it."
    parser = make_parser("python -m training threshold", what, THRESHOLD_EPILOG)
    config = parse_settings(parser, ThresholdConfig, arguments)
    from training.own.threshold import choose_point

    return say(choose_point(config)) or not config.dry_run


def run_card(arguments: Sequence[str]) -> bool:
    from training.report.card import FACTS, write_card

    keys = "\n".join(f"  {key:<15} {meaning}" for key, meaning in FACTS.items())
    parser = make_parser("python -m training card", "Write the model card of a run again.", CARD_EPILOG + keys)
    config = parse_settings(parser, CardConfig, arguments)
    say(str(write_card(config.run, config.facts)))
    return True


def make_parser(program: str, description: str, epilog: str) -> LineParser:
    return LineParser(prog=program, description=description, epilog=epilog)
