"""The second runtime: the same files, the same verification."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest

from proto import stroke_pb2 as pb
from server.errors import ModelFileError
from server.manifest import MODEL_FILE
from server.runtime import OnnxModel, load_model
from tests.fakes import ROOT, SIDE, build_tiny_model, encode, make_slice, run_server, write_model


@pytest.mark.openvino
def test_it_answers_as_onnx_runtime_does(tmp_path: Path) -> None:
    """Whatever the number of threads; spec and size are read from the file without ONNX Runtime."""
    folder = write_model(tmp_path)
    one = load_model(folder)
    other = load_model(folder, runtime="openvino", threads=2, busy_threads=1, workers=2)

    assert (other.spec, other.digest, other.input_format) == (one.spec, one.digest, one.input_format)
    assert other.runtime == "openvino"
    for level in (0, 100, 150, 255):
        pixels = np.full((1, SIDE, SIDE, 3), level, np.uint8)
        for busy in (False, True):
            assert np.allclose(one.run(pixels), other.run(pixels, busy=busy), atol=1e-6)


def test_server_serves_with_it(tiny_models: Path) -> None:
    """GetModel says so."""
    with run_server(tiny_models, "--runtime", "openvino") as server, server.stub() as stub:
        model = stub.GetModel(pb.GetModelRequest(), timeout=60)
        calls = [stub.Predict.future(pb.PredictRequest(image=encode(make_slice(200))), timeout=60) for _ in range(20)]

        assert (model.runtime, model.precision) == ("openvino", "fp32")
        assert {call.result().label for call in calls} == {"stroke"}
        assert all(call.code() is grpc.StatusCode.OK for call in calls)


@pytest.mark.openvino
def test_auto_is_fp32(tmp_path: Path) -> None:
    """Variants are made for ONNX Runtime; who asks for one gets it."""
    folder = write_model(tmp_path, int8=build_tiny_model(gain=0.06))

    assert load_model(folder, precision="auto", runtime="openvino").precision == "fp32"
    assert load_model(folder, precision="int8", runtime="openvino").precision == "int8"


@pytest.mark.openvino
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html>404</html>", "MODEL_FILE_INVALID"),
        (build_tiny_model(with_spec=False), "MODEL_SPEC_MISSING"),
        (build_tiny_model(input_name="input_1"), "MODEL_GRAPH_UNSUITABLE"),
    ],
)
def test_unusable_file_is_refused_for_the_same_reason(data: bytes, reason: str) -> None:
    """Integrators read the reason, whatever runs the model."""
    with pytest.raises(ModelFileError) as refusal:
        OnnxModel(data, source=MODEL_FILE, runtime="openvino")

    assert refusal.value.reason == reason


def run_code(code: str, models: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python code with the models folder as its argument."""
    return subprocess.run(
        [sys.executable, "-c", code, str(models)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_missing_package_says_what_to_install(tiny_models: Path) -> None:
    """One line, and exit code 1."""
    result = run_code(
        "import sys; sys.modules['openvino'] = None\n"
        "from server.cli import main\n"
        "sys.exit(main(['--models', sys.argv[1], '--port', '0', '--runtime', 'openvino', '--log-level', 'error']))",
        tiny_models,
    )

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "requirements/openvino.lock" in line
    assert "RUNTIME_MISSING" in line


def test_its_telemetry_client_is_not_loaded(tiny_models: Path) -> None:
    """A hospital box talks to nobody."""
    result = run_code(
        "import sys\nfrom pathlib import Path\nfrom server.runtime import load_model\n"
        "load_model(Path(sys.argv[1]) / 'tiny' / '1', runtime='openvino')\n"
        "print([name for name, module in sys.modules.items() if name.startswith('openvino_telemetry') and module])",
        tiny_models,
    )

    assert result.stdout.strip() == "[]", result.stderr
