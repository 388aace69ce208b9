"""The second runtime: the same files, the same verification."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from proto import stroke_pb2 as pb
from server.errors import ModelFileError
from server.models.engines.engine import EngineOptions
from server.models.manifest import MODEL_FILE
from server.models.runtime import OnnxModel, load_model
from tests.fakes import ROOT, SIDE, build_tiny_model, encode, make_slice, run_server, write_model


@pytest.mark.openvino
def test_it_answers_as_onnx_runtime_does(tmp_path: Path) -> None:
    """Whatever the number of threads; spec and size are read from the file without ONNX Runtime."""
    folder = write_model(tmp_path)
    one = load_model(folder)
    other = load_model(folder, EngineOptions(runtime="openvino", threads=2, busy_threads=1, workers=2))

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

    assert load_model(folder, EngineOptions(precision="auto", runtime="openvino")).options.precision == "fp32"
    assert load_model(folder, EngineOptions(precision="int8", runtime="openvino")).options.precision == "int8"


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
        OnnxModel(data, source=MODEL_FILE, options=EngineOptions(runtime="openvino"))

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
    assert "requirements/extras/openvino.lock" in line
    assert "RUNTIME_MISSING" in line


def test_its_telemetry_client_is_not_loaded(tiny_models: Path) -> None:
    """A hospital box talks to nobody."""
    result = run_code(
        "import sys\nfrom pathlib import Path\n"
        "from server.models.engines.engine import EngineOptions\nfrom server.models.runtime import load_model\n"
        "load_model(Path(sys.argv[1]) / 'tiny' / '1', EngineOptions(runtime='openvino'))\n"
        "print([name for name, module in sys.modules.items() if name.startswith('openvino_telemetry') and module])",
        tiny_models,
    )

    assert result.stdout.strip() == "[]", result.stderr


STACK = """
import ctypes, gc, signal, sys
from pathlib import Path
from server.models.engines.engine import EngineOptions
from server.models.runtime import load_model

class Stack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

def read_stack():
    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.address

def load(threads):
    options = EngineOptions(runtime="openvino", threads=threads, busy_threads=1, workers=2)
    return load_model(Path(sys.argv[1]) / "tiny" / "1", options)

seen = []
signal.signal(signal.SIGTERM, lambda *_: seen.append("drained"))
before = read_stack()
for order in (0, -1):
    models = [load(2), load(1)]
    models.pop(order)
    gc.collect()
    signal.raise_signal(signal.SIGTERM)
    assert read_stack() == before
    models.clear()
    gc.collect()
    load(1)
    signal.raise_signal(signal.SIGTERM)
    assert read_stack() == before
kept = load(2)
print(seen)
"""


def test_dropped_models_leave_no_signal_stack_behind(tiny_models: Path) -> None:
    """Dropped in either order, and loaded again: the main thread's stack is its own, and a signal reaches its handler.

    Its CPU plugin puts an alternate stack on the thread that compiles, and takes the memory of it away.
    """
    for _ in range(2):
        result = run_code(STACK, tiny_models)

        assert result.returncode == 0, result.stderr
        assert result.stdout.strip() == str(["drained"] * 4)


SERVE = """
import gc, os, sys
from pathlib import Path
from server.cli import main
from server.models.engines.engine import EngineOptions
from server.models.runtime import load_model

def load():
    return load_model(Path(sys.argv[1]) / "tiny" / "1", EngineOptions(runtime="openvino"))

models = [load(), load()]
del models[0]
gc.collect()
models.clear()
gc.collect()
os._exit(main(["--models", sys.argv[1], "--port", "0", "--runtime", "openvino"]))  # as server.__main__
"""


def test_server_that_has_dropped_models_drains(tiny_models: Path) -> None:
    """SIGTERM finds its handler, and the exit code is 0."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tiny_models)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline().startswith(b"serving")
        process.terminate()
        try:
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_drains(tiny_models: Path, number: int) -> None:
    """As with the other runtime."""
    with run_server(tiny_models, "--runtime", "openvino") as server, server.stub() as stub:
        assert stub.Predict(pb.PredictRequest(image=encode(make_slice(200))), timeout=20).label == "stroke"
        assert server.stop(number) == 0


@pytest.mark.openvino
def test_model_that_does_not_compile_leaves_the_thread_usable(tmp_path: Path) -> None:
    """The error is the caller's; the next model loads."""
    for attempt in ("first", "second"):
        with pytest.raises(ModelFileError):
            OnnxModel(build_tiny_model()[:-40], source=MODEL_FILE, options=EngineOptions(runtime="openvino"))
        assert load_model(write_model(tmp_path / attempt), EngineOptions(runtime="openvino")).runtime == "openvino"


@pytest.mark.openvino
def test_requests_are_reused(tmp_path: Path) -> None:
    """As many as run at the same time, however many threads ask."""
    model = load_model(write_model(tmp_path), EngineOptions(runtime="openvino", workers=2))
    pixels = np.full((1, SIDE, SIDE, 3), 150, np.uint8)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: model.run(pixels), range(100)))

    assert all(np.array_equal(answers[0], answer) for answer in answers)
    (requests,) = model._engine._requests  # type: ignore[attr-defined]
    assert 1 <= len(requests._idle) <= 4
