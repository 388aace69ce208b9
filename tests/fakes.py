"""Small real things for tests: a tiny ONNX model that follows the contract, images, and server processes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from proto import stroke_pb2_grpc
from server.models.contract import INPUT_NAME, METADATA_KEY, OUTLIER_NAME, OUTPUT_NAME, ModelSpec
from server.models.golden import GoldenVector, make_golden_input
from server.models.manifest import INT8_FILE, MANIFEST_FILE, MODEL_FILE, FileRecord, Manifest, digest_text
from server.models.runtime import OnnxModel
from tests.tracing import ROOT, traced

SIDE = 64
GOLDEN_SEEDS = (1, 2)
SPEC = ModelSpec("tiny", "1", ("normal", "stroke"), ("stroke",), 0.05, checks="none")
"""Without checks, so that tests may send it noise."""

THREE = replace(
    SPEC, labels=("normal", "haemorrhagic", "ischaemic"), positive_labels=("haemorrhagic", "ischaemic"), threshold=0.75
)
"""Of a tiny model with three classes: bright images are haemorrhagic, dark ones ischaemic, and those of level 128 are
each with a third, so that they are normal by the threshold."""

BUNDLED = ROOT / "models" / "stroke-cnn" / "4"
"""The model that is shipped."""

RSNA = ROOT.parent / "shared" / "data" / "rsna_subset"


def build_tiny_graph(
    spec: ModelSpec = SPEC,
    *,
    side: int = SIDE,
    gain: float = 0.05,
    gain_of_third: float = -0.05,
    input_name: str = INPUT_NAME,
    input_type: int = TensorProto.UINT8,
    with_spec: bool = True,
) -> onnx.ModelProto:
    """A model whose probability of the second label grows with the mean grey level: sigmoid(gain * (mean - 128)).

    A third label has a gain of its own, further ones have none.

    Where its spec has a threshold for outliers, the mean is also its outlier score.
    """
    channels = 1 if spec.colour == "grey" else 3
    weights = np.zeros((1, len(spec.labels)), np.float32)
    weights[0, 1:3] = (gain, gain_of_third)[: len(spec.labels) - 1]
    bias = (-128 * weights[0]).astype(np.float32)
    nodes = [
        helper.make_node("Cast", [input_name], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "axis"], ["column"]),
        helper.make_node("MatMul", ["column", "weights"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [OUTPUT_NAME], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(input_name, input_type, ["N", side, side, channels])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", len(spec.labels)])],
        [
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights.ravel()),
            helper.make_tensor("bias", TensorProto.FLOAT, bias.shape, bias),
        ],
    )
    if spec.outlier_threshold:
        graph.node.append(helper.make_node("Identity", ["mean"], [OUTLIER_NAME]))
        graph.output.append(helper.make_tensor_value_info(OUTLIER_NAME, TensorProto.FLOAT, ["N"]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if with_spec:
        helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    return model


def build_tiny_model(spec: ModelSpec = SPEC, **options: object) -> bytes:
    """The bytes of ``build_tiny_graph``."""
    return build_tiny_graph(spec, **options).SerializeToString()  # type: ignore[arg-type]


def write_model(
    root: Path, spec: ModelSpec = SPEC, data: bytes | None = None, *, int8: bytes | None = None, target: str = ""
) -> Path:
    """Writes ``root/<name>/<version>/`` as the converter does, and returns that folder.

    Args:
        root: the models folder.
        spec: what the model says of itself.
        data: the model file; None: the tiny model.
        int8: the INT8 variant, if there is to be one; any model does.
        target: the processor that it is made for.
    """
    data = data or build_tiny_model(spec)
    golden = make_golden(data)
    files = {MODEL_FILE: FileRecord(sha256_hex(data), len(data), 1e-4)}
    folder = root / spec.name / spec.version
    folder.mkdir(parents=True)
    (folder / MODEL_FILE).write_bytes(data)
    if int8 is not None:
        own = make_golden(int8)
        answers = tuple(vector.probabilities for vector in own)
        scores = tuple(vector.outlier_score for vector in own) if spec.outlier_threshold else ()
        files[INT8_FILE] = FileRecord(sha256_hex(int8), len(int8), 1e-4, target, answers, outlier_scores=scores)
        (folder / INT8_FILE).write_bytes(int8)
    manifest = Manifest(files, golden, {"image_difference": 0.0})
    (folder / MANIFEST_FILE).write_text(manifest.to_json())
    return folder


def rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a manifest as somebody who knows its rules would: its digest is that of the new text."""
    path = folder / MANIFEST_FILE
    document = json.loads(path.read_text())
    change(document)
    path.write_text(sign_manifest(document))


