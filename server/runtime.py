"""The model as something that answers: the only place that knows ONNX Runtime.

A model is served only after its bytes, its contract and its answers on this box have been verified. Decoding is not
done here (``server.preprocess``), nor is the decision (``server.detector``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# The Linux wheels since 1.29 send telemetry unless this is set before the import. A hospital box talks to nobody.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

from server.contract import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, ModelSpec
from server.errors import ModelFileError
from server.manifest import (
    HOW_TO_MAKE,
    HOW_TO_MEND,
    MODEL_FILE,
    GoldenVector,
    make_golden_input,
    read_manifest,
    read_verified,
    sha256_hex,
)
from server.preprocess import InputFormat

onnxruntime.set_default_logger_severity(3)  # errors only: warnings about the graph are the converter's business


class OnnxModel:
    """A verified model in memory. ``run`` may be called from many threads at once.

    Attributes:
        spec: the contract, from the file.
        digest: SHA-256 of the file, 64 lower-case hexadecimal digits.
        input_format: the image that the graph takes.
    """

    def __init__(self, data: bytes, *, source: str, threads: int = 1) -> None:
        """Loads the bytes of an ONNX file that follows ``server.contract``.

        Args:
            data: the file.
            source: what to call it in errors, such as its path.
            threads: threads inside one ``run``. Set explicitly because ONNX Runtime ignores the limits of containers.

        Raises:
            ModelFileError: reasons MODEL_FILE_INVALID, MODEL_SPEC_MISSING, MODEL_SPEC_INVALID,
                MODEL_SPEC_UNKNOWN_SCHEMA, MODEL_GRAPH_UNSUITABLE.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A spinning thread is fast on a quiet box and doubles the latency and the CPU of everything on a busy one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exception types are private and many
            raise ModelFileError(
                "MODEL_FILE_INVALID", f"{source}: ONNX Runtime cannot load it ({first_line(error)}); {HOW_TO_MEND}"
            ) from None
        metadata = self._session.get_modelmeta().custom_metadata_map
        if METADATA_KEY not in metadata:
            raise ModelFileError(
                "MODEL_SPEC_MISSING",
                f"{source}: has no '{METADATA_KEY}' metadata, so labels and decision are unknown; {HOW_TO_MAKE}",
            )
        try:
            self.spec = ModelSpec.from_json(metadata[METADATA_KEY])
        except ModelFileError as error:
            raise ModelFileError(error.reason, f"{source}: {error.message}") from None
        self.digest = sha256_hex(data)
        self.input_format = self._read_input_format(source)

    def _read_input_format(self, source: str) -> InputFormat:
        """Checks that the graph has the names, types and shapes of the contract, and reads the image size from it."""
        spec = self.spec
        channels = InputFormat(1, 1, spec.colour).channels
        found_inputs = [(i.name, i.type, i.shape) for i in self._session.get_inputs()]
        found_outputs = [(o.name, o.type, o.shape) for o in self._session.get_outputs()]
        wanted = (
            f"one input {INPUT_NAME} uint8 [N, height, width, {channels}] and one output {OUTPUT_NAME} float32 "
            f"[N, {len(spec.labels)}]"
        )
        match found_inputs, found_outputs:
            case (
                [(name, "tensor(uint8)", [batch, int(height), int(width), depth])],
                [(output, "tensor(float)", [_, classes])],
            ) if (name, output, depth, classes) == (INPUT_NAME, OUTPUT_NAME, channels, len(spec.labels)) and (
                not isinstance(batch, int)
            ):
                return InputFormat(height, width, spec.colour, spec.resample, spec.fit)
        raise ModelFileError(
            "MODEL_GRAPH_UNSUITABLE",
            f"{source}: the graph has inputs {found_inputs} and outputs {found_outputs}, but the contract wants "
            f"{wanted}; {HOW_TO_MAKE}",
        )

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the probabilities, float32 [N, len(spec.labels)], for uint8 [N, height, width, channels]."""
        (probabilities,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: pixels})
        return np.asarray(probabilities, dtype=np.float32)


def load_model(folder: Path, *, threads: int = 1) -> OnnxModel:
    """Loads, verifies and warms up the model in ``models/<name>/<version>/``.

    Raises:
        ModelFileError: any reason of ``server.manifest`` and of ``OnnxModel``, MODEL_MISPLACED, MODEL_ANSWERS_WRONG.
    """
    manifest = read_manifest(folder)
    data = read_verified(folder, MODEL_FILE, manifest)
    path = folder / MODEL_FILE
    model = OnnxModel(data, source=str(path), threads=threads)
    if (model.spec.name, model.spec.version) != (folder.parent.name, folder.name):
        raise ModelFileError(
            "MODEL_MISPLACED",
            f"{path}: says that it is {model.spec.name} {model.spec.version}; "
            f"its place is {Path(model.spec.name) / model.spec.version} below the models folder",
        )
    # The golden vectors are also the warm-up: the first run of a session allocates and is several times slower.
    try:
        difference = measure_golden_difference(model, manifest.list_golden(MODEL_FILE))
    except Exception as error:  # ONNX Runtime's exception types are private and many
        raise ModelFileError(
            "MODEL_ANSWERS_WRONG", f"{path}: loads, but does not run ({first_line(error)}); {HOW_TO_MEND}"
        ) from None
    tolerance = manifest.files[MODEL_FILE].tolerance
    if not difference <= tolerance:  # so written that NaN fails
        raise ModelFileError(
            "MODEL_ANSWERS_WRONG",
            f"{path}: on this machine its answers differ by {difference:.2g} from those recorded when it was made "
            f"(allowed: {tolerance:.2g}); {HOW_TO_MEND}",
        )
    return model


def measure_golden_difference(model: OnnxModel, golden: Sequence[GoldenVector]) -> float:
    """Largest absolute difference of a probability from the golden vectors; NaN when an answer is not a number."""
    shape = (model.input_format.height, model.input_format.width, model.input_format.channels)
    differences = []
    for vector in golden:
        answer = model.run(make_golden_input(vector.seed, *shape)[np.newaxis])[0]
        if answer.shape != (len(vector.probabilities),):
            return float("inf")
        differences.append(np.abs(answer - np.array(vector.probabilities)).max())
    return float(np.max(differences))


def first_line(error: Exception) -> str:
    """The first line of an exception's text, for a one-line message."""
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
