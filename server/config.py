"""Settings of the server: one definition for flags, ``STROKE_*`` environment names, defaults and the README's table.

Precedence: flag, then environment, then default.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from server.engine import RUNTIMES
from server.image_file import DEFAULT_LIMITS, ImageLimits

ENVIRONMENT_PREFIX = "STROKE_"
MOST_IMAGE_BYTES = 512 * 1024 * 1024
"""gRPC counts the bytes of a message in 31 bits."""

LOG_LEVELS = ("debug", "info", "warning", "error")
PRECISIONS = ("auto", "fp32", "int8")
PROFILES = ("latency", "throughput", "balanced", "tuned")
MOST_THREADS = 1024


def setting(default: Any, text: str) -> Any:
    """A field with its help text; ``{default}`` is filled in by argparse and by the README's test."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class ServerConfig:
    """All settings.

    Raises:
        ValueError: a value is out of range; the text names the setting.
    """

    models: Path = setting(Path("models"), "folder of models, each in NAME/VERSION/")
    model: str = setting(
        "", "NAME or NAME/VERSION to serve; several separated by commas, the first is the default; empty: the only one"
    )
    host: str = setting(
        "127.0.0.1",
        "address to listen on; 0.0.0.0 for all (there is no encryption: trusted networks); unix:/PATH for a socket",
    )
    port: int = setting(50051, "TCP port; 0 takes a free one")
    precision: str = setting(
        "auto",
        "numbers that models compute with: fp32, int8, or auto (int8 where the model has it for this processor)",
    )
    profile: str = setting(
        "balanced",
        "what the processors are for: latency (all for each image), throughput (one for each image), balanced (all for "
        "an image that is alone, one when many are in work), tuned (what 'python -m server tune' has found to be best)",
    )
    threads: str = setting("auto", "threads inside one run of the model: a number, or auto (what the profile says)")
    workers: int = setting(0, "images judged at the same time; 0: one for each processor that this process may use")
    runtime: str = setting("onnxruntime", "what runs the model: onnxruntime, or openvino (an extra installation)")
    cache: str = setting(
        "auto",
        "folder for optimised models, which load faster; auto: strokeserve in XDG_CACHE_HOME or ~/.cache; off: none",
    )
    queue: int = setting(32, "images that may wait for a worker; more are refused with RESOURCE_EXHAUSTED")
    streams: int = setting(16, "streams (PredictStream, PredictBatches) that may be open at the same time")
    stream_idle_seconds: float = setting(
        60.0, "a stream ends when nothing arrives on it, or no answer is taken, for so long"
    )
    max_wait_seconds: float = setting(30.0, "longest time that an image may wait, whatever the caller's deadline")
    drain_seconds: float = setting(30.0, "after SIGTERM, how long requests in flight may take to finish")
    max_image_bytes: int = setting(DEFAULT_LIMITS.max_bytes, "largest image file, in bytes")
    min_image_side: int = setting(DEFAULT_LIMITS.min_side, "shortest side of an image, in pixels")
    max_image_side: int = setting(DEFAULT_LIMITS.max_side, "longest side of an image, in pixels")
    max_image_pixels: int = setting(DEFAULT_LIMITS.max_pixels, "largest width x height of an image, in pixels")
    log_level: str = setting("info", "least level of the log on standard error: debug, info, warning or error")

    def __post_init__(self) -> None:
        at_least = {
            "port": 0,
            "workers": 0,
            "queue": 0,
            "streams": 1,
            "max_image_bytes": 1,
            "min_image_side": 1,
            "max_image_side": self.min_image_side,
            "max_image_pixels": 1,
        }
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ValueError(f"{flag_of(name)} must be at least {least}, got {getattr(self, name)}")
        for name, most in (("port", 65535), ("max_image_bytes", MOST_IMAGE_BYTES)):
            if getattr(self, name) > most:
                raise ValueError(f"{flag_of(name)} must be at most {most}, got {getattr(self, name)}")
        for name in ("stream_idle_seconds", "max_wait_seconds", "drain_seconds"):
            if not 0 < getattr(self, name) <= 86_400:
                raise ValueError(f"{flag_of(name)} must be more than 0 and at most 86400, got {getattr(self, name)}")
        for name, choices in (
            ("log_level", LOG_LEVELS),
            ("precision", PRECISIONS),
            ("profile", PROFILES),
            ("runtime", RUNTIMES),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{flag_of(name)} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.threads != "auto" and not (
            self.threads.isascii() and self.threads.isdigit() and 1 <= int(self.threads) <= MOST_THREADS
        ):
            raise ValueError(f"--threads must be auto or 1 to {MOST_THREADS}, got {self.threads!r}")
        if not self.host:
            raise ValueError("--host must not be empty")

    @property
    def image_limits(self) -> ImageLimits:
        """The limits of the image gate."""
        return ImageLimits(self.max_image_bytes, self.min_image_side, self.max_image_side, self.max_image_pixels)

    @property
    def cache_folder(self) -> Path | None:
        """``cache`` as a folder, which need not exist; None when nothing is to be kept."""
        if self.cache == "off":
            return None
        if self.cache != "auto":
            return Path(self.cache)
        root = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        return Path(root) / "strokeserve"


def flag_of(name: str) -> str:
    """``max_image_bytes`` → ``--max-image-bytes``."""
    return "--" + name.replace("_", "-")


def environment_name_of(name: str) -> str:
    """``max_image_bytes`` → ``STROKE_MAX_IMAGE_BYTES``."""
    return ENVIRONMENT_PREFIX + name.upper()


def build_parser() -> argparse.ArgumentParser:
    """The command line of ``python -m server``."""
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Serves stroke-detection models over gRPC (stroke.v1.StrokeService).",
        epilog=(
            "examples:\n"
            "  python -m server\n"
            "  python -m server --port 0 --model stroke-cnn/1\n"
            "  python -m server --precision fp32 --profile latency\n"
            "  python -m server tune --help\n"
            "  STROKE_HOST=0.0.0.0 python -m server --workers 4\n\n"
            "Every flag can be given as an environment variable: --max-image-bytes is STROKE_MAX_IMAGE_BYTES.\n"
            "SIGTERM or Ctrl-C finishes the requests in flight and exits 0; a second one stops at once.\n"
            "Exit codes: 0 stopped as asked, 1 cannot serve (model, port), 2 usage.\n"
            "Research software. Not a medical device. Not for diagnosis or triage of patients."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_settings(parser, [config_field.name for config_field in fields(ServerConfig)])
    return parser


def add_settings(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Adds the flags of some settings to a command line."""
    for config_field in fields(ServerConfig):
        if config_field.name in names:
            parser.add_argument(
                flag_of(config_field.name),
                type=type(config_field.default),
                default=None,  # so that a flag that was not given leaves the word to the environment
                metavar=config_field.name.rpartition("_")[2].upper(),
                help=f"{config_field.metadata['help']} (default: {describe_default(config_field.default)})",
            )


def describe_default(default: object) -> str:
    """A default as help and README show it."""
    return str(default) if default != "" else "none"


def read_config(argv: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> ServerConfig:
    """Reads flags and environment; a value that cannot be used ends the process with exit code 2 and one line."""
    parser = build_parser()
    names = [config_field.name for config_field in fields(ServerConfig)]
    return read_settings(parser, parser.parse_args(argv), names, environment)


def read_settings(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    names: Sequence[str],
    environment: Mapping[str, str] = os.environ,
) -> ServerConfig:
    """The settings ``names`` from flags and environment, all others at their defaults; errors end the process."""
    values = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for config_field in fields(ServerConfig):
        name = environment_name_of(config_field.name)
        kind: Any = type(config_field.default)
        if config_field.name in names and name in environment and config_field.name not in values:
            try:
                values[config_field.name] = kind(environment[name])
            except ValueError:
                parser.error(f"{name}: {environment[name]!r} is not a valid {kind.__name__}")
    try:
        return ServerConfig(**values)
    except ValueError as error:
        parser.error(str(error))
