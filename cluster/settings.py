"""Settings of a command: its own, and those of the server that decide what an image is answered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from server.config import ServerConfig
from server.flags import Config, LineParser, add_settings, read_settings

OF_MODEL = (
    *("models", "model", "require_signature", "precision", "runtime", "cache", "checks"),
    *("max_image_bytes", "min_image_side", "max_image_side", "max_image_pixels"),
)
"""Settings of the server that every command has, too, with their ``STROKE_*`` names in the environment."""


def read_command(
    parser: LineParser, own: type[Config], of_server: Sequence[str], argv: Sequence[str]
) -> tuple[Config, ServerConfig]:
    """Reads a command line. Errors end the process.

    Args:
        parser: of the command.
        own: its own settings.
        of_server: names of those of the server.
        argv: the command line.
    """
    add_settings(parser, own)
    add_settings(parser, ServerConfig, of_server)
    options = parser.parse_args(argv)
    config = read_settings(parser, options, own)
    return config, resolve(read_settings(parser, options, ServerConfig, of_server, os.environ))


def resolve(server: ServerConfig) -> ServerConfig:
    """Settings for processes with other working directories."""
    keys, rules = server.require_signature, server.study_rules
    return replace(
        server,
        models=server.models.resolve(),
        require_signature=keys and keys.resolve(),
        study_rules=rules and rules.resolve(),
    )
