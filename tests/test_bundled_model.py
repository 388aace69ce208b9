"""The model that the project ships."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from converter.int8.gate import Comparison
from server.images.preprocess import InputFormat, load_pixels
from server.machine.processors import is_suited
from server.models.engines.engine import EngineOptions
from server.models.manifest import INT8_FILE, MANIFEST_FILE, MODEL_FILE, read_manifest
from server.models.runtime import load_model
from tests.fakes import BUNDLED, ROOT, encode, make_slice, run_module, run_server

TOLERANCE = 1e-5


def test_it_loads_verified() -> None:
    """Digest and golden vectors hold on this machine."""
    model = load_model(BUNDLED)

    assert model.spec.labels == ("normal", "stroke")
    assert model.spec.positive_labels == ("stroke",)
    assert (model.input_format.height, model.input_format.width, model.input_format.channels) == (256, 256, 1)


def test_it_is_calibrated_and_decides_where_validation_said() -> None:
    """A temperature is in the graph, and the threshold was chosen for a sensitivity of 0.9, not taken for granted."""
    spec = load_model(BUNDLED).spec

    assert spec.temperature != 1
    assert spec.provenance["operating_point"].startswith("sensitivity=0.9,")
    assert 0.05 < spec.threshold < 0.5


def test_its_card_says_what_it_was_not_validated_for() -> None:
    """The card travels in the file, and says what the data were and what nobody has tested."""
    card = load_model(BUNDLED).spec.model_card

    assert "haemorrhage-like findings; ischaemia not validated" in card
    assert "python -m training phantom --count 32000 --seed 7" in card
    assert "not known" in card


def test_it_is_small_and_is_the_papers_network() -> None:
    """Each file under 1 MB (2^20 bytes), with the weights of 183,682 parameters less two of three grey channels."""
    graph = onnx.load(BUNDLED / MODEL_FILE).graph

    assert all(path.stat().st_size < 2**20 for path in BUNDLED.iterdir())
    weights = [
        t
        for t in graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 0 and not t.name.startswith("outlier_")
    ]
    assert sum(int(onnx.numpy_helper.to_array(t).size) for t in weights) == 183_682 - 2 * 3 * 3 * 32


def test_its_int8_variant_passed_the_gate() -> None:
    """On slices that it was not trained on: the figures are in the manifest, and within the gate's bounds."""
    gate = read_manifest(BUNDLED).files[INT8_FILE].gate

    assert gate["slices"] == "validation; held-out slices are other patients'"
    for name, least in (("calibration", 700), ("held_out", 1_500)):
        figures = Comparison(**gate[name])
        assert figures.slices >= least
        assert figures.auc_drop is not None
        assert figures.list_failures() == []
    assert "with another label than fp32" in gate["where_threshold_was_chosen"]


def test_its_int8_variant_answers_here_as_where_it_was_made() -> None:
    """Its own golden vectors hold."""
    if not is_suited(read_manifest(BUNDLED).files[INT8_FILE].target):
        pytest.skip("made for processors with VNNI")
    assert load_model(BUNDLED, EngineOptions(precision="int8")).digest != load_model(BUNDLED).digest


def test_it_says_what_it_learned_from_and_what_it_is_not() -> None:
    """Whoever asks GetModel reads that it is a demonstration on synthetic slices."""
    spec = load_model(BUNDLED).spec
    text = f"{spec.intended_use} {json.dumps(dict(spec.provenance))}".lower()

    assert "synthetic" in text
    assert "demonstration" in text
    assert "not a medical device" in text
    assert spec.provenance["data_fingerprint"]
    assert spec.metrics


def test_its_weights_are_those_of_a_revision_that_is_named() -> None:
    """The script of that revision trains with the recorded flags: whoever checks it out makes the weights again."""
    provenance = load_model(BUNDLED).spec.provenance
    revision = provenance["git_revision"]
    shown = subprocess.run(
        ["git", "show", f"{revision}:models/make_default.sh"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    if shown.returncode != 0:
        pytest.skip(f"the history up to {revision} is not here")

    script = shown.stdout.replace('"$epochs"', "16").replace("1e-3", "0.001")
    flags = provenance["flags"]
    for name in ("epochs", "learning-rate", "augment", "validation", "test", "seed", "precision"):
        value = flags.split(f"--{name} ")[1].split()[0]
        assert f"--{name} {value}" in script
    assert "count=${COUNT:-32000}" in script
    assert "epochs=${EPOCHS:-16}" in script


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """What ``make model`` makes of a few slices, from the slices to the rule for studies, as a user runs it."""
    root = tmp_path_factory.mktemp("made")
    out = root / "models" / "stroke-cnn" / "4"
    environment = {
        **os.environ,
        "COUNT": "80",
        "EPOCHS": "1",
        "INT8": "",
        "OUTLIER": "",
        "STUDIES": "4",
        "WORK": str(root / "work"),
    }
    command = ["sh", "models/make_default.sh", sys.executable, str(out)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return SimpleNamespace(out=out, run=root / "work" / "run", printed=result.stdout)


@pytest.mark.tensorflow
def test_the_command_that_makes_it_works(made: SimpleNamespace) -> None:
    """What it makes loads, and its answers were compared with Keras."""
    assert "files answer as training wrote down" in made.printed
    model, bundled = load_model(made.out).spec, load_model(BUNDLED).spec
    assert (model.labels, model.positive_labels) == (bundled.labels, ("stroke",))
    assert "ischaemia not validated" in model.model_card
    assert "auxiliary heads" in model.provenance["lesion_masks"]
    assert model.study_top_k > 0
    assert model.provenance["threshold_data_fingerprint"] != model.provenance["data_fingerprint"]


@pytest.mark.tensorflow
def test_keras_onnx_and_served_answer_agree(made: SimpleNamespace, tmp_path: Path) -> None:
    """What Keras learned is what the client reads: the same bytes get the same probability, to 1e-5."""
    import keras

    (tmp_path / "noise.jpg").write_bytes(encode(make_slice(90, side=300), "JPEG"))  # not analysed, and has scores
    files = [*sorted((ROOT / "samples").glob("*.png")), tmp_path / "noise.jpg"]

    with run_server(made.out.parent.parent) as server:
        served = run_module("client", *map(str, files), "--json", "--server", server.address)

    for name in ("brain_stroke_model.keras", "brain_stroke_model.h5"):
        trained = keras.models.load_model(made.run / name, compile=False)
        assert trained.count_params() == 183_682
        for line, file in zip(served.stdout.splitlines(), files, strict=True):
            pixels = load_pixels(file.read_bytes(), InputFormat(256, 256)).array
            expected = np.asarray(trained(pixels[np.newaxis].astype(np.float32), training=False))[0]
            scores = json.loads(line)["scores"]
            # The command line rounds to six decimals, which is finer than the tolerance.
            assert abs(scores["stroke"] - expected[1]) <= TOLERANCE
            assert abs(scores["normal"] - expected[0]) <= TOLERANCE


def test_parity_with_keras_is_recorded() -> None:
    """The figures of the conversion travel with it."""
    parity = json.loads((BUNDLED / MANIFEST_FILE).read_text())["parity"]

    assert 0 <= parity["image_difference"] <= 1e-5
    assert 0 <= parity["random_difference"] <= 1e-5
