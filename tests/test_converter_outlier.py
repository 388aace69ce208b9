"""The outlier score: features in a graph, what is fitted to them, and models that get one without their Keras file."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from converter.cli import main
from converter.errors import AccuracyError, ConversionError, SourceError, TargetError
from converter.graph.edit import embed_spec
from converter.int8.calibrate import CalibrationSets, Slices
from converter.outlier import surgery
from converter.outlier.extend import ExtendOptions, extend
from converter.outlier.features import FEATURES, GRID, MAP, PENULTIMATE
from converter.outlier.fit import choose_threshold, fit_features
from converter.outlier.surgery import Prepared, add_scores
from server.errors import ModelFileError
from server.images.dicom.window import BRAIN
from server.models.contract import METADATA_KEY, ModelSpec
from server.models.engines.engine import EngineOptions
from server.models.manifest import INT8_FILE, MODEL_FILE, read_manifest
from server.models.runtime import OnnxModel, load_model
from tests.fakes import encode, write_model

SIDE = 40
SPEC = ModelSpec("small", "1", ("normal", "stroke"), ("stroke",), 0.3, colour="grey", model_card="# Small")


def build_network(opset: int = 17, bits: int = 0, channels: int = 1) -> onnx.ModelProto:
    """Two convolutions, average and one dense layer, with weights drawn once.

    Args:
        opset: version of the operator set.
        bits: of the values between the convolutions, which are then quantised as in an INT8 variant; 0: float.
        channels: of the image.
    """
    rng = np.random.default_rng(5)
    constants = {
        "first": rng.normal(0, 0.1 / channels, (6, channels, 3, 3)),
        "second": rng.normal(0, 0.1, (4, 6, 3, 3)),
        "dense": rng.normal(0, 0.02, (4, 2)),
    }
    values = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["turned"], perm=(0, 3, 1, 2)),
        helper.make_node("Conv", ["turned", "first"], ["sums"], kernel_shape=(3, 3), strides=(2, 2)),
        helper.make_node("Relu", ["sums"], ["middle"]),
    ]
    taken = "middle"
    if bits:
        values += [
            numpy_helper.from_array(np.array(600 / 2**bits, np.float32), "step"),
            numpy_helper.from_array(np.array(0, np.uint8), "zero"),
        ]
        nodes += [
            helper.make_node("QuantizeLinear", ["middle", "step", "zero"], ["integers"]),
            helper.make_node("DequantizeLinear", ["integers", "step", "zero"], ["again"]),
        ]
        taken = "again"
    nodes += [
        helper.make_node("Conv", [taken, "second"], ["deep"], kernel_shape=(3, 3), strides=(4, 4)),
        helper.make_node("GlobalAveragePool", ["deep"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, channels])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        values,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def make_files(spec: ModelSpec = SPEC, bits: int = 8) -> dict[str, bytes]:
    return {MODEL_FILE: embed_spec(build_network(), spec), INT8_FILE: embed_spec(build_network(bits=bits), spec)}


def make_slices(count: int, seed: int) -> NDArray[np.uint8]:
    """A bright disc on black ground, of every size and level: uint8 [count, SIDE, SIDE, 1]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2 + 0.5
    found = []
    for _ in range(count):
        inside = np.hypot(rows - rng.normal(0, 1), columns - rng.normal(0, 1)) < rng.uniform(12, 16)
        found.append(np.where(inside, rng.normal(rng.uniform(90, 140), 12, (SIDE, SIDE)), 0))
    return np.clip(np.stack(found), 0, 255).astype(np.uint8)[..., np.newaxis]


SETS = CalibrationSets(Slices(make_slices(200, 1), None), Slices(make_slices(600, 2), None), "made for the test")


@cache
def make_scored() -> tuple[dict[str, bytes], ModelSpec]:
    return add_scores(make_files(), SPEC, SETS)


