"""``python -m bench.serving.decode``: the server's decoder beside plain Pillow, on both kinds of file.

Plain Pillow is what a typical server does: open, convert to RGB, resize with the bilinear filter.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.images import read_images
from bench.report.machine import describe_machine
from bench.report.page import publish
from bench.serving.settings import ReportOptions, describe_images
from server.flags import LineParser, parse_settings, setting
from server.images.preprocess import InputFormat, load_pixels
from server.process.children import run_main


@dataclass(frozen=True)
class DecodeOptions(ReportOptions):
    """What is measured."""

    rounds: int = setting(9, "rounds", least=1, most=1000)


SIDE = 256
MOST_IMAGES = 40


def decode_plainly(data: bytes) -> NDArray[np.uint8]:
    """Pillow as most use it: uint8 [256, 256, 3]."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "plain Pillow": decode_plainly,
    "server, grey model": lambda data: load_pixels(data, InputFormat(SIDE, SIDE, "grey")).array,
    "server, RGB model": lambda data: load_pixels(data, InputFormat(SIDE, SIDE, "rgb")).array,
}


def make_files(images: Sequence[bytes]) -> dict[str, list[bytes]]:
    """The same slices as grey PNG of 512 x 512 and as colour JPEG of 650 x 650, as viewers export them."""
    files: dict[str, list[bytes]] = {"PNG 512 x 512": [], "JPEG 650 x 650": []}
    for data in images[:MOST_IMAGES]:
        grey = Image.open(io.BytesIO(data)).convert("L")
        png, jpeg = io.BytesIO(), io.BytesIO()
        (grey if grey.size == (512, 512) else grey.resize((512, 512))).save(png, "PNG")
        grey.resize((650, 650)).convert("RGB").save(jpeg, "JPEG", quality=90)
        files["PNG 512 x 512"].append(png.getvalue())
        files["JPEG 650 x 650"].append(jpeg.getvalue())
    return files


def measure(files: dict[str, list[bytes]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds an image, by kind of file and decoder, one value a round; decoders take turns within a round."""
    times: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in DECODERS} for kind in files}
    for _ in range(rounds):
        for kind, images in files.items():
            for name, decode in DECODERS.items():
                started = time.perf_counter()
                for data in images:
                    decode(data)
                times[kind][name].append(1000 * (time.perf_counter() - started) / len(images))
    return times


def measure_distance(files: dict[str, list[bytes]]) -> dict[str, float]:
    """Mean absolute difference in grey levels from plain Pillow, by kind of file, for the grey model."""
    grey = DECODERS["server, grey model"]
    return {
        kind: float(
            np.mean([np.abs(grey(data) - decode_plainly(data)[:, :, :1].astype(float)).mean() for data in images])
        )
        for kind, images in files.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = LineParser("python -m bench.serving.decode", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, DecodeOptions, argv)
    files = make_files(read_images(options.images))
    section = {
        "machine": describe_machine(),
        "images": describe_images(options.images)["images"],
        "rounds": options.rounds,
        "ms": measure(files, options.rounds),
        "distance": measure_distance(files),
    }
    print(publish("decode", section, options.out))
    return 0


if __name__ == "__main__":
    run_main(main)
