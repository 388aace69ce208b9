"""Settings of a command of the gateway: its own, and those of results, which several commands take."""

from __future__ import annotations

import argparse
import os
from typing import TypeVar

from gateway.results.settings import ResultSettings
from server.flags import LineParser, Settings, list_settings, read_settings

Config = TypeVar("Config", bound=Settings)


def read_with_results(
    parser: LineParser, options: argparse.Namespace, config: type[Config]
) -> tuple[Config, ResultSettings]:
    """Reads both from flags and environment; what cannot be used ends the process with exit code 2."""
    # Apart, so that a variable of one is not told as unknown to the other.
    of_results = {one.variable for one in list_settings(ResultSettings)}
    rest = {name: value for name, value in os.environ.items() if name not in of_results}
    own = read_settings(parser, options, config, environment=rest)
    known = {name: value for name, value in os.environ.items() if name in of_results}
    return own, read_settings(parser, options, ResultSettings, environment=known)