@pytest.mark.parametrize("file", [MODEL_FILE, INT8_FILE])
def test_score_tells_what_the_model_knows_from_what_it_does_not(file: str) -> None:
    """About one of 100 other slices is above the threshold, in both files, and everything else is."""
    files, spec = make_scored()
    model = OnnxModel(files[file], source=file)
    known = model.score(make_slices(400, 3)).outlier
    rng = np.random.default_rng(4)
    others = np.stack([rng.integers(0, 256, (SIDE, SIDE, 1)).astype(np.uint8), 255 - make_slices(1, 5)[0]])

    assert known.dtype == np.float32
    assert known.shape == (400,)
    assert (known > spec.outlier_threshold).mean() <= 0.03
    assert (model.score(others).outlier > 2 * spec.outlier_threshold).all()
    assert np.median(known) == pytest.approx(1, abs=0.15)


def test_one_batch_or_one_by_one_is_the_same() -> None:
    """Slices of a batch say nothing of each other."""
    files, _ = make_scored()
    model, slices = OnnxModel(files[MODEL_FILE], source="model"), make_slices(5, 6)

    single = np.concatenate([model.score(one[np.newaxis]).outlier for one in slices])

    assert model.score(slices).outlier == pytest.approx(single, rel=1e-5)


@pytest.mark.parametrize("file", [MODEL_FILE, INT8_FILE])
def test_answers_are_the_same_to_the_bit(file: str) -> None:
    """Nodes are added, and none that was there is changed."""
    files, _ = make_scored()
    before = make_files()
    slices = make_slices(20, 7)

    assert np.array_equal(
        OnnxModel(files[file], source="after").run(slices), OnnxModel(before[file], source="before").run(slices)
    )
    old, new = (onnx.load_from_string(data).graph for data in (before[file], files[file]))
    assert list(new.node[: len(old.node)]) == list(old.node)
    assert list(new.initializer[: len(old.initializer)]) == list(old.initializer)
    assert all(node.name.startswith("outlier_") for node in new.node[len(old.node) :])


def test_threshold_is_chosen_on_other_slices_and_said() -> None:
    """Figures and where they come from are in the spec of both files."""
    files, spec = make_scored()

    for data in files.values():
        assert OnnxModel(data, source="model").spec == spec
    assert spec.metrics["outlier_validation_share"] == 0.01
    assert spec.metrics["outlier_int8_agreement"] >= 0.99
    assert spec.provenance["outlier_features"] == "grid, map"
    assert "600 fitted, 200 for the threshold, which 1% exceed: made for the test" in spec.provenance["outlier_slices"]


def test_int8_file_with_another_opinion_is_refused() -> None:
    """Eight levels for all values are no variant of the model any more; with two there is nothing to be fitted."""
    with pytest.raises(AccuracyError, match=r"alike of \d+\.\d+% of the slices"):
        add_scores(make_files(bits=3), SPEC, SETS, kinds=[PENULTIMATE])
    with pytest.raises(ConversionError, match="the same on all slices"):
        add_scores(make_files(bits=1), SPEC, SETS, kinds=[PENULTIMATE])


