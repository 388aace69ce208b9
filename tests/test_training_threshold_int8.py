"""``python -m training threshold`` of a model with an INT8 variant: whether that decides as fp32 there, too."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.cli import main as convert
from server.errors import ModelFileError
from server.images.preprocess import load_pixels
from server.machine.processors import find_target
from server.models import runtime
from server.models.agreement import LEAST_AGREEMENT
from server.models.contract import ModelSpec
from server.models.engines.engine import EngineOptions
from server.models.manifest import INT8_FILE, Manifest, read_manifest
from server.models.runtime import load_model
from tests.fakes import BUNDLED, build_tiny_model, encode, run_module, write_model
from tests.test_training_threshold import SPEC, make_head, write_table
from training.cli import main
from training.own.slices import Slices
from training.own.variant import check_variant

SLICES = 24
NEAR, FAR = 0.038, 0.5
"""Thresholds: between answers of fp32 and INT8 to many slices, and above all of both."""

KINDS = replace(SPEC, labels=("normal", "haemorrhagic", "ischaemic"), positive_labels=("haemorrhagic", "ischaemic"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices whose probabilities by the tiny model lie close to each other, half of them with a stroke."""
    root = tmp_path_factory.mktemp("data") / "slices"
    root.mkdir()
    rows = []
    for index in range(SLICES):
        (root / f"{index}.png").write_bytes(encode(make_head(70 + 2 * index, seed=index)))
        rows.append([f"{index}.png", "stroke" if index >= SLICES // 2 else "normal", f"P{index}"])
    write_table(root, rows)
    return root


def write_pair(root: Path, *, gain: float, target: str = "", spec: ModelSpec = SPEC) -> Path:
    """A model folder with an INT8 variant, which answers the more otherwise the further its gain is from 0.05."""
    return write_model(root, spec, int8=build_tiny_model(spec, gain=gain), target=target or find_target())


def ask_both(folder: Path, data: Path) -> np.ndarray:
    """Probabilities of a stroke, [2, slices], of fp32 and INT8."""
    models = [load_model(folder, EngineOptions(precision=precision)) for precision in ("fp32", "int8")]
    files = [data / f"{index}.png" for index in range(SLICES)]
    images = [load_pixels(file.read_bytes(), models[0].input_format).array[np.newaxis] for file in files]
    return np.array([[model.run(image)[0, 1] for image in images] for model in models], np.float64)


def choose(capsys: pytest.CaptureFixture[str], folder: Path, data: Path, number: float, *flags: str) -> str:
    """What the command says."""
    capsys.readouterr()
    assert main(["threshold", str(folder), "--data", str(data), "--number", str(number), *flags]) == 0
    return capsys.readouterr().out


def test_variant_that_decides_otherwise_is_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new version has fp32 alone, which a server takes of itself; what that means and what to do is said."""
    folder = write_pair(tmp_path, gain=0.06)
    page = choose(capsys, folder, data, NEAR)
    new = folder.with_name("2")
    assert sorted(path.name for path in new.iterdir()) == ["manifest.json", "model.onnx"]
    assert (folder / INT8_FILE).exists()
    model = load_model(new, EngineOptions(precision="auto"))
    assert (model.options.precision, model.spec.threshold) == ("fp32", NEAR)
    found = model.spec.provenance["threshold_int8"]
    assert found.endswith(": left out")
    assert f"- INT8: {found}" in page
    assert f"of {SLICES} slices with another label than fp32" in found
    assert "(at least 99.5%, or all but 1), |Δp| mean 0.0" in found
    assert "**The new version has no INT8 variant: at a threshold of 0.038 INT8 would give too many slices" in page
    assert (
        "choose another threshold, or convert anew from the run folder with --int8 --threshold 0.038 --calibrate"
        in page
    )
    with pytest.raises(ModelFileError, match=r"has no model\.int8\.onnx"):
        load_model(new, EngineOptions(precision="int8"))


def test_figures_are_those_of_both_files(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counted again, one slice after the other."""
    folder = write_pair(tmp_path, gain=0.06)
    document = json.loads(choose(capsys, folder, data, NEAR, "--json", "--dry-run"))["int8"]
    scores = ask_both(folder, data)
    same = (scores > NEAR)[0] == (scores > NEAR)[1]
    assert 1 < (~same).sum() < SLICES
    assert document["same_label"] == pytest.approx(same.mean())
    assert document["mean_difference"] == pytest.approx(np.abs(scores[0] - scores[1]).mean())
    assert document["largest_difference"] == pytest.approx(np.abs(scores[0] - scores[1]).max())
    assert (document["slices"], document["least_same_label"]) == (SLICES, LEAST_AGREEMENT)
    assert document["left_out"] is True
    assert document["found"].startswith(f"{(~same).sum()} of {SLICES} slices")


def test_variant_that_decides_alike_comes_along(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As different as before, but at this threshold no label changes."""
    spec = replace(SPEC, threshold=NEAR)
    folder = write_pair(tmp_path, gain=0.06, spec=spec)
    page = choose(capsys, folder, data, FAR)
    new = load_model(folder.with_name("2"), EngineOptions(precision="auto"))
    assert (new.options.precision, new.spec.threshold) == ("int8", FAR)
    assert new.spec.provenance["threshold_int8"].startswith(f"0 of {SLICES} slices with another label than fp32, 100")
    assert new.spec.provenance["threshold_judged_with"] == "fp32"
    assert "has no INT8 variant" not in page


def test_one_slice_of_few_may_differ(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As at the gate: one of 24 would be more than its share."""
    folder = write_pair(tmp_path, gain=0.05001)
    scores = ask_both(folder, data)
    document = json.loads(choose(capsys, folder, data, scores[:, 12].mean(), "--json", "--dry-run"))["int8"]
    assert document["same_label"] == pytest.approx(1 - 1 / SLICES)
    assert document["left_out"] is False


def test_variant_is_asked_where_the_threshold_stays(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gate judged it there, on other slices; what an earlier choice found is not what these say."""
    spec = replace(SPEC, threshold=NEAR, provenance={"threshold_int8": "as found before"})
    folder = write_pair(tmp_path, gain=0.06, spec=spec)
    document = json.loads(choose(capsys, folder, data, NEAR, "--json"))
    assert document["int8"]["left_out"] is True
    new = load_model(folder.with_name("2"), EngineOptions(precision="auto"))
    assert new.options.precision == "fp32"
    assert new.spec.provenance["threshold_int8"] == document["int8"]["found"]


def test_variant_for_another_processor_is_not_judged(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would answer otherwise here than there; it comes along, and that nothing is known of it is said."""
    monkeypatch.setattr(runtime, "is_suited", lambda target: False)
    folder = write_pair(tmp_path, gain=0.06, target="x86-vnni")
    page = choose(capsys, folder, data, NEAR)
    assert (folder.with_name("2") / INT8_FILE).exists()
    found = load_model(folder.with_name("2")).spec.provenance["threshold_int8"]
    assert found.startswith("not judged: the INT8 variant is for x86-vnni, which this processor is not")
    assert f"- INT8: {found}" in page


def test_model_without_a_variant_is_asked_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run for each slice, besides the golden vectors; what is recorded of a variant of before does not stay."""
    folder = write_model(tmp_path, replace(SPEC, provenance={"threshold_int8": "as found before"}))
    runs: list[int] = []
    score = runtime.OnnxModel.score

    def count(self: runtime.OnnxModel, *arguments: Any, **options: Any) -> runtime.Scores:
        runs.append(1)
        return score(self, *arguments, **options)

    monkeypatch.setattr(runtime.OnnxModel, "score", count)
    choose(capsys, folder, data, NEAR, "--dry-run")
    assert len(runs) - SLICES <= 2
    choose(capsys, folder, data, NEAR)
    assert load_model(folder.with_name("2")).spec.provenance["threshold_int8"] == "there is no INT8 variant"


def test_another_kind_is_another_label(data: Path) -> None:
    """Of more than two classes, as at the gate: also where both files call a slice positive."""
    answers = np.array([[[0.1, 0.6, 0.3], [0.1, 0.3, 0.6]], [[0.9, 0.1, 0.0], [0.9, 0.1, 0.0]]] * 2, np.float32)
    rest = np.arange(4)
    slices = Slices("x", "", answers, rest.astype(float), rest > 1, rest, None, rest > 1, 0)
    manifest = Manifest({INT8_FILE: read_manifest(BUNDLED).files[INT8_FILE]}, (), {})
    agreement = check_variant(manifest, KINDS, slices).agreement
    assert agreement is not None
    assert (agreement.same_label, agreement.is_enough) == (0.5, False)
    assert agreement.largest_difference == pytest.approx(0.3)


def test_report_tells_the_old_figures_from_the_new(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gate's are of the threshold of before; the files of the new version are sound."""
    if not runtime.is_suited(read_manifest(BUNDLED).files[INT8_FILE].target):
        pytest.skip("the bundled INT8 variant is for another processor")
    shutil.copytree(BUNDLED, tmp_path / "stroke-cnn" / "4")
    choose(capsys, tmp_path / "stroke-cnn" / "4", data, 0.999999)
    assert convert(["report", str(tmp_path / "stroke-cnn" / "5")]) == 0
    report = capsys.readouterr().out
    (line,) = [line for line in report.splitlines() if line.startswith("  threshold ") and "label" in line]
    assert "with another label than fp32" in line
    assert line.endswith("; below, at the conversion's threshold")
    assert report.index(line) < report.index("  held out ")
    done = run_module("converter", "verify", str(tmp_path / "stroke-cnn" / "5"))
    assert done.returncode == 0, done.stderr
