"""What the server and its models say of themselves, as documents: JSON over HTTP, and the fields of gRPC's messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from proto import __version__
from server.admission.judge import MOST_IMAGES
from server.models.registry import ModelRegistry
from server.models.runtime import OnnxModel
from server.oip.outputs import BYTES, FP32, NUMBERS, PROBABILITIES, TEXTS
from server.oip.tensors import INPUT_NAME

SERVER_NAME = "strokeserve"
EXTENSIONS = ("classification", "model_configuration", "schedule_policy")
HTTP_EXTENSIONS = ("binary_tensor_data",)
"""Those that the server has, by Triton's names. ``model_repository`` is not among them: that would load models, too."""

CONFIG_TYPES = {BYTES: "TYPE_STRING", FP32: "TYPE_FP32"}
ANY_NUMBER = -1


def describe_server(*, with_http: bool) -> dict[str, Any]:
    """Name, version and extensions of the server."""
    extensions = [*EXTENSIONS, *(HTTP_EXTENSIONS if with_http else ())]
    return {"name": SERVER_NAME, "version": __version__, "extensions": extensions}


def list_outputs(model: OnnxModel) -> list[tuple[str, str, list[int]]]:
    """Name, datatype and shape of every output, the shape without the number of images."""
    texts: Iterator[tuple[str, str, list[int]]] = ((name, BYTES, []) for name in TEXTS)
    numbers: Iterator[tuple[str, str, list[int]]] = ((name, FP32, []) for name in NUMBERS)
    return [(PROBABILITIES, FP32, [len(model.spec.labels)]), *texts, *numbers]


def describe_model(model: OnnxModel, versions: Iterable[str]) -> dict[str, Any]:
    """A model's metadata.

    Args:
        model: the model.
        versions: those of it that are served.
    """
    return {
        "name": model.spec.name,
        "versions": list(versions),
        "platform": find_platform(model),
        "inputs": [{"name": INPUT_NAME, "datatype": BYTES, "shape": [ANY_NUMBER, 1]}],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [ANY_NUMBER, *shape]}
            for name, datatype, shape in list_outputs(model)
        ],
    }


def list_versions(registry: ModelRegistry, model: OnnxModel) -> list[str]:
    """The versions of a model that are served."""
    return [other.spec.version for other in registry if other.spec.name == model.spec.name]


def find_platform(model: OnnxModel) -> str:
    """What runs a model, as Triton names such a pair of software and format."""
    return f"{model.runtime}_onnx"


def describe_config(model: OnnxModel) -> dict[str, Any]:
    """A model as one of Triton's configurations; shapes are without the number of images there."""
    return {
        "name": model.spec.name,
        "platform": find_platform(model),
        "backend": model.runtime,
        "max_batch_size": MOST_IMAGES,
        "input": [{"name": INPUT_NAME, "data_type": CONFIG_TYPES[BYTES], "dims": [1]}],
        "output": [
            {"name": name, "data_type": CONFIG_TYPES[datatype], "dims": shape}
            for name, datatype, shape in list_outputs(model)
        ],
        "instance_group": [{"name": model.spec.name, "kind": "KIND_CPU", "count": model.options.workers}],
    }


def describe_repository(models: Iterable[OnnxModel]) -> list[dict[str, str]]:
    """All models that are served; they are ready, or they would not be."""
    return [
        {"name": model.spec.name, "version": model.spec.version, "state": "READY", "reason": ""} for model in models
    ]
