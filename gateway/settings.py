"""Settings of a command of the gateway: its own, and those that several commands take."""

from __future__ import annotations

import argparse
import os
from typing import Any

from server.flags import LineParser, Settings, list_settings, read_settings


def read_several(parser: LineParser, options: argparse.Namespace, *configs: type[Settings]) -> list[Any]:
    """Reads each from flags and environment; what cannot be used ends the process with exit code 2."""
    # Apart, so that a variable of one is not told as unknown to the others.
    variables = [{one.variable for one in list_settings(config)} for config in configs]
    read: list[Any] = []
    for config, own in zip(configs, variables, strict=True):
        others = set().union(*variables) - own
        # Names that nobody knows are told by the first alone.
        known = {name: value for name, value in os.environ.items() if (name not in others if not read else name in own)}
        read.append(read_settings(parser, options, config, environment=known))
    return read
