"""Puts the score into the files of a model, fp32 and INT8, each with a fit of its own and one threshold for both.

What is there is left as it is: nodes are added beside, in float, and the answers are compared before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from converter.errors import AccuracyError, ConversionError, OutputValuesError
from converter.graph.edit import embed_spec
from converter.int8.calibrate import CalibrationSets, load_sets
from converter.outlier.features import CHOSEN, PREFIX, Additions, add_features
from converter.outlier.fit import SHARE, Fit, choose_threshold, fit_features
from converter.pixels.sampling import take_evenly
from server.images.preprocess import InputFormat
from server.machine.processors import count_processors
from server.models.contract import HEAD_CT, INPUT_NAME, ModelSpec
from server.models.manifest import INT8_FILE, MODEL_FILE
from server.models.runtime import OnnxModel

LEAST_AGREEMENT, FEW = 0.99, 2
"""Share of validation slices of which the files must say alike whether they are outliers. So many may differ in
any case: of 40 slices, one is above the threshold in each file, and it need not be the same."""

MOST_DIFFERENCE = 1e-6
"""Of a probability, before and after."""

MOST_SCORE_DIFFERENCE = 1e-3
"""Of a score from what the fit says in double precision, as a share of it where it is above 1."""

MOST_SLICES = (768, 1536)
"""For the threshold, and to fit to."""

COMPARED = 64
"""Slices on which that is looked at."""


def add_scores(
    files: Mapping[str, bytes],
    spec: ModelSpec,
    sets: CalibrationSets,
    tell: Callable[[str], None] = lambda step: None,
    kinds: Sequence[str] = CHOSEN,
) -> tuple[dict[str, bytes], ModelSpec]:
    """Adds the output ``outlier_score`` to the files of a model, and says so in the spec that they have then.

    Args:
        files: ``MODEL_FILE``, and ``INT8_FILE`` where there is one.
        spec: what they are to say of themselves; threshold, figures and provenance of the score are added to it.
        sets: the larger one is what is fitted to, the other one, of other patients, says where the threshold lies.
        tell: called with the name of each step as it starts.
        kinds: of features.

    Raises:
        ConversionError: the graph has no features, or slices are too few.
        AccuracyError: the INT8 file has another opinion than the fp32 one of too many slices.
        OutputValuesError: answers have changed.
    """
    fitted, judged = sets.held_out.pixels, sets.calibration.pixels
    prepared = {name: Prepared(data, kinds) for name, data in files.items()}
    fits, scores, threshold = {}, {}, 0.0
    for name in sorted(files, key=lambda name: name != MODEL_FILE):
        tell(f"fitting the outlier score of {name} on {len(fitted)} slices, its threshold on {len(judged)} others")
        fit = fit_features(prepared[name].measure(fitted), prepared[name].groups)
        own = fit.score(prepared[name].measure(judged))
        # The first file's scores are about 1 in the middle of the slices; the others' have the same threshold as those.
        highest = choose_threshold(own)
        factor = threshold / highest if threshold else 1 / max(float(np.median(own)), highest / 1000)
        fits[name], scores[name] = fit.multiply(factor), own * factor
        threshold = threshold or choose_threshold(scores[name])
    agreement = None
    if INT8_FILE in scores:
        agreement = float(((scores[INT8_FILE] > threshold) == (scores[MODEL_FILE] > threshold)).mean())
        if agreement < min(LEAST_AGREEMENT, 1 - FEW / len(judged)):
            raise AccuracyError(
                f"{INT8_FILE} and {MODEL_FILE} say alike of {agreement:.2%} of the slices whether they are outliers "
                f"(at least {LEAST_AGREEMENT:.0%}): make the INT8 variant anew, on slices like those it will see"
            )
    spec = replace(
        spec,
        outlier_threshold=threshold,
        metrics={
            **spec.metrics,
            "outlier_validation_share": float((scores[MODEL_FILE] > threshold).mean()),
            **({} if agreement is None else {"outlier_int8_agreement": agreement}),
        },
        provenance={
            **spec.provenance,
            "outlier_features": ", ".join(kinds),
            "outlier_slices": (
                f"{len(fitted)} fitted, {len(judged)} for the threshold, which {SHARE:.0%} exceed: {sets.describe()}"
            ),
        },
    )
    finished = {name: embed_spec(prepared[name].finish(fits[name]), spec) for name in files}
    sample = take_evenly(judged, COMPARED)
    for name in files:
        compare(name, files[name], finished[name], fits[name], prepared[name], sample)
    return finished, spec


def fit_score(
    calibrate: Path | None,
    files: Mapping[str, bytes],
    spec: ModelSpec,
    input_format: InputFormat,
    tell: Callable[[str], None],
) -> tuple[dict[str, bytes], ModelSpec]:
    """Files and spec with a score that is fitted to the slices of a folder, or to synthetic ones: see ``add_scores``.

    Raises:
        ConversionError: also where the model is for other images than head CTs, and there is no folder.
    """
    if calibrate is None and spec.checks != HEAD_CT:
        raise ConversionError("the model is for other images than head CTs: its outlier score needs --calibrate DIR")
    tell(f"loading slices of {calibrate}" if calibrate else "drawing synthetic slices to fit the outlier score to")
    return add_scores(files, spec, load_sets(calibrate, input_format, spec, tell, MOST_SLICES), tell)


class Prepared:
    """A graph with features, to be measured and then finished.

    Attributes:
        groups: sizes of the parts that the features consist of, in order.
    """

    def __init__(self, data: bytes, kinds: Sequence[str]) -> None:
        self._model = remove_score(onnx.load_from_string(data))
        self._additions = Additions(self._model)
        self._features, parts = add_features(self._additions, kinds)
        measured = onnx.ModelProto()
        measured.CopyFrom(self._model)
        names = dict.fromkeys((self._features, *parts))
        measured.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            measured.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        shape = [size if isinstance(size, int) else 1 for size in self._session.get_inputs()[0].shape]
        blank = {INPUT_NAME: np.zeros(shape, np.uint8)}
        self.groups = [answer.shape[1] for answer in self._session.run(list(parts), blank)]

    def measure(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features, float32 [N, D], of images uint8 [N, height, width, channels]."""

        def run(image: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.asarray(self._session.run([self._features], {INPUT_NAME: image[np.newaxis]})[0][0])

        with ThreadPoolExecutor(count_processors()) as pool:
            return np.stack(list(pool.map(run, pixels)))

    def finish(self, fit: Fit) -> onnx.ModelProto:
        """The graph with the score as its second output; the session is no longer needed."""
        more = self._additions
        far = more.add(
            "Gemm", "distances", self._features, more.constant("matrix", fit.matrix), more.constant("bias", fit.bias)
        )
        score = more.reduce("ReduceL2", "score", far, [1])
        batch = self._model.graph.output[0].type.tensor_type.shape.dim[0].dim_param or "N"
        self._model.graph.output.append(helper.make_tensor_value_info(score, TensorProto.FLOAT, [batch]))
        return self._model


def remove_score(model: onnx.ModelProto) -> onnx.ModelProto:
    """Takes a score out again, to be fitted anew: everything that has its prefix."""
    graph = model.graph
    for items in (graph.node, graph.initializer, graph.output, graph.value_info):
        for item in [item for item in items if item.name.startswith(PREFIX)]:
            items.remove(item)
    return model


def compare(name: str, before: bytes, after: bytes, fit: Fit, prepared: Prepared, pixels: NDArray[np.uint8]) -> None:
    """Compares two files on some images: their probabilities are to be the same, and the scores those of the fit.

    Raises:
        OutputValuesError: they are not.
    """
    old, new = (OnnxModel(data, source=name) for data in (before, after))
    said = [new.score(image[np.newaxis]) for image in pixels]
    answers = np.concatenate([one.probabilities for one in said])
    change = float(np.abs(answers - np.concatenate([old.run(image[np.newaxis]) for image in pixels])).max())
    if not change <= MOST_DIFFERENCE:  # so written that NaN fails
        raise OutputValuesError(f"{name}: with the outlier score its probabilities differ by {change:.3g}")
    wanted = fit.score(prepared.measure(pixels))
    found = np.concatenate([one.outlier for one in said])
    difference = float((np.abs(found - wanted) / np.maximum(1, wanted)).max())
    if not difference <= MOST_SCORE_DIFFERENCE:
        raise OutputValuesError(f"{name}: its outlier scores differ by {difference:.3g} from those that were fitted")