def sign_manifest(document: dict[str, Any]) -> str:
    """The text of a manifest with the right digest, whatever is in it."""
    text = json.dumps({**document, "digest": ""}, indent=2)
    return text.replace('"digest": ""', f'"digest": "{digest_text(text)}"', 1)


def sha256_hex(data: bytes) -> str:
    """SHA-256 as manifests and answers state it."""
    return hashlib.sha256(data).hexdigest()


def make_golden(data: bytes) -> tuple[GoldenVector, ...]:
    """The golden vectors that ``write_model`` writes."""
    model = OnnxModel(data, source="tiny")
    shape = (model.input_format.height, model.input_format.width, model.input_format.channels)
    said = [model.score(make_golden_input(seed, *shape)[np.newaxis]) for seed in GOLDEN_SEEDS]
    return tuple(
        GoldenVector(seed, tuple(one.probabilities[0].tolist()), float(one.outlier[0]))
        for seed, one in zip(GOLDEN_SEEDS, said, strict=True)
    )


def with_version(version: str, spec: ModelSpec = SPEC) -> ModelSpec:
    """The same model in another version."""
    return replace(spec, version=version)


def encode(array: np.ndarray, image_format: str = "PNG", **options: object) -> bytes:
    """Encodes uint8 [H, W] or [H, W, C]."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, image_format, **options)
    return buffer.getvalue()


def make_slice(level: int = 100, side: int = 96, seed: int = 0) -> np.ndarray:
    """Noise around a grey level: uint8 [side, side]."""
    noise = np.random.RandomState(seed).randint(-20, 21, (side, side))
    return np.clip(level + noise, 0, 255).astype(np.uint8)


def wait_until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Polls until the condition is true; fails the test when that takes too long."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@dataclass
class ServerProcess:
    """A running ``python -m server``."""

    process: subprocess.Popen[str]
    banner: str
    """The line that says what is served where."""

    log: list[str]
    """Lines of standard error so far."""

    @property
    def address(self) -> str:
        return self.banner.rsplit(" ", 1)[1]

    @contextmanager
    def stub(self) -> Iterator[stroke_pb2_grpc.StrokeServiceStub]:
        """A raw stub, so that tests see what is on the wire."""
        options = [("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(self.address, options=options) as channel:
            yield stroke_pb2_grpc.StrokeServiceStub(channel)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signals and waits; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=240)


@contextmanager
def run_server(
    models: Path, *flags: str, program: Sequence[str] = (sys.executable, "-m", "server"), **environment: str
) -> Iterator[ServerProcess]:
    """Starts ``python -m server`` on a free port and waits until it serves; kills it at the end if it still runs.

    Where its lines are counted it is first asked to end: it writes them down when it does.
    """
    tracing = traced()
    process = subprocess.Popen(
        [*program, "--models", str(models), "--port", "0", *flags],
        cwd=ROOT,
        env={**os.environ, **tracing, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    log: list[str] = []
    reader = threading.Thread(target=log.extend, args=(process.stderr,), daemon=True)
    reader.start()
    try:
        banner = process.stdout.readline().strip()
        assert re.match(r"serving .* on (\S+:\d+|unix:\S+)$", banner), f"{banner!r} {log}"
        yield ServerProcess(process, banner, log)
        if tracing and process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        process.stderr.close()


def run_module(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m …`` from the root to its end."""
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, **options
    )


def read_resident_bytes(pid: int) -> int:
    """Memory that a process has at the moment, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
