"""The model as something that answers, whatever runtime is behind it.

A model is served only after its bytes, its contract and its answers on this box have been verified. Decoding is not
done here (``server.images.preprocess``), nor is the decision (``server.core.detector``). The engines are imported only
when they are chosen.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.errors import ModelFileError
from server.images.preprocess import InputFormat
from server.machine.priority import call_here, call_quietly
from server.machine.processors import is_suited
from server.models.contract import INPUT_NAME, METADATA_KEY, OUTLIER_NAME, OUTPUT_NAME, ModelSpec
from server.models.engines.engine import DEFAULT_OPTIONS, Engine, EngineOptions, Port
from server.models.explainer import Explainer
from server.models.golden import GoldenVector, make_golden_input
from server.models.manifest import (
    EXPLAIN_FILE,
    HOW_TO_MAKE,
    HOW_TO_MEND,
    INT8_FILE,
    MODEL_FILE,
    Manifest,
    check_file,
    parse_manifest,
    read_manifest_bytes,
    read_verified,
)
from server.models.onnx_header import read_header
from server.models.signature import TrustedKey, check_signature

logger = logging.getLogger(__name__)

FILES = {"fp32": MODEL_FILE, "int8": INT8_FILE}
"""The file of each precision."""


class Scores(NamedTuple):
    """What a model says of N images."""

    probabilities: NDArray[np.float32]
    """[N, len(spec.labels)]."""

    outlier: NDArray[np.float32]
    """[N], see ``server.models.contract.OUTLIER_NAME``; zeros of a model that does not tell."""


class OnnxModel:
    """A verified model in memory. ``run`` may be called from many threads at once.

    Attributes:
        spec: the contract, from the file.
        digest: SHA-256 of the file, 64 lower-case hexadecimal digits.
        input_format: the image that the graph takes.
        options: how it is run; ``precision`` is what the file computes with, one of ``FILES``.
        runtime, runtime_version: what runs it.
        explainer: shows where the evidence lies; None: nobody has asked for it, or it has none.
    """

    def __init__(self, data: bytes, *, source: str, options: EngineOptions = DEFAULT_OPTIONS) -> None:
        """Loads the bytes of an ONNX file that follows ``server.models.contract``.

        Args:
            data: the file.
            source: what to call it in errors, such as its path.
            options: how to run it; ``precision`` is what the file computes with, not ``auto``.

        Raises:
            ModelFileError: reasons RUNTIME_MISSING, MODEL_FILE_INVALID, MODEL_SPEC_MISSING, MODEL_SPEC_INVALID,
                MODEL_SPEC_UNKNOWN_SCHEMA, MODEL_GRAPH_UNSUITABLE, MODEL_EXTERNAL_DATA.
        """
        self.options = options
        self.explainer: Explainer | None = None
        self.digest = hashlib.sha256(data).hexdigest()
        header = read_header(data, source)
        if not header.is_complete:
            raise ModelFileError(
                "MODEL_EXTERNAL_DATA",
                f"{source}: has values in another file, which nothing verifies; {HOW_TO_MEND}",
            )
        try:
            self._engine = open_engine(data, self.digest, options)
        except ModelFileError:
            raise
        except Exception as error:  # the exception types of the runtimes are private and many
            raise ModelFileError(
                "MODEL_FILE_INVALID", f"{source}: {options.runtime} cannot load it ({first_line(error)}); {HOW_TO_MEND}"
            ) from None
        self.runtime, self.runtime_version = self._engine.name, self._engine.version
        if METADATA_KEY not in header.metadata:
            raise ModelFileError(
                "MODEL_SPEC_MISSING",
                f"{source}: has no '{METADATA_KEY}' metadata, so labels and decision are unknown; {HOW_TO_MAKE}",
            )
        try:
            self.spec = ModelSpec.from_json(header.metadata[METADATA_KEY])
        except ModelFileError as error:
            raise ModelFileError(error.reason, f"{source}: {error.message}") from None
        self.input_format = self._read_input_format(source, header.inputs)
        self._outputs = (OUTPUT_NAME, OUTLIER_NAME) if self.spec.outlier_threshold else (OUTPUT_NAME,)

    def _read_input_format(self, source: str, stated: Sequence[Port]) -> InputFormat:
        """Checks that the graph has the names, types and shapes of the contract, and reads the image size from it.

        Args:
            source: what to call the file in errors.
            stated: the inputs that the verified file has; what the runtime loaded must have the same.
        """
        spec = self.spec
        channels = InputFormat(1, 1, spec.colour).channels
        inputs, outputs = list(self._engine.inputs), list(self._engine.outputs)
        wanted = (
            f"one input {INPUT_NAME} uint8 [N, height, width, {channels}], an output {OUTPUT_NAME} float32 "
            f"[N, {len(spec.labels)}]"
        )
        answered: dict[str, tuple[int, ...]] = {OUTPUT_NAME: (len(spec.labels),)}
        if spec.outlier_threshold:
            wanted += f" and, for its outlier_threshold, {OUTLIER_NAME} float32 [N]"
            answered[OUTLIER_NAME] = ()
        is_answered = {port.name: (port.dtype, *port.shape[1:]) for port in outputs} == {
            name: ("float32", *shape) for name, shape in answered.items()
        }
        match inputs:
            case [Port(name, "uint8", (None, int(height), int(width), depth))] if (name, depth) == (
                INPUT_NAME,
                channels,
            ):
                if is_answered and inputs == list(stated):
                    return InputFormat(height, width, spec.colour, spec.resample, spec.fit, spec.windows)
        raise ModelFileError(
            "MODEL_GRAPH_UNSUITABLE",
            f"{source}: the graph has inputs {describe(inputs)} and outputs {describe(outputs)}, but the contract "
            f"wants {wanted}; {HOW_TO_MAKE}",
        )

    def run(self, pixels: NDArray[np.uint8], *, busy: bool = False) -> NDArray[np.float32]:
        """Returns the probabilities, float32 [N, len(spec.labels)], for uint8 [N, height, width, channels].

        Args:
            pixels: the images.
            busy: true while many images are in work, to run with ``options.busy_threads`` threads.
        """
        return self.score(pixels, busy=busy).probabilities

    def score(self, pixels: NDArray[np.uint8], *, busy: bool = False) -> Scores:
        """All that the model says of images, in one run. The arguments are those of ``run``."""
        probabilities, *rest = self._engine.run(pixels, self._outputs, busy=busy)
        return Scores(probabilities, *rest or [np.zeros(len(probabilities), np.float32)])


def open_engine(data: bytes, digest: str, options: EngineOptions) -> Engine:
    """Opens the bytes of an ONNX file with a runtime.

    Args:
        data: the file.
        digest: its SHA-256.
        options: runtime, threads and cache.

    Raises:
        ModelFileError: reason RUNTIME_MISSING, when the package of the runtime is not installed.
        Exception: the runtime cannot load it; the types are its own.
    """
    if options.runtime == "openvino":
        from server.models.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(data, options)
    from server.models.engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(data, digest, options)


def discard_cached(data: bytes, digest: str, options: EngineOptions) -> bool:
    """Removes what ``open_engine`` caches for the same arguments. Returns whether it caches anything for them."""
    if options.runtime != "onnxruntime":
        return False
    from server.models.engines.onnxruntime_engine import choose_cache

    cache = choose_cache(data, digest, options)
    if cache is not None:
        cache.discard()
    return cache is not None


def load_model(
    folder: Path, options: EngineOptions = DEFAULT_OPTIONS, *, trusted: Sequence[TrustedKey] | None = None
) -> OnnxModel:
    """Loads, verifies and warms up the model in ``models/<name>/<version>/``.

    Args:
        folder: the model folder.
        options: how to run it.
        trusted: keys of which one must have signed it; None: it need not be signed.

    Raises:
        ModelFileError: any reason of ``server.models.manifest``, ``server.models.signature`` and ``OnnxModel``,
            MODEL_VARIANT_MISSING, MODEL_MISPLACED, MODEL_ANSWERS_WRONG.
    """
    text = read_manifest_bytes(folder)
    manifest = parse_manifest(folder, text)
    if trusted is not None:
        check_signature(folder, text, trusted)
    options = replace(options, precision=choose_precision(folder, manifest, options))
    path = folder / FILES[options.precision]
    call = call_quietly if options.is_aside else call_here
    data = call(lambda: read_verified(folder, path.name, manifest))
    for name in manifest.files:
        if name != path.name:  # it may be served the next time, on another processor
            call(partial(check_file, folder, name, manifest))

    def open_verified(options: EngineOptions) -> OnnxModel:
        model = OnnxModel(data, source=str(path), options=options)
        if (model.spec.name, model.spec.version) != (folder.parent.name, folder.name):
            raise ModelFileError(
                "MODEL_MISPLACED",
                f"{path}: says that it is {model.spec.name} {model.spec.version}; "
                f"its place is {Path(model.spec.name) / model.spec.version} below the models folder",
            )
        call(lambda: check_answers(model, manifest, path))
        if options.explains and EXPLAIN_FILE in manifest.files:
            model.explainer = call(lambda: load_explainer(folder, manifest, model))
        return model

    try:
        return open_verified(options)
    except ModelFileError as error:
        # A cached graph that is not the model's is no fault of the model, and must not keep it from being served.
        if not discard_cached(data, manifest.files[path.name].sha256, options):
            raise
        logger.warning("%s: not served with its optimised graph in the cache (%s): removed", path, error.reason)
        return open_verified(replace(options, cache=None))


def load_explainer(folder: Path, manifest: Manifest, model: OnnxModel) -> Explainer:
    """Loads and verifies the explain file of a model. Raises as ``read_verified`` and ``Explainer``."""
    path = folder / EXPLAIN_FILE
    data = read_verified(folder, EXPLAIN_FILE, manifest)
    explainer = Explainer(data, source=str(path), input_format=model.input_format, options=model.options)
    explainer.check(manifest.golden, manifest.files[EXPLAIN_FILE], str(path))
    return explainer


def check_answers(model: OnnxModel, manifest: Manifest, path: Path) -> None:
    """Asks the golden vectors, which is also the warm-up: a session's first run allocates and is several times slower.

    Raises:
        ModelFileError: reason MODEL_ANSWERS_WRONG.
    """
    try:
        difference = measure_golden_difference(model, manifest.list_golden(path.name))
    except Exception as error:  # the exception types of the runtimes are private and many
        raise ModelFileError(
            "MODEL_ANSWERS_WRONG", f"{path}: loads, but does not run ({first_line(error)}); {HOW_TO_MEND}"
        ) from None
    tolerance = manifest.files[path.name].tolerance
    if not difference <= tolerance:  # so written that NaN fails
        raise ModelFileError(
            "MODEL_ANSWERS_WRONG",
            f"{path}: on this machine its answers differ by {difference:.2g} from those recorded when it was made "
            f"(allowed: {tolerance:.2g}); {HOW_TO_MEND}",
        )


def choose_precision(folder: Path, manifest: Manifest, options: EngineOptions) -> str:
    """Returns ``fp32`` or ``int8``.

    Raises:
        ModelFileError: reason MODEL_VARIANT_MISSING.
    """
    wanted, record = options.precision, manifest.files.get(INT8_FILE)
    suits = record is not None and is_suited(record.target)
    if wanted == "auto":
        # The converter makes and measures variants for ONNX Runtime; OpenVINO runs them, but slower than fp32.
        return "int8" if suits and options.runtime == "onnxruntime" else "fp32"
    if wanted == "int8" and record is None:
        raise ModelFileError(
            "MODEL_VARIANT_MISSING",
            f"{folder}: has no {INT8_FILE}; make one with "
            f"'python -m converter MODEL -o {folder} --int8 --calibrate DIR', or serve with --precision fp32",
        )
    if wanted == "int8" and record is not None and not suits:
        logger.warning("%s was made for %s, which this processor is not", folder / INT8_FILE, record.target)
    return wanted


def measure_golden_difference(model: OnnxModel, golden: Sequence[GoldenVector]) -> float:
    """Largest absolute difference of a probability from the golden vectors, or of an outlier score, as a share of it
    where it is above 1; NaN when an answer is not a number.

    The vectors take turns between the two numbers of threads, so that both have answered before the model is served.
    """
    shape = (model.input_format.height, model.input_format.width, model.input_format.channels)
    differences = []
    for index, vector in enumerate(golden if len(golden) > 1 else [*golden, *golden]):
        scores = model.score(make_golden_input(vector.seed, *shape)[np.newaxis], busy=index % 2 == 1)
        answer = scores.probabilities[0]
        if answer.shape != (len(vector.probabilities),):
            return float("inf")
        differences.append(np.abs(answer - np.array(vector.probabilities)).max())
        differences.append(abs(float(scores.outlier[0]) - vector.outlier_score) / max(1.0, vector.outlier_score))
    return float(np.max(differences))


def describe(ports: Sequence[Port]) -> list[str]:
    """Ports for an error message."""
    return [f"{port.name} {port.dtype} {list(port.shape)}" for port in ports]


def first_line(error: Exception) -> str:
    """The first line of an exception's text that says something, for a one-line message."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from ")]
    return lines[0].strip()[:200] if lines else type(error).__name__