def test_changed_answers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would change them."""
    finish = Prepared.finish

    def break_it(self: Prepared, fit: object) -> onnx.ModelProto:
        model = finish(self, fit)  # type: ignore[arg-type]
        (dense,) = [item for item in model.graph.initializer if item.name == "dense"]
        dense.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(dense) * np.float32(1.01), "dense"))
        return model

    monkeypatch.setattr(Prepared, "finish", break_it)
    with pytest.raises(ConversionError, match="its probabilities differ by"):
        add_scores({MODEL_FILE: make_files()[MODEL_FILE]}, SPEC, SETS)


def test_score_is_fitted_anew_in_place_of_the_old_one() -> None:
    """And not beside it."""
    files, spec = make_scored()
    again, _ = add_scores(files, spec, SETS)

    assert again.keys() == files.keys()
    assert len(again[MODEL_FILE]) == pytest.approx(len(files[MODEL_FILE]), abs=100)


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", FEATURES)
def test_features_are_found_in_any_graph(kind: str, channels: int, opset: int) -> None:
    """8 x 8 levels, the channels of the map in the middle, and what the dense layer takes."""
    data = build_network(opset, channels=channels).SerializeToString()
    pixels = np.repeat(make_slices(3, 8), channels, axis=3)

    prepared = Prepared(data, [kind])
    features = prepared.measure(pixels)

    assert prepared.groups == [{GRID: 64, MAP: 6, PENULTIMATE: 4}[kind]]
    assert features.shape == (3, *prepared.groups)
    if kind == GRID:
        wanted = pixels[..., channels // 2].reshape(3, 8, 5, 8, 5).mean(axis=(2, 4)).reshape(3, 64)
        assert features == pytest.approx(wanted, rel=1e-5)


def test_features_follow_the_order_of_kinds() -> None:
    """They are one tensor."""
    prepared = Prepared(build_network().SerializeToString(), [GRID, MAP, PENULTIMATE])

    assert prepared.groups == [64, 6, 4]
    assert prepared.measure(make_slices(2, 9)).shape == (2, 74)


def test_too_old_an_operator_set_is_refused() -> None:
    """With what to do."""
    with pytest.raises(SourceError, match="--opset 13"):
        Prepared(build_network(11).SerializeToString(), [GRID])


def test_fit_is_mahalanobis_within_and_beside_the_components() -> None:
    """Far in a direction in which slices do not differ is further than as far in one in which they do."""
    rng = np.random.default_rng(10)
    features = (rng.normal(0, 1, (500, 3)) @ rng.normal(0, 5, (3, 12)) + rng.normal(0, 0.1, (500, 12))).astype(
        np.float32
    )
    fit = fit_features(features, [12])
    along = features.mean(axis=0) + 2 * (features[0] - features.mean(axis=0))
    beside = features.mean(axis=0) + rng.normal(0, np.abs(along - features.mean(axis=0)).mean(), 12).astype(np.float32)

    scores = fit.score(features)
    assert choose_threshold(scores) == pytest.approx(np.quantile(scores, 0.99))
    assert fit.score(beside[np.newaxis])[0] > 5 * fit.score(along[np.newaxis])[0]
    assert fit.multiply(3).score(features) == pytest.approx(3 * scores)


def test_feature_that_never_changes_makes_no_outlier_by_a_hair() -> None:
    """A corner that is black on all slices may be a grey level brighter on the next one."""
    features = np.random.default_rng(11).normal(100, 30, (500, 12)).astype(np.float32)
    features[:, 0] = 0
    fit = fit_features(features, [12])
    other = features[:1].copy()
    other[0, 0] = 0.3

    assert fit.score(other)[0] < 1.5 * fit.score(features).max()


@pytest.mark.parametrize("features", [np.full((100, 8), np.nan, np.float32), np.zeros((3, 8), np.float32)])
def test_what_cannot_be_fitted_is_refused(features: NDArray[np.float32]) -> None:
    """No numbers, and too few slices."""
    with pytest.raises(ConversionError):
        fit_features(features, [8])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model from before there were scores."""
    files = make_files(replace(SPEC, checks="none"))
    return write_model(tmp_path / "models", SPEC, files[MODEL_FILE], int8=files[INT8_FILE])


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    """Slices that the model knows."""
    out = tmp_path / "slices"
    out.mkdir()
    for index, pixels in enumerate(make_slices(240, 12)):
        (out / f"{index:03}.png").write_bytes(encode(pixels[:, :, 0]))
    return out


