"""The command line: ``python -m training`` trains; ``phantom`` and ``score`` are its sub-commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from training.config import CardConfig, PhantomConfig, ScoreConfig, TrainConfig
from training.errors import TrainingError
from training.flags import add_flags, read_flags
from training.noise import hide_import_noise

TRAIN_EPILOG = """examples:
  python -m training --data scans --out runs/first
  python -m training --data scans --out runs/long --epochs 50 --augment head-ct --positive Stroke
  python -m training --data scans --out runs/ids --patient-pattern '(?P<patient>P[0-9]+)_.*'
  python -m training --data phantom --out runs/phantom --one-image-per-patient
  python -m training --data scans --out runs/folds --folds 5 --resume

Ctrl-C ends the training and keeps the best epoch so far; among folds, or for the second time, it stops at once.
After a stop, a crash or a full disk, the same command with --resume goes on after the last complete epoch, with the
same result as without the break.

other commands:
  python -m training phantom --help   write synthetic slices
  python -m training score --help     judge a server's answers on labelled images
  python -m training card --help      write the model card of a run again, with more facts
"""
PHANTOM_EPILOG = """example:
  python -m training phantom --out phantom --count 2000 --seed 7
"""
SCORE_EPILOG = """example:
  python -m client scans --json > answers.jsonl
  python -m training score --predictions answers.jsonl --labels labels.csv --label-column hemorrhage \\
      --exclude-column blank --trivial-column brain_fraction
"""
CARD_EPILOG = """example:
  python -m training card runs/first --facts facts.json

FILE is a JSON object of texts, for example {"population": "82 people, one site", "contact": "..."}; keys:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        0; 2 for unusable flags or data, with one line on stderr; 130 when interrupted without a result.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments[:1] in (["phantom"], ["score"], ["card"]) else "train"
    run = {"train": run_train, "phantom": run_phantom, "score": run_score, "card": run_card}[command]
    try:
        run(arguments)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0


def run_train(arguments: Sequence[str]) -> None:
    parser = make_parser("python -m training", "Train a network on a folder of slices per class.", TRAIN_EPILOG)
    add_flags(parser, TrainConfig)
    config = read_flags(parser.parse_args(arguments), TrainConfig)
    with hide_import_noise():
        from training.train import train
    print(train(config))


def run_phantom(arguments: Sequence[str]) -> None:
    from training.phantom import write_dataset
    from training.progress import Progress

    parser = make_parser("python -m training phantom", "Write labelled synthetic head-CT slices.", PHANTOM_EPILOG)
    add_flags(parser, PhantomConfig)
    config = read_flags(parser.parse_args(arguments), PhantomConfig)
    try:
        write_dataset(
            config.out,
            config.count,
            config.seed,
            size=config.size,
            processes=config.processes,
            progress=Progress("drawing"),
        )
    except ValueError as error:
        raise TrainingError(str(error)) from None
    print(config.out)


def run_score(arguments: Sequence[str]) -> None:
    from training.score import score

    parser = make_parser("python -m training score", "Judge a server's answers on labelled images.", SCORE_EPILOG)
    add_flags(parser, ScoreConfig)
    print(score(read_flags(parser.parse_args(arguments), ScoreConfig)), end="")


def run_card(arguments: Sequence[str]) -> None:
    from training.card import FACTS, write_card

    keys = "\n".join(f"  {key:<15} {meaning}" for key, meaning in FACTS.items())
    parser = make_parser("python -m training card", "Write the model card of a run again.", CARD_EPILOG + keys)
    add_flags(parser, CardConfig)
    config = read_flags(parser.parse_args(arguments), CardConfig)
    print(write_card(config.run, config.facts))


def make_parser(program: str, description: str, epilog: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=program, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
