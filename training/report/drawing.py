"""How every picture of a run is made: a PNG without a window system, in colours that colour-blind people tell apart."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from PIL import Image

DOTS_PER_INCH = 120
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#595959"
"""Blue and vermillion of the palette of Okabe and Ito (2008); dashes and marks say the same without colour."""

PALETTE = 128
"""Colours of a file: grey slices and a few lines need no more, and it keeps a gallery below 600 kB."""

LONGEST_LABEL = 14


@contextmanager
def draw(path: Path, size: tuple[float, float], dots: int = DOTS_PER_INCH) -> Iterator[Drawing]:
    """Yields a drawing of ``size`` inches and writes it to ``path`` at the end.

    Without pyplot: no window system, no global state. Labels are text, never formulas, whatever they contain.
    """
    with mpl.rc_context({"text.parse_math": False, "axes.titlesize": "medium"}):
        drawing = Drawing(figsize=size, layout="constrained")
        canvas = FigureCanvasAgg(drawing)
        yield drawing
        drawing.set_dpi(dots)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).quantize(PALETTE, dither=Image.Dither.NONE).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())


def shorten(text: str, longest: int = LONGEST_LABEL) -> str:
    """Returns the text on one line, cut in the middle where it is longer than the place it has."""
    text = " ".join(text.split())
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"
