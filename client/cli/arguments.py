"""What the command lines of several commands share. Standard library only."""

from __future__ import annotations

import argparse
import math

DEFAULT_SETTLE = 0.5
"""Seconds for which a file under watch must not have changed before it is read."""

MOST_RATE = 10_000.0
"""Images per second that may be asked for: more than one process of Python can send."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help that fits a screen: no empty lines between the groups."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=22)

    def format_help(self) -> str:
        return super().format_help().replace("\n\n", "\n").replace("\nexamples", "\n\nexamples")


def make_parser(
    command: str, usage: str, description: str, epilog: str, *, add_help: bool = True
) -> argparse.ArgumentParser:
    """Returns a command line without arguments yet.

    Args:
        command: the sub-command; empty for the command itself.
        usage: what follows its name.
        description: a sentence.
        epilog: examples and exit status.
        add_help: let argparse add --help, before all other options.
    """
    return argparse.ArgumentParser(
        prog=f"python -m client {command}".rstrip(),
        usage=f"%(prog)s {usage}",
        description=description,
        epilog=epilog,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
        add_help=add_help,
    )


def read_seconds(text: str) -> float:
    """Returns a time of 0 s or more, for argparse."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def read_counts(text: str) -> list[int]:
    """Returns numbers of at least 1 that commas part, for argparse."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1, or several with commas")
    return counts


def read_rates(text: str) -> list[float]:
    """Returns numbers above 0, and of ``MOST_RATE`` at most, that commas part, for argparse."""
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = [0.0]
    if not all(0 < rate <= MOST_RATE for rate in rates):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in (0, {MOST_RATE:.0f}], or several with commas")
    return rates
