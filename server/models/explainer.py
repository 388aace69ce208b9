"""The file that shows where the evidence for an answer lies: the fp32 model again, with a heatmap beside its answer.

It is loaded with ``--explain`` alone. Whatever runs the model, ONNX Runtime runs this, with the threads that a run gets
on a busy server: explanations are rare, and are not to take the processors from those who want answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from server.errors import ModelFileError
from server.images.overlay import Box
from server.images.preprocess import InputFormat
from server.models.contract import HEATMAP_KEY, HEATMAP_NAME, INPUT_NAME, OUTPUT_NAME
from server.models.engines.engine import DEFAULT_OPTIONS, EngineOptions, Port
from server.models.golden import GoldenVector, make_golden_input
from server.models.manifest import HOW_TO_MEND, FileRecord
from server.models.onnx_header import read_header
from server.models.strict_json import check_keys, parse_strictly, read_list, read_number

MOST_CELLS = 256
"""Rows, and columns, of a heatmap: all of it is an answer."""


class Explainer:
    """A heatmap of each image. ``run`` may be called from many threads at once.

    Attributes:
        area: which part of the model's input the cells of a heatmap share out evenly.
        rows, columns: of a heatmap.
    """

    def __init__(
        self, data: bytes, *, source: str, input_format: InputFormat, options: EngineOptions = DEFAULT_OPTIONS
    ) -> None:
        """Loads the bytes of an explain file.

        Args:
            data: the file.
            source: what to call it in errors, such as its path.
            input_format: of the model that it explains.
            options: how that is run.

        Raises:
            ModelFileError: reasons MODEL_FILE_INVALID, MODEL_EXTERNAL_DATA, MODEL_GRAPH_UNSUITABLE.
        """
        # Here, for the runtime is loaded only where it is used (``server.models.runtime.open_engine``).
        from server.models.engines.onnxruntime_engine import OnnxRuntimeEngine

        header = read_header(data, source)
        if not header.is_complete:
            raise ModelFileError(
                "MODEL_EXTERNAL_DATA", f"{source}: has values in another file, which nothing verifies; {HOW_TO_MEND}"
            )
        self._input_format = input_format
        own = replace(options, precision="fp32", runtime="onnxruntime", threads=options.busy_threads, cache=None)
        try:
            self._engine = OnnxRuntimeEngine(data, hashlib.sha256(data).hexdigest(), own)
        except Exception as error:  # the exception types of the runtime are private and many
            raise ModelFileError(
                "MODEL_FILE_INVALID", f"{source}: ONNX Runtime cannot load it ({type(error).__name__}); {HOW_TO_MEND}"
            ) from None
        ports = {port.name: port for port in self._engine.outputs}
        height, width, channels = input_format.height, input_format.width, input_format.channels
        is_suited = self._engine.inputs == [Port(INPUT_NAME, "uint8", (None, height, width, channels))]
        match ports.get(HEATMAP_NAME):
            case Port(_, "float32", (_, int(rows), int(columns))) if max(rows, columns) <= MOST_CELLS and is_suited:
                self.rows, self.columns = rows, columns
            case _:
                raise unsuitable(
                    source,
                    f"wants {INPUT_NAME} uint8 [N, {height}, {width}, {channels}] and gives "
                    f"{HEATMAP_NAME} float32 [N, rows, columns]",
                )
        try:
            self.area = read_area(header.metadata.get(HEATMAP_KEY, ""))
        except ValueError as error:
            raise unsuitable(source, f"says in '{HEATMAP_KEY}' where its cells lie ({error})") from None

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns heatmaps, float32 [N, rows, columns], for uint8 [N, height, width, channels]."""
        return self._engine.run(pixels, [HEATMAP_NAME], busy=False)[0]

    def check(self, golden: Sequence[GoldenVector], record: FileRecord, source: str) -> None:
        """Compares its answers on this machine with those where it was made.

        Args:
            golden: what the model's own file answers.
            record: what the manifest says of this file.
            source: what to call it in errors.

        Raises:
            ModelFileError: reason MODEL_ANSWERS_WRONG.
        """
        try:
            difference = self.measure(golden, record.heatmap_sums)
        except Exception as error:  # as above; and the manifest may have other sums, or none
            raise ModelFileError(
                "MODEL_ANSWERS_WRONG", f"{source}: loads, but does not run ({type(error).__name__}); {HOW_TO_MEND}"
            ) from None
        if not difference <= record.tolerance:  # so written that NaN fails
            raise ModelFileError(
                "MODEL_ANSWERS_WRONG",
                f"{source}: on this machine its answers differ by {difference:.2g} from those recorded when it was "
                f"made (allowed: {record.tolerance:.2g}); {HOW_TO_MEND}",
            )

    def answer(self, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities [classes] and heatmap [rows, columns] of a golden input."""
        form = self._input_format
        pixels = make_golden_input(seed, form.height, form.width, form.channels)[np.newaxis]
        probabilities, heatmap = self._engine.run(pixels, [OUTPUT_NAME, HEATMAP_NAME], busy=False)
        return probabilities[0], heatmap[0]

    def measure(self, golden: Sequence[GoldenVector], heatmap_sums: Sequence[float]) -> float:
        """Largest difference of a probability from the golden vectors, or of a sum of a row or column of the first
        heatmap, as a share of the largest sum where that is above 1; NaN when an answer is not a number."""
        answers = [self.answer(vector.seed) for vector in golden]
        wanted, found = np.array(heatmap_sums), np.array(sum_cells(answers[0][1]))
        differences = [np.abs(found - wanted).max() / max(1.0, wanted.max())]
        for vector, (probabilities, _) in zip(golden, answers, strict=True):
            differences.append(np.abs(probabilities - np.array(vector.probabilities)).max())
        return float(np.max(differences))  # which does not pass over NaN, as Python's would


def sum_cells(heatmap: NDArray[np.float32]) -> tuple[float, ...]:
    """The sums of the rows of a heatmap [rows, columns], then those of its columns: what a manifest has of it."""
    return (*map(float, heatmap.sum(axis=1)), *map(float, heatmap.sum(axis=0)))


def read_area(text: str) -> Box:
    """Reads ``HEATMAP_KEY``.

    Raises:
        ValueError: it is no such text.
    """
    document = parse_strictly(text)
    check_keys(document, {"area"})
    edges = list(map(read_number, read_list(document["area"], 4)))
    if len(edges) != 4 or edges[0] >= edges[2] or edges[1] >= edges[3]:
        raise ValueError("an area has left, top, right and bottom, in order")
    return Box(*edges)


def unsuitable(source: str, wanted: str) -> ModelFileError:
    return ModelFileError(
        "MODEL_GRAPH_UNSUITABLE", f"{source}: is no explain file of this model, which {wanted}; {HOW_TO_MEND}"
    )