def test_extended_model_is_served_with_the_same_answers(folder: Path, slices: Path) -> None:
    """New version, new digests and golden vectors; both files load as a server loads them."""
    out = folder.parent / "2"
    options = ExtendOptions(
        folder, out, window=("40,80",), calibrate=slices, study_top_k=3, study_threshold=0.4, indeterminate_margin=0.01
    )

    extended = extend(options)

    for precision in ("fp32", "int8"):
        old, new = (load_model(path, EngineOptions(precision=precision)) for path in (folder, out))
        spec = new.spec
        assert np.array_equal(old.run(make_slices(9, 13)), new.run(make_slices(9, 13)))
        assert (spec.name, spec.version, spec.labels, spec.threshold) == ("small", "2", SPEC.labels, SPEC.threshold)
        assert (spec.windows, spec.study_top_k, spec.study_threshold) == ((BRAIN,), 3, 0.4)
        assert spec.indeterminate_margin == 0.01
        assert spec.outlier_threshold > 0
    assert f"small 1, SHA-256 {load_model(folder).digest}" in spec.provenance["extended_from"]
    assert spec.model_card.startswith(
        "> small 2 is small 1 with the same weights, and more: window: level 40, width 80;"
    )
    assert spec.model_card.endswith("\n\n# Small")
    before, after = read_manifest(folder), read_manifest(out)
    assert [vector.seed for vector in after.golden] == [vector.seed for vector in before.golden]
    assert all(vector.outlier_score > 0 for name in after.files for vector in after.list_golden(name))
    assert len(extended.changes) == 5


def test_extended_again_keeps_what_is_not_said(folder: Path, slices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rule of studies is set without a new fit; what was set before stays."""
    two, three = folder.parent / "2", folder.parent / "3"
    assert main(["extend", str(folder), "-o", str(two), "--window", "40,80", "--calibrate", str(slices)]) == 0
    assert main(["extend", str(two), "-o", str(three), "--study-top-k", "2", "--study-threshold", "0.25"]) == 0

    spec, before = load_model(three).spec, load_model(two).spec
    assert (spec.study_top_k, spec.study_threshold) == (2, 0.25)
    assert (spec.windows, spec.outlier_threshold) == (before.windows, before.outlier_threshold)
    assert "studies: mean of the 2 highest, threshold 0.25" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--window", "40"], "--window"),
        (["--window", "40,80", "--window", "1,2"], "--window must be one or three"),
        (["--study-top-k", "3"], "--study-threshold"),
        (["--indeterminate-margin", "2"], "margin"),
    ],
)
def test_usage_errors_name_the_flag(
    flags: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is read."""
    with pytest.raises(SystemExit) as refusal:
        main(["extend", str(folder), "-o", str(folder.parent / "2"), *flags])

    assert refusal.value.code == 2
    assert message in capsys.readouterr().err


def test_models_that_cannot_be_extended_stay(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says why, and nothing is written."""
    with pytest.raises(TargetError, match="exists already"):
        extend(ExtendOptions(folder, folder))
    with pytest.raises(TargetError, match="NAME/VERSION"):
        extend(ExtendOptions(folder, folder.parent / "a version"))
    assert main(["extend", str(folder), "-o", str(folder.parent / "2")]) == 1
    assert "--calibrate DIR" in capsys.readouterr().err  # its spec is not one for head CTs
    (folder / INT8_FILE).write_bytes(b"damaged")
    with pytest.raises(ModelFileError):
        extend(ExtendOptions(folder, folder.parent / "2"))
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_synthetic_slices_are_for_models_of_head_cts(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn where no folder is given."""
    asked: list[object] = []
    monkeypatch.setattr(surgery, "load_sets", lambda *arguments: asked.append(arguments) or SETS)
    model = OnnxModel(make_files()[MODEL_FILE], source="model")

    files, _ = surgery.fit_score(None, make_files(), SPEC, model.input_format, lambda step: None)

    assert len(asked) == 1
    assert json.loads(onnx.load_from_string(files[INT8_FILE]).metadata_props[0].value)["outlier_threshold"] > 0
    assert onnx.load_from_string(files[INT8_FILE]).metadata_props[0].key == METADATA_KEY
