"""``python -m bench.peers.runtimes``: one image on one thread, by runtime and precision, without decoding or a server.

The same networks in ONNX Runtime and OpenVINO, in fp32 and INT8, all in one process and in turns; milliseconds are CPU
time. NNCF quantises the fp32 file as exported, with its defaults: what a user of OpenVINO would do.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.images import read_images
from bench.peers.catalogue import Peer
from bench.peers.run import install
from bench.processes import ROOT
from bench.report.machine import describe_machine
from bench.report.page import publish
from bench.serving.resnet50 import KERAS_FILE, find_keras_file, make_resnet50
from bench.serving.settings import ReportOptions, describe_images, describe_model
from bench.serving.variants import FILES
from server.flags import LineParser, parse_settings, setting
from server.images.preprocess import load_pixels
from server.models.repository import find_only_model
from server.models.runtime import load_model
from server.process.children import run, run_main

ENVIRONMENT = Peer("runtimes", "ONNX Runtime, OpenVINO and NNCF")
TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class RuntimeOptions(ReportOptions):
    """What is measured."""

    rounds: int = setting(15, "rounds", least=1, most=1000)
    models: Path = setting(Path("models"), "folder of models")
    no_resnet50: bool = setting(False, "the CNN alone, without making a ResNet-50")


def list_sides(folder: Path, exported: Path) -> list[dict[str, Any]]:
    """What is compared for one model: its two files here, and what OpenVINO makes of the fp32 one.

    Args:
        folder: the model.
        exported: the network as the converter got it from Keras, with three channels and nothing rewritten.
    """
    ours = {precision: str(folder / file) for precision, file in FILES.items()}
    plain = {"file": str(exported), "channels": 3}
    as_floats = {"runtime": "openvino", "precision": "f32"}  # what is not quantised, as in `openvino_engine`
    return [
        {"name": "ONNX Runtime fp32, as exported", "runtime": "onnxruntime", **plain},
        {"name": "ONNX Runtime fp32, as converted here", "runtime": "onnxruntime", "file": ours["fp32"], "channels": 1},
        {"name": "ONNX Runtime int8, as converted here", "runtime": "onnxruntime", "file": ours["int8"], "channels": 1},
        {"name": "OpenVINO f32", **as_floats, **plain},
        {"name": "OpenVINO by default", "runtime": "openvino", "precision": None, **plain},
        {"name": "OpenVINO int8, as converted here", **as_floats, "file": ours["int8"], "channels": 1},
        {"name": "OpenVINO int8 by NNCF", "runtime": "openvino-nncf", "precision": "f32", **plain},
    ]


def export_plainly(source: Path, out: Path) -> Path:
    """Writes a Keras file as tf2onnx exports it, and returns that file."""
    code = f"""
import tensorflow as tf, tf2onnx
from dataclasses import dataclass
from pathlib import Path
from converter.source import load_source
source = load_source(Path({str(source)!r}))
signature = tf.TensorSpec((None, source.height, source.width, source.channels), tf.uint8, name="image")
function = tf.function(lambda image: source.call(tf.cast(image, tf.float32)), input_signature=[signature])
model, _ = tf2onnx.convert.from_function(function, input_signature=[signature], opset=17)
Path({str(out)!r}).write_bytes(model.SerializeToString())
"""
    # In a process of its own, so that TensorFlow's threads and memory do not stay beside the measurements.
    run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    return out


def measure_model(models: Path, source: Path, images: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds a run of each side, by round, and the versions of the runtimes."""
    folder = find_only_model(models)
    input_format = load_model(folder).input_format
    with tempfile.TemporaryDirectory() as scratch:
        slices, plan = Path(scratch) / "slices.npy", Path(scratch) / "plan.json"
        np.save(slices, np.stack([load_pixels(data, input_format).array for data in read_images(images)]))
        sides = list_sides(folder, export_plainly(source, Path(scratch) / "exported.onnx"))
        plan.write_text(json.dumps({"rounds": rounds, "slices": str(slices), "sides": sides}), "utf-8")
        worker = ENVIRONMENT.folder / "worker.py"
        output = run(
            [str(ENVIRONMENT.python), str(worker), str(plan)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
    measured: dict[str, Any] = json.loads(output.stdout.strip().splitlines()[-1])  # NNCF prints progress before it
    return {**describe_model(models), **measured}


def main(argv: Sequence[str] | None = None) -> int:
    """Installs what is compared, measures, and prints or writes the report."""
    parser = LineParser("python -m bench.peers.runtimes", (__doc__ or "").splitlines()[0])
    options = parse_settings(parser, RuntimeOptions, argv)
    install(ENVIRONMENT)
    models = {"cnn": (options.models, find_keras_file()[0])}
    if not options.no_resnet50:
        models["resnet50"] = (make_resnet50(), KERAS_FILE)
    section = {
        "machine": describe_machine(),
        "settings": {**describe_images(options.images), "rounds": options.rounds},
        "models": {
            name: measure_model(folder, source, options.images, options.rounds)
            for name, (folder, source) in models.items()
        },
    }
    print(publish("runtimes", section, options.out))
    return 0


if __name__ == "__main__":
    run_main(main)
