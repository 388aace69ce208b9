"""What both benchmarks take on the command line, and how their reports name it."""

from __future__ import annotations

import argparse
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from bench.images import read_images
from bench.processes import ROOT
from bench.serving.flops import count_flops
from bench.serving.variants import FILES, list_precisions
from server.models.registry import find_only_model

_Number = TypeVar("_Number", int, float)


def add_common_options(parser: argparse.ArgumentParser, *, rounds: int, seconds: float) -> None:
    """Adds the options of both benchmarks, with their defaults."""
    parser.add_argument("--images", type=Path, default=ROOT / "samples", help="folder of images (default: samples)")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="folder of models (default: models)")
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="length of one measurement (default: %(default)g)"
    )
    parser.add_argument(
        "--out", type=Path, help="folder for performance.md, .json and .png (default: only print); other sections stay"
    )


def split_numbers(kind: Callable[[str], _Number]) -> Callable[[str], list[_Number]]:
    """Reads ``1,2,4``."""
    return lambda text: [kind(part) for part in text.split(",") if part]


def describe_images(folder: Path) -> dict[str, Any]:
    """Number, size and origin of the images; a folder outside the project stays unnamed."""
    images = read_images(folder)
    sizes = Counter(Image.open(io.BytesIO(image)).size for image in images)
    (width, height), _ = sizes.most_common(1)[0]
    inside = folder.resolve().is_relative_to(ROOT)
    return {
        "images": folder.resolve().relative_to(ROOT).as_posix() if inside else "own images",
        "image_count": len(images),
        "image_size": f"{width} x {height}",
        "image_kb": sum(map(len, images)) / len(images) / 1000,
    }


def describe_model(models: Path) -> dict[str, Any]:
    """Name, version, precisions and arithmetic of the only model of a folder."""
    folder = find_only_model(models)
    return {
        "model": f"{folder.parent.name} {folder.name}",
        "precisions": list_precisions(models),
        "gflop": count_flops(folder / FILES["fp32"]) / 1e9,
    }
